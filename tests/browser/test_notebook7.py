"""The same in Notebook 7, which has another shell and no status bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lab_page import LabPage
from lab_server import LabServer, wait_for
from panel_page import PanelPage
from playwright.sync_api import Page, expect

if TYPE_CHECKING:
    pass

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SOON_MS = 60_000
PLAIN = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
PRINT_DEVICES = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"


SERVER = {"application": "notebook"}


@pytest.fixture
def notebook(server: LabServer, page: Page) -> LabPage:
    """A page on that server."""
    return LabPage(page, server)


def test_a_gpu_picked_in_the_kernel_dialog_is_the_kernels_and_stays_with_the_notebook(
    notebook: LabPage, server: LabServer
) -> None:
    server.write_notebook("A.ipynb")
    notebook.open("A.ipynb")
    notebook.wait_for_kernel()
    notebook.pick_gpu("GPU 1")
    notebook.wait_for_kernel("python3-gpu1")
    assert notebook.run_cell(PRINT_DEVICES) == server.device("1")["uuid"]
    assert server.holders("1") == ["A.ipynb"]
    notebook.save()
    saved = server.metadata("A.ipynb")
    assert saved["kernelspec"] == PLAIN
    assert saved["jupyter_gpu"] == {"request": "1"}

    notebook.shut_down_kernel()
    wait_for(lambda: server.holders("1") == [], "GPU 1 is free")
    notebook.save()
    notebook.reload()
    notebook.wait_for_kernel("python3")
    assert notebook.run_cell(PRINT_DEVICES) == server.device("1")["uuid"]


def test_a_notebook_waits_visibly_for_a_taken_gpu(notebook: LabPage, server: LabServer) -> None:
    server.write_notebook("A.ipynb", metadata={"jupyter_gpu": {"request": "1:all"}})
    session = {"path": "A.ipynb", "name": "A.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
    holder = server.rest("api/sessions", "POST", session)
    server.write_notebook("B.ipynb", metadata={"jupyter_gpu": {"request": "1:all"}})
    notebook.open("B.ipynb")
    expect(notebook.notification("B.ipynb waits for GPU 1, held by A.ipynb")).to_be_visible(timeout=20_000)
    server.rest(f"api/sessions/{holder['id']}", "DELETE")
    notebook.wait_for_kernel()
    assert server.holders("1") == ["B.ipynb"]


def test_the_panel_the_toolbar_and_the_details_are_there(notebook: LabPage, server: LabServer) -> None:
    server.write_notebook("A.ipynb", metadata={"jupyter_gpu": {"request": "1:8GiB"}})
    notebook.open("A.ipynb")
    notebook.wait_for_kernel()
    item = notebook.notebook.locator(".jp-gpu-ToolbarItem").get_by_role("button")
    expect(item).to_have_accessible_name("GPU 1 · 0 / 8 GiB", timeout=SOON_MS)
    page = notebook.page
    page.keyboard.press("Control+Shift+c")
    page.locator(".lm-CommandPalette-input").fill("Show GPUs")
    page.keyboard.press("Enter")
    panel = PanelPage(notebook)
    expect(panel.node).to_be_visible()
    row = panel.card("1").get_by_role("listitem")
    expect(row).to_contain_text("A.ipynb", timeout=SOON_MS)
    assert notebook.run_cell("import jupyter_gpu.simulated as s; taken = s.allocate('2GiB'); print('taken')") == "taken"
    expect(row).to_contain_text("2.0 / 8 GiB", timeout=SOON_MS)
    expect(item).to_have_accessible_name("GPU 1 · 2.0 / 8 GiB", timeout=SOON_MS)

    # There is no main area for a second thing: the charts come in a dialog.
    panel.act("A.ipynb", "Memory and Utilisation over Time")
    expect(notebook.dialog.locator("canvas")).to_have_count(2)
    notebook.dialog.get_by_role("button", name="Close").click()

    panel.act("A.ipynb", "Shut Down Kernel…")
    notebook.dialog.get_by_role("button", name="Shut Down").click()
    expect(row).to_have_count(0, timeout=SOON_MS)
    assert server.holders("1") == []


def test_the_page_says_that_gpus_are_simulated(notebook: LabPage, server: LabServer) -> None:
    server.write_notebook("A.ipynb")
    notebook.open("A.ipynb")
    expect(notebook.simulated_mark).to_be_visible()
    notebook.open()
    expect(notebook.simulated_mark).to_be_visible()
