"""What a kernel reads from NVML by itself, against the stand-in `libnvidia-ml.so.1`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from magic_kernel import GIB, StartKernel
from nvml_stand_in import NVMLStandIn


@pytest.fixture
def nvml(tmp_path: Path) -> NVMLStandIn:
    made = NVMLStandIn(tmp_path / "nvml")
    made.add_gpu()
    made.add_gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=80 * GIB, power_watts=250.0, utilization=40)
    return made


def variables(nvml: NVMLStandIn) -> dict[str, str]:
    return {
        name: value for name, value in {**os.environ, **nvml.environment()}.items() if not name.startswith("PYTEST")
    }


def test_without_a_server_and_a_lease_the_devices_are_listed_all_the_same(
    start_kernel: StartKernel, nvml: NVMLStandIn
) -> None:
    kernel = start_kernel(variables=variables(nvml))
    said = kernel.ok("%gpu list").text
    assert "1    NVIDIA H100 80GB HBM3" in said
    assert "80 GiB" in said
    assert "only the server knows" in said


def test_what_this_process_holds_is_the_drivers_figure_and_labelled_sampled_in_a_cell(
    start_kernel: StartKernel, nvml: NVMLStandIn
) -> None:
    uuid = nvml.gpus[1].uuid
    kernel = start_kernel(variables={**variables(nvml), "CUDA_VISIBLE_DEVICES": uuid})
    pid = kernel.value("os.getpid()", "import os")
    nvml.add_process(uuid, pid, 3 * GIB)
    nvml.add_process(uuid, 1, 7 * GIB)
    [device] = kernel.value("state['devices']", "state = %gpu")
    assert (device["index"], device["used_bytes"], device["peak_bytes"]) == ("1", 3 * GIB, None)
    said = kernel.ok("%%gpu\nimport time; time.sleep(0.25)").text
    assert "3 GiB (sampled)" in said
    assert "40 %" in said
    assert " J" in said


def test_what_the_driver_does_not_tell_is_unknown_with_a_reason(start_kernel: StartKernel, nvml: NVMLStandIn) -> None:
    uuid = nvml.gpus[0].uuid
    kernel = start_kernel(variables={**variables(nvml), "CUDA_VISIBLE_DEVICES": uuid})
    nvml.add_process(uuid, kernel.value("os.getpid()", "import os"), None)
    [device] = kernel.value("state['devices']", "state = %gpu")
    assert device["used_bytes"] is None
    assert device["reasons"]["used_bytes"]


def test_a_mig_instance_is_found_by_its_uuid(start_kernel: StartKernel, nvml: NVMLStandIn) -> None:
    instance = nvml.add_instance(nvml.gpus[0].uuid, "3g.20gb", 20 * GIB)
    kernel = start_kernel(variables={**variables(nvml), "CUDA_VISIBLE_DEVICES": instance})
    [device] = kernel.value("state['devices']", "state = %gpu")
    assert device["memory_bytes"] == 20 * GIB
    assert "mig" in kernel.value("state['layers']")
