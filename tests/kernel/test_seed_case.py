"""The case that it all began with: Theano for data utilities on the CPU and TensorFlow capped on GPU 1, in one kernel.

The notebook is run as it is, through nbclient and the GPU provisioner, on simulated GPUs and CPU builds. The one cell
that is put in is the thin stand-in at TensorFlow's edge: a GPU in the list of physical devices that its C++ side gives.
"""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from magic_kernel import GIB
from nbclient import NotebookClient

from jupyter_gpu.host import GPUHost

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NOTEBOOK = Path(__file__).with_name("seed_case.ipynb")
STAND_IN = """
import tensorflow as tf
from tensorflow.python import pywrap_tfe
real_devices = pywrap_tfe.TF_ListPhysicalDevices
pywrap_tfe.TF_ListPhysicalDevices = lambda: real_devices() + [b"/physical_device:GPU:0"]
"""


@pytest.fixture
def kernelspec(theano_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "share" / "kernels" / "theano-and-tensorflow"
    directory.mkdir(parents=True)
    argv = [str(theano_python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "language": "python", "display_name": "Theano and TensorFlow"}
    (directory / "kernel.json").write_text(json.dumps(spec))
    (tmp_path / "theanorc").write_text(f"[global]\nbase_compiledir = {theano_python.parents[1] / 'compiled'}\n")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    monkeypatch.setenv("THEANORC", str(tmp_path / "theanorc"))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")


def result(notebook: Any, tag: str) -> Any:
    """What the cell with this tag showed, as the value that it was."""
    [cell] = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
    [text] = [output["data"]["text/plain"] for output in cell.outputs if "data" in output]
    return ast.literal_eval(text)


async def test_theano_on_the_cpu_and_tensorflow_capped_on_gpu_1_in_one_kernel(
    host: GPUHost, kernelspec: None, tmp_path: Path
) -> None:
    KernelProvisionerFactory.instance().default_provisioner_name = "gpu-provisioner"
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    # The request that the notebook carries is found by the server, which knows its path; nbclient does not.
    environment = {"JUPYTER_GPU": notebook.metadata["jupyter_gpu"]["request"]}
    [at] = [n for n, cell in enumerate(notebook.cells) if "import-tensorflow" in cell.metadata.get("tags", [])]
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(STAND_IN))
    client = NotebookClient(
        notebook, timeout=300, kernel_name="theano-and-tensorflow", resources={"metadata": {"path": str(tmp_path)}}
    )
    await client.async_execute(env={**os.environ, **environment})

    assert result(notebook, "no-gpu-operations") == []
    weights, bias = result(notebook, "model")
    assert weights == pytest.approx([1, 2, 3, 4, 5, 6], abs=0.05)
    assert bias == pytest.approx(0.5, abs=0.05)
    summary = result(notebook, "summary")
    assert summary["devices"] == [("1", 8 * GIB)]
    assert summary["theano"]["compiles for"] == "the CPU"
    assert "device=cpu" in summary["theano"]["THEANO_FLAGS"]
    assert summary["tensorflow"]["logical device GPU:0"] == "4096 MiB"
    assert summary["tensorflow"]["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
