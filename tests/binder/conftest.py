"""Runs the tutorial notebooks as JupyterLab does: as sessions of a real server, on four simulated GPUs."""

from __future__ import annotations

import ast
import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernel_environments import MissingPython, environment_python
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "binder" / "notebooks"
_CELL_TIMEOUT_S = 240
_START_TIMEOUT_S = 180


class Executed:
    """A notebook that was run from top to bottom. Its cells are found by their tags."""

    def __init__(self, notebook: Any) -> None:
        self.notebook = notebook

    @property
    def text(self) -> str:
        """Everything that was printed or shown."""
        return "\n".join(_text(cell) for cell in self.notebook.cells)

    def shown(self, tag: str) -> str:
        """What the one cell with this tag printed and showed."""
        [cell] = [cell for cell in self.notebook.cells if tag in cell.metadata.get("tags", [])]
        return _text(cell)

    def value(self, tag: str) -> Any:
        """The literal that the cell with this tag ends with."""
        return ast.literal_eval(self.shown(tag).strip().splitlines()[-1])


class Tutorial:
    """The folder of notebooks in a server's root directory, and that server.

    Args:
        serverapp: the server.
        directory: where the notebooks were copied to.
    """

    def __init__(self, serverapp: Any, directory: Path) -> None:
        self.serverapp = serverapp
        self.directory = directory

    async def run(self, name: str, change: Callable[[list[Any]], None] = lambda _: None) -> Executed:
        """The notebook whose file name begins so, run as its session.

        Args:
            name: the beginning of the file's name.
            change: may change the cells before they are run, to put a stand-in in.
        """
        [path] = self.directory.glob(f"{name}*.ipynb")
        notebook = nbformat.read(path, as_version=4)
        change(notebook.cells)
        sessions, kernels = self.serverapp.session_manager, self.serverapp.kernel_manager
        session = await sessions.create_session(
            path=path.name, name=path.name, type="notebook", kernel_name=notebook.metadata.kernelspec.name
        )
        client = NotebookClient(
            notebook,
            km=kernels.get_kernel(session["kernel"]["id"]),
            timeout=_CELL_TIMEOUT_S,
            startup_timeout=_START_TIMEOUT_S,
        )
        try:
            async with client.async_setup_kernel():
                for number, cell in enumerate(notebook.cells):
                    await client.async_execute_cell(cell, number)
        finally:
            if client.kc is not None:
                client.kc.stop_channels()
            await sessions.delete_session(session["id"])
        return Executed(notebook)


@pytest.fixture
def tutorial(jp_serverapp: Any, jp_asyncio_loop: asyncio.AbstractEventLoop, jp_root_dir: Path) -> Tutorial:
    """The notebooks on a server of their own."""
    jp_asyncio_loop.run_until_complete(jp_serverapp.extension_manager.start_all_extensions())
    shutil.copytree(NOTEBOOKS, jp_root_dir, dirs_exist_ok=True)
    return Tutorial(jp_serverapp, jp_root_dir)


@pytest.fixture
def environment_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Offers the Python of one of the tests' environments as a kernelspec, and returns that Python."""

    def offer(environment: str, name: str, **variables: str) -> Path:
        try:
            python = environment_python(environment)
        except MissingPython as error:
            pytest.skip(str(error))
        prefix = tmp_path / "prefix"
        install = ["-m", "ipykernel", "install", "--prefix", str(prefix), "--name", name, "--display-name", name]
        subprocess.run([python, *install], check=True, capture_output=True, timeout=120)
        specification = prefix / "share" / "jupyter" / "kernels" / name / "kernel.json"
        content = json.loads(specification.read_text())
        specification.write_text(json.dumps({**content, "env": {**content.get("env", {}), **variables}}))
        monkeypatch.setenv("JUPYTER_PATH", str(prefix / "share" / "jupyter"))
        return python

    return offer


def _text(cell: Any) -> str:
    found = (
        output.get("text") or output.get("data", {}).get("text/plain") or output.get("evalue", "")
        for output in cell.get("outputs", [])
    )
    return "\n".join(text.rstrip("\n") for text in found)
