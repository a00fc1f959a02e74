"""The tutorial notebooks run from top to bottom on a real server, and what they teach is the case."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from kernel_client import held
from nbclient import NotebookClient

from jupyter_gpu.host import GPUHost
from jupyter_gpu.leases.request import GPURequest

from .conftest import NOTEBOOKS, ROOT, Executed, Tutorial

pytestmark = pytest.mark.timeout(600)

FILES = sorted(NOTEBOOKS.glob("*.ipynb"))
STAND_IN = """
import tensorflow as tf
from tensorflow.python import pywrap_tfe
real_devices = pywrap_tfe.TF_ListPhysicalDevices
pywrap_tfe.TF_ListPhysicalDevices = lambda: real_devices() + [b"/physical_device:GPU:0"]
"""
"""A GPU in the list of physical devices that TensorFlow's C++ side gives, and nothing behind it."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_notebook_is_saved_without_outputs_and_asks_for_something(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in _code(notebook))
    request = notebook.metadata.jupyter_gpu.request
    assert str(GPURequest.parse(request)) == request
    assert notebook.cells[0].source.startswith("# ")
    assert any("simulated" in cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_the_notebooks_are_numbered_from_one() -> None:
    assert [path.name[:2] for path in FILES] == [f"{number}-" for number in range(1, len(FILES) + 1)]


async def test_a_kernel_has_the_gpu_that_its_notebook_asks_for(tutorial: Tutorial, host: GPUHost) -> None:
    shown = (await tutorial.run("1-")).text
    uuid = host.look_now().inventory.devices[1].uuid
    assert f"CUDA_VISIBLE_DEVICES = {uuid}" in shown
    assert "1-choose-a-gpu.ipynb (reserved, 8 GiB, 0 B in use)" in shown
    assert "6 GiB of 8 GiB" in shown
    assert "the cap of this kernel is 8 GiB" in shown
    assert f"<6 GiB on {uuid}, freed>" in shown
    assert held(host) == []


async def test_the_first_notebook_needs_no_server(tmp_path: Path, host: GPUHost) -> None:
    """As papermill and `jupyter execute` run it."""
    KernelProvisionerFactory.instance().default_provisioner_name = "gpu-provisioner"
    notebook = nbformat.read(FILES[0], as_version=4)
    client = NotebookClient(notebook, timeout=240, startup_timeout=180, resources={"metadata": {"path": str(tmp_path)}})
    await client.async_execute(env={**os.environ, "JUPYTER_GPU": notebook.metadata.jupyter_gpu.request})
    assert "the cap of this kernel is 8 GiB" in Executed(notebook).text
    assert host.leases_now() == []


async def test_a_cap_is_kept_is_explained_and_can_be_changed_while_the_kernel_runs(tutorial: Tutorial) -> None:
    done = await tutorial.run("2-")
    assert done.value("cap") == 8
    assert "This kernel's cap on GPU 0 is 8 GiB: 4 GiB was asked for while 6 GiB was held." in done.shown("beyond")
    assert done.value("refused") == (6, 1)
    assert "has GPU 0:12GiB now" in done.shown("raised")
    assert done.value("lowered") == (10, 8)
    assert done.value("shared") == 40
    assert done.value("beside") == (40, 24)
    assert "simulation" in done.value("layers")


@pytest.mark.slow
async def test_theano_stays_on_the_cpu_and_tensorflow_within_its_part(
    environment_kernel: Callable[..., Path], tutorial: Tutorial, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = environment_kernel("theano", "theano-and-tensorflow", TF_CPP_MIN_LOG_LEVEL="3")
    (tmp_path / "theanorc").write_text(f"[global]\nbase_compiledir = {python.parents[1] / 'compiled'}\n")
    monkeypatch.setenv("THEANORC", str(tmp_path / "theanorc"))

    def give_tensorflow_a_gpu(cells: list[Any]) -> None:
        [at] = [number for number, cell in enumerate(cells) if "import-tensorflow" in cell.metadata.get("tags", [])]
        cells.insert(at + 1, nbformat.v4.new_code_cell(STAND_IN))

    done = await tutorial.run("3-", give_tensorflow_a_gpu)
    assert "it is left out" in done.shown("theano-flags")
    assert "TensorFlow gets 4 GiB on GPU 1 when TensorFlow is imported" in done.shown("tensorflow-limit")
    assert done.value("gpu-operations") == []
    assert done.value("model") == ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 0.5)
    settings = ast.literal_eval(done.shown("settings"))
    assert settings["tensorflow"]["logical device GPU:0"] == "4096 MiB"
    assert settings["tensorflow"]["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert settings["theano"]["compiles for"] == "the CPU"
    assert "device=cpu" in settings["theano"]["THEANO_FLAGS"]
    assert "of 8 GiB" in done.shown("state")
    assert "restart" in done.shown("after")
    assert "backend = tensorflow" in done.text
    assert "backend = tensorflow, set by you" not in done.text


@pytest.mark.slow
async def test_untidy_sequences_are_cleaned_fit_in_the_cap_by_buckets_and_are_learned_from(
    environment_kernel: Callable[..., Path], tutorial: Tutorial
) -> None:
    # Where a reader has installed TensorFlow, there is jupyter_gpu too.
    environment_kernel("frameworks", "python3", TF_CPP_MIN_LOG_LEVEL="3", PYTHONPATH=str(ROOT))
    done = await tutorial.run("4-")
    runs, left_out, missing, readings = done.value("cleaned")
    assert (runs, left_out) == (603, 48)
    assert 0 < missing < readings / 20
    assert "the cap of this kernel is 2 GiB" in done.shown("naive")
    _, padded, fits = done.value("buckets")
    assert fits is True
    assert padded < done.value("one-size") / 4
    peak = re.search(r"GPU 3 +(\d+) MiB", done.shown("training"))
    assert peak is not None, done.shown("training")
    assert int(peak[1]) < 2048
    before, after = done.value("accuracy")
    assert before < 0.9 < after
    assert done.value("mask") == (True, True)


async def test_several_gpus_have_a_cap_each_and_can_be_exchanged(tutorial: Tutorial, host: GPUHost) -> None:
    done = await tutorial.run("5-")
    uuids = [device.uuid for device in host.look_now().inventory.devices]
    assert done.value("order") == [(0, "0", 4), (1, "1", 16)]
    assert f"out of memory on {uuids[0]}: 2 GiB asked for, 3 GiB held, and the cap of this kernel is 4 GiB" in done.text
    assert done.shown("workers").split()[0] == uuids[1]
    assert "refused, because the kernel itself holds 12 GiB" in done.shown("workers")
    assert "--restart" in done.shown("later")
    assert "has GPU 2,3:20GiB now" in done.shown("now")
    assert done.value("moved") == [(0, "2", 20), (1, "3", 20)]
    assert "there are 4" in done.shown("impossible")


async def test_the_cell_figures_tell_a_starving_gpu_from_a_busy_one(tutorial: Tutorial) -> None:
    done = await tutorial.run("6-")
    starving, fed = _busy(done.shown("starving")), _busy(done.shown("fed"))
    assert 0 < starving < 50
    assert fed > 1.2 * starving
    assert "1.5 GiB" in done.shown("starving")
    assert _busy(done.shown("first-step")) > 0
    [device] = json.loads(done.shown("json"))["devices"]
    assert device["peak_kind"] == "exact"
    assert device["energy_joules"] is None


async def test_scripts_have_gpus_from_the_same_ledger_and_wait_in_the_same_queue(
    tutorial: Tutorial, host: GPUHost
) -> None:
    done = await tutorial.run("7-")
    uuid = host.look_now().inventory.devices[1].uuid
    assert "4 GiB more are refused" in done.shown("status")
    assert done.value("status") == 3
    assert "GPU" not in done.shown("nobody").replace("simulated GPUs", "").splitlines()[2:]
    assert "read line' (whole)" in done.shown("held")
    assert done.value("no-wait") == 75
    assert "1.  python train.py  waits for GPU 1" in done.shown("queue")
    assert f"training on {uuid}" in done.shown("turn")
    assert done.value("turn") == 3
    assert done.value("json") == [(str(number), 40) for number in range(4)]
    assert held(host) == []


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _busy(shown: str) -> float:
    """The percentage under `busy`."""
    found = re.search(r"(\d+) %", shown)
    assert found is not None, shown
    return float(found[1])
