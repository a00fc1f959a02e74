"""Which layers hold, and that the interposer reaches a kernel's process tree on a host with a driver."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from kernel_client import printed, running
from nvml_stand_in import NVMLStandIn

from jupyter_gpu.host import GPUHost
from jupyter_gpu.limits.layers import LimitLayers

LOG = logging.getLogger(__name__)
GIB = 1 << 30
MAPS = "print('interposer' in open('/proc/self/maps').read())"
CHILD_MAPS = f"import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {MAPS!r}]).decode())"


def test_the_interposer_is_compiled_once_and_says_where_it_is() -> None:
    layers = LimitLayers(LOG, simulated=False, use_interposer=True)
    library = layers.library(120)
    assert library is not None
    assert library.is_file()
    assert layers.layers(())[0].active
    assert layers.preload({"LD_PRELOAD": "/lib/mine.so"}, 0) == {"LD_PRELOAD": f"/lib/mine.so:{library}"}


@pytest.mark.parametrize(
    ("simulated", "wanted", "reason"),
    [(True, True, "simulated devices keep their caps themselves"), (False, False, "GPUHost.interposer is false")],
)
def test_what_is_not_wanted_is_not_preloaded_and_says_why(simulated: bool, wanted: bool, reason: str) -> None:
    layers = LimitLayers(LOG, simulated=simulated, use_interposer=wanted)
    assert layers.preload({}, 1) == {}
    interposer = layers.layers(())[0]
    assert (interposer.name, interposer.active, interposer.reason) == ("interposer", False, reason)


@pytest.mark.parametrize(("request_text", "expected"), [("0:8GiB", "True"), ("cpu", "False")])
async def test_a_kernel_with_a_gpu_and_its_children_run_under_the_interposer(
    tmp_path: Path, fresh_singletons: None, request_text: str, expected: str
) -> None:
    driver = NVMLStandIn(tmp_path / "state")
    driver.add_gpu(memory_bytes=80 * GIB)
    driver.load()
    host = GPUHost.instance()
    assert host.limits.library(120) is not None
    KernelProvisionerFactory.instance().default_provisioner_name = "gpu-provisioner"
    manager = AsyncKernelManager(kernel_name="python3")
    manager.kernel_spec.env["JUPYTER_GPU"] = request_text  # type: ignore[union-attr]
    async with running(manager) as client:
        assert (await printed(client, MAPS)).strip() == expected
        assert (await printed(client, CHILD_MAPS)).strip() == expected
        record = host.kernels.get(manager.provisioner.kernel_id)  # type: ignore[union-attr]
        assert record is not None
        assert record.layers == (("interposer", "framework") if expected == "True" else ())
    assert "interposer" not in Path("/proc/self/maps").read_text()
