"""The tutorial notebooks run from top to bottom, each on what its metadata asks for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from nbclient import NotebookClient

from jupyter_gpu.host import GPUHost

NOTEBOOKS = sorted((Path(__file__).parents[2] / "binder" / "notebooks").glob("*.ipynb"))


def outputs(notebook: Any) -> str:
    """Everything that was printed or shown."""
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in found)


async def executed(path: Path) -> Any:
    """The notebook with its outputs; it is run as a session that a server starts for it would be."""
    notebook = nbformat.read(path, as_version=4)
    manager = AsyncKernelManager(kernel_name="python3")
    client = NotebookClient(notebook, km=manager, timeout=120, resources={"metadata": {"path": str(path.parent)}})
    try:
        async with client.async_setup_kernel(env={**os.environ, "JPY_SESSION_NAME": str(path)}):
            for number, cell in enumerate(notebook.cells):
                await client.async_execute_cell(cell, number)
    finally:
        await manager.shutdown_kernel(now=True)
    return notebook


@pytest.fixture(autouse=True)
def gpu_provisioner(host: GPUHost) -> None:
    KernelProvisionerFactory.instance().default_provisioner_name = "gpu-provisioner"


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
async def test_a_notebook_runs_without_an_error_and_is_saved_without_outputs(path: Path, host: GPUHost) -> None:
    assert outputs(nbformat.read(path, as_version=4)) == ""
    await executed(path)
    assert host.leases_now() == []


async def test_the_first_notebook_shows_the_main_job(host: GPUHost) -> None:
    shown = outputs(await executed(next(path for path in NOTEBOOKS if path.stem == "1-choose-a-gpu")))
    uuid = host.look_now().inventory.devices[1].uuid
    assert f"CUDA_VISIBLE_DEVICES = {uuid}" in shown
    assert "1-choose-a-gpu.ipynb (8 GiB)" in shown
    assert "6 GiB / 40 GiB" in shown
    assert "the cap of this kernel is 8 GiB" in shown
    assert f"<6 GiB on {uuid}, freed>" in shown
