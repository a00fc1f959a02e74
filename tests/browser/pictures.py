"""Takes the README's pictures: `python tests/browser/pictures.py [DIRECTORY]`. Real kernels, on simulated GPUs."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import FLAGS, chromium
from lab_page import LabPage
from lab_server import LabServer
from playwright.sync_api import sync_playwright

DIRECTORY = Path(__file__).parents[2] / "binder" / "images"
SECONDS_OF_HISTORY = 40
NOTEBOOKS = {
    "evaluate.ipynb": ("1:16GiB", "9GiB"),
    "explore.ipynb": ("1:8GiB", "3GiB"),
    "finetune.ipynb": ("2:all", "36GiB"),
    "train.ipynb": ("0:24GiB", "17GiB"),
}
STARTUP = """
import os, threading, time
import jupyter_gpu.simulated as _gpu

_amounts = {amounts}

def _work():
    global _kept
    _kept = _gpu.allocate(_amounts[os.path.basename(os.environ["JPY_SESSION_NAME"])])
    for step in range(400):
        with _gpu.computing():
            block = _gpu.allocate("2GiB")
            time.sleep(0.3 + 0.4 * (step % 3))
        block.free()
        time.sleep(0.4)

threading.Thread(target=_work, daemon=True).start()
"""
"""What the kernels do, instead of the work of the people whose notebooks these would be."""
CELL = {
    "cell_type": "code",
    "execution_count": 4,
    "id": "train",
    "metadata": {},
    "outputs": [{"output_type": "stream", "name": "stdout", "text": "epoch 3, step 1200: loss 0.214\n"}],
    "source": "for epoch in range(10):\n    train(model, batches, epoch)",
}


def write_notebook(path: Path, request: str) -> None:
    """One that asks for a GPU."""
    metadata = {
        "jupyter_gpu": {"request": request},
        "kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"},
    }
    content = {"cells": [CELL], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content))


def main(directory: Path) -> None:
    """Take them."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="jg-") as home, sync_playwright() as playwright:
        runtime = Path(home) / "gpu"
        os.environ.pop("JUPYTER_GPU_RUNTIME_DIR", None)
        server = LabServer(Path(home), runtime)
        server.start()
        try:
            browser = playwright.chromium.launch(
                executable_path=chromium(playwright.chromium.executable_path), args=FLAGS
            )
            page = browser.new_page(viewport={"width": 1480, "height": 720})
            page.set_default_timeout(30_000)
            lab = LabPage(page, server)
            startup = Path(home) / "ipython" / "profile_default" / "startup"
            startup.mkdir(parents=True, exist_ok=True)
            amounts = {name: amount for name, (_, amount) in NOTEBOOKS.items()}
            (startup / "work.py").write_text(STARTUP.format(amounts=amounts))
            for name, (request, _) in NOTEBOOKS.items():
                write_notebook(server.root / name, request)
                session = {"path": name, "name": name, "type": "notebook", "kernel": {"name": "python3"}}
                server.rest("api/sessions", "POST", session)
            lab.open("train.ipynb")
            lab.wait_for_kernel()
            panel = page.locator("#jupyter-gpu-panel")
            if not panel.is_visible():
                page.get_by_role("tab", name="GPUs").click()
            page.wait_for_timeout(SECONDS_OF_HISTORY * 1000)
            page.screenshot(path=directory / "panel-light.png")
            page.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
            page.wait_for_timeout(3000)
            page.screenshot(path=directory / "panel-dark.png")
            browser.close()
        finally:
            server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY)
