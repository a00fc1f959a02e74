"""The frameworks' GPU builds on a real GPU: what `%gpu` sets is what they keep to, and what it reads is what they hold.

Each test runs a kernel of this interpreter with a lease of 4 GiB on the first GPU, without the interposer, so that
the framework itself keeps to its limit. A framework that is not installed here with CUDA is left out.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from magic_kernel import GIB, MagicKernel, magic_kernel

from jupyter_gpu.limits.account import Account

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.timeout(600)]

CAP = 4 * GIB
LEFT = CAP - 256 * (1 << 20)
_FIRST_GPU = """
from jupyter_gpu.devices.nvml import NVMLBackend
for device in NVMLBackend().inventory().leasable[:1]:
    print(device.uuid, device.memory_bytes)
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[MagicKernel]:
    # Asked in a process of its own: this one may have the stand-in driver of an earlier test.
    found = subprocess.run([sys.executable, "-c", _FIRST_GPU], capture_output=True, text=True, check=True)
    if not found.stdout:
        pytest.skip("there is no GPU here")
    uuid, memory = found.stdout.split()
    path = tmp_path / "lease"
    Account.create(path, "lease", [(uuid, CAP, int(memory))]).close()
    lease = {
        "JUPYTER_GPU_LEASE": "lease",
        "JUPYTER_GPU_ACCOUNT": str(path),
        "CUDA_VISIBLE_DEVICES": uuid,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    with magic_kernel(sys.executable, variables=lease) as running:
        yield running


def need(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed here")


def test_pytorch_stays_within_its_limit_and_gives_back_what_it_caches(kernel: MagicKernel) -> None:
    need("torch")
    kernel.ok("import torch")
    if not kernel.value("torch.cuda.is_available()"):
        pytest.skip("this PyTorch has no CUDA")
    assert "CUDA is not up" in kernel.ok("%gpu torch").text
    kernel.ok("a = torch.empty(1 << 30, dtype=torch.uint8, device='cuda')")
    assert "OutOfMemoryError" in str(kernel.run("b = torch.empty(4 << 30, dtype=torch.uint8, device='cuda')").error)
    kernel.ok("%gpu torch --memory 2GiB")
    assert "OutOfMemoryError" in str(kernel.run("b = torch.empty(3 << 29, dtype=torch.uint8, device='cuda')").error)
    kernel.ok("del a")
    assert "PyTorch gave back 1 GiB" in kernel.ok("%gpu free").text
    assert "CUDA" in kernel.value("get_ipython()._jupyter_gpu_entrance.session.cuda_reasons()")[0]


def test_tensorflow_starts_with_its_limit_and_grows(kernel: MagicKernel) -> None:
    need("tensorflow")
    kernel.ok("import tensorflow as tf")
    if not kernel.value("bool(tf.config.list_physical_devices('GPU'))"):
        pytest.skip("this TensorFlow has no CUDA")
    kernel.ok("a = tf.zeros((1 << 26,))")
    limits = "[d.memory_limit for d in tf.config.get_logical_device_configuration(g)]"
    assert kernel.value(limits, "g = tf.config.list_physical_devices('GPU')[0]") == [LEFT >> 20]
    held = kernel.value("[h['used_bytes'] for f in s['frameworks'] for h in f['holds']]", "s = %gpu")
    assert held[0] >= 1 << 28
    assert "ResourceExhaustedError" in str(kernel.run("b = tf.zeros((1 << 30,))").error)
    assert "keeps one allocator per GPU" in kernel.ok("%gpu tf --memory 2GiB").text


def test_jax_stays_within_its_limit(kernel: MagicKernel) -> None:
    need("jax")
    kernel.ok("import jax, jax.numpy as jnp")
    if kernel.value("jax.default_backend()") != "gpu":
        pytest.skip("this JAX has no CUDA")
    kernel.ok("a = jnp.zeros((1 << 28,), 'float32').block_until_ready()")
    assert "RESOURCE_EXHAUSTED" in str(kernel.run("jnp.zeros((1 << 30,), 'float32').block_until_ready()").error)
    [held] = kernel.value("[h for f in s['frameworks'] if f['name'] == 'jax' for h in f['holds']]", "s = %gpu")
    assert held["used_bytes"] >= GIB


def test_cupy_stays_within_its_limit_live(kernel: MagicKernel) -> None:
    need("cupy")
    kernel.ok("import cupy\na = cupy.zeros(1 << 28, 'float32')")
    kernel.ok("%gpu cupy --memory 2GiB")
    assert "OutOfMemoryError" in str(kernel.run("b = cupy.zeros(1 << 29, 'float32')").error)
    kernel.ok("del a")
    assert "CuPy gave back 1 GiB" in kernel.ok("%gpu free").text


def test_a_cell_has_its_energy_and_utilisation(kernel: MagicKernel) -> None:
    output = kernel.ok("%%gpu --json\nimport time; time.sleep(0.5)")
    [device] = output.shown[-1]["application/json"]["devices"]
    assert device["energy_joules"] is None or device["energy_joules"] > 0
    assert device["utilization_percent"] is not None
