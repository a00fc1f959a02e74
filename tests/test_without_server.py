"""Kernels that no server starts: nbclient, papermill and `jupyter execute`, each for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from jupyter_gpu.devices.simulation import parse_specification
from jupyter_gpu.host import GPUHost

UUIDS = [device.uuid for device in parse_specification("4xNVIDIA A100-SXM4-40GB:40GiB")]
CODE = (
    "import os, jupyter_gpu.simulated as gpu\n"
    "block = gpu.allocate('2GiB')\n"
    "print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['JUPYTER_GPU_LEASE'])"
)
NBCLIENT = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, kernel_name=sys.argv[3]).execute()
nbformat.write(notebook, sys.argv[2])
"""
PROGRAMS = {
    "nbclient": ["-c", NBCLIENT, "{notebook}", "{output}", "{kernel}"],
    "papermill": ["-m", "papermill", "--log-level", "WARNING", "-k", "{kernel}", "{notebook}", "{output}"],
    "jupyter execute": ["-m", "jupyter", "execute", "--kernel_name={kernel}", "{notebook}", "--output={output}"],
}


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    path = tmp_path / "work.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CODE)]), path)
    return path


def executed(program: str, notebook: Path, kernel: str, **variables: str) -> str:
    """What the notebook printed."""
    output = notebook.with_name("out.ipynb")
    arguments = [part.format(notebook=notebook, output=output, kernel=kernel) for part in PROGRAMS[program]]
    environment = {**os.environ, "JUPYTER_DATA_DIR": str(notebook.parent / "data"), **variables}
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=notebook.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads(output.read_text())["cells"]
    return "".join(text for cell in cells for out in cell.get("outputs", []) for text in out.get("text", []))


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_default_provisioner_gives_them_their_gpu(program: str, notebook: Path, host: GPUHost) -> None:
    printed = executed(
        program, notebook, "python3", JUPYTER_DEFAULT_PROVISIONER_NAME="gpu-provisioner", JUPYTER_GPU="2:8GiB"
    )
    uuid, lease_id = printed.split()
    assert uuid == UUIDS[2]
    assert lease_id
    host.ledger.drop_dead()
    assert host.leases_now() == []
    assert list(host.accounts.directory.iterdir()) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_kernelspec_on_disk_gives_them_its_gpu(program: str, notebook: Path, host: GPUHost) -> None:
    environment = {**os.environ, "JUPYTER_DATA_DIR": str(notebook.parent / "data")}
    command = [sys.executable, "-m", "jupyter", "gpu", "kernelspec", "install", "--request", "3:25%", "--name", "small"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    assert executed(program, notebook, "small").split()[0] == UUIDS[3]
    assert [lease for lease in host.leases_now() if lease.owner.kind == "kernel"] == []


IN_A_FORK = """
import os, sys, nbformat
from nbclient import NotebookClient
def execute(output):
    notebook = nbformat.read(sys.argv[1], 4)
    NotebookClient(notebook, kernel_name=sys.argv[3]).execute()
    nbformat.write(notebook, output)
execute(sys.argv[2])
child = os.fork()
if child == 0:
    execute(sys.argv[2])
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_starts_kernels_as_its_parent_did(
    notebook: Path, host: GPUHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROGRAMS, "fork", ["-c", IN_A_FORK, "{notebook}", "{output}", "{kernel}"])
    printed = executed("fork", notebook, "python3", JUPYTER_DEFAULT_PROVISIONER_NAME="gpu-provisioner", JUPYTER_GPU="2")
    assert printed.split()[0] == UUIDS[2]
    assert host.leases_now() == []
