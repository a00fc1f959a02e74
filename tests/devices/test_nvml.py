"""What NVMLBackend says of GPUs and what they do, through the real pynvml."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pynvml
import pytest
from nvml_stand_in import (
    FUNCTION_NOT_FOUND,
    GIB,
    INVALID_ARGUMENT,
    NO_PERMISSION,
    NOT_SUPPORTED,
    UNKNOWN,
    NVMLStandIn,
    StandInProcess,
)

from jupyter_gpu.devices.device import DeviceProcess
from jupyter_gpu.devices.nvml import NVMLBackend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Clock

FIGURES = (
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetTemperature",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
)


def test_a_gpu_is_described_in_full(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    uuid = stand_in.add_gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=80 * GIB, capability=(9, 0))
    inventory = backend.inventory()
    (device,) = inventory.devices
    assert (device.uuid, device.index, device.name) == (uuid, "0", "NVIDIA H100 80GB HBM3")
    assert (device.memory_bytes, device.pci_address) == (80 * GIB, "00000000:01:00.0")
    assert (device.compute_capability, device.parent_uuid) == ((9, 0), None)
    assert device.leasable
    assert not device.simulated
    assert not inventory.problems
    assert (inventory.driver_version, inventory.cuda_version) == ("570.86.15", "12.8")


def test_gpus_come_in_nvmls_order(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    uuids = [stand_in.add_gpu() for _ in range(3)]
    assert [(d.index, d.uuid) for d in backend.inventory().devices] == [(str(i), u) for i, u in enumerate(uuids)]
    assert list(backend.usage()) == uuids


def test_usage_has_every_figure_and_no_reason_for_a_missing_one(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    uuid = stand_in.add_gpu(
        utilization=37, memory_utilization=12, temperature=61, power_watts=251.5, power_limit_watts=400
    )
    stand_in.add_process(uuid, 11, 2 * GIB, utilization=40)
    usage = backend.usage()[uuid]
    assert (usage.utilization_percent, usage.memory_utilization_percent) == (37.0, 12.0)
    assert (usage.temperature_celsius, usage.power_watts, usage.power_limit_watts) == (61.0, 251.5, 400.0)
    assert usage.processes == (DeviceProcess(11, 2 * GIB, 40.0),)
    assert usage.reasons == {}
    assert not usage.lost


def test_used_free_and_reserved_memory_make_up_the_whole(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    uuid = stand_in.add_gpu(memory_bytes=40 * GIB, reserved_bytes=GIB // 2, used_bytes=3 * GIB)
    usage = backend.usage()[uuid]
    assert usage.memory_used_bytes == 3 * GIB
    assert usage.memory_reserved_bytes == GIB // 2
    assert usage.memory_free_bytes == 40 * GIB - GIB // 2 - 3 * GIB
    assert backend.inventory().devices[0].memory_bytes == 40 * GIB - GIB // 2


def test_a_uuid_that_is_not_there_is_left_out(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    uuids = [stand_in.add_gpu(), stand_in.add_gpu()]
    assert list(backend.usage([uuids[1], "GPU-unknown"])) == [uuids[1]]
    assert backend.usage([]) == {}


def test_nothing_is_loaded_before_the_first_question(tmp_path: Path, run_python: Callable[..., object]) -> None:
    program = """
import sys, json
from jupyter_gpu.devices.nvml import NVMLBackend
backend = NVMLBackend()
before = "pynvml" in sys.modules
backend.inventory()
print(json.dumps([before, "pynvml" in sys.modules]))
"""
    stand_in = NVMLStandIn(tmp_path / "state")
    assert run_python(program, stand_in.environment()) == [False, True]


def test_a_process_in_several_lists_is_one_process(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    uuid = stand_in.add_gpu()
    stand_in.add_process(uuid, 11, 2 * GIB)
    stand_in.add_process(uuid, 11, 2 * GIB, kind="graphics")
    stand_in.add_process(uuid, 12, None)
    stand_in.add_process(uuid, 12, GIB, kind="graphics")
    stand_in.add_process(uuid, 13, GIB, kind="graphics")
    processes = backend.usage()[uuid].processes
    assert processes is not None
    assert {p.pid: p.memory_bytes for p in processes} == {11: 2 * GIB, 12: GIB, 13: GIB}


def test_pids_that_no_process_has_are_dropped(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    uuid = stand_in.add_gpu()
    for pid in (0, 4294967295, 77):
        stand_in.add_process(uuid, pid, GIB, utilization=5)
    processes = backend.usage()[uuid].processes
    assert processes is not None
    assert [p.pid for p in processes] == [77]


def test_memory_that_the_driver_does_not_tell_is_none_with_a_reason(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    uuid = stand_in.add_gpu()
    stand_in.add_process(uuid, 11, None)
    usage = backend.usage()[uuid]
    assert usage.processes is not None
    assert usage.processes[0].memory_bytes is None
    assert "memory of some processes" in usage.reasons["processes.memory_bytes"]


def test_a_process_without_a_recent_sample_did_nothing(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    uuid = stand_in.add_gpu()
    stand_in.add_process(uuid, 11, GIB, utilization=55)
    stand_in.add_process(uuid, 12, GIB, utilization=80, age_s=60)
    stand_in.add_process(uuid, 13, GIB, utilization=4294967295)
    processes = backend.usage()[uuid].processes
    assert processes is not None
    assert {p.pid: p.utilization_percent for p in processes} == {11: 55.0, 12: 0.0, 13: 0.0}
    stand_in.remove_process(uuid, 11)
    stand_in.remove_process(uuid, 13)
    assert [p.utilization_percent for p in backend.usage()[uuid].processes or ()] == [0.0]


def test_more_processes_than_fit_at_first_are_all_there(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    uuid = stand_in.add_gpu()
    stand_in.set(uuid, processes=[StandInProcess(pid, pid, "compute", 1, 0.0) for pid in range(1, 700)])
    processes = backend.usage()[uuid].processes
    assert processes is not None
    assert {p.pid: p.memory_bytes for p in processes} == {pid: pid for pid in range(1, 700)}
    assert {p.utilization_percent for p in processes} == {1.0}


@pytest.mark.parametrize("code", [NOT_SUPPORTED, FUNCTION_NOT_FOUND])
@pytest.mark.parametrize(
    ("function", "fields"),
    [
        ("nvmlDeviceGetUtilizationRates", {"utilization_percent", "memory_utilization_percent"}),
        ("nvmlDeviceGetPowerUsage", {"power_watts"}),
        ("nvmlDeviceGetEnforcedPowerLimit", {"power_limit_watts"}),
        ("nvmlDeviceGetComputeRunningProcesses_v3", {"processes"}),
        ("nvmlDeviceGetProcessUtilization", {"processes.utilization_percent"}),
    ],
)
def test_what_is_unsupported_is_none_with_a_reason_and_is_asked_once(
    stand_in: NVMLStandIn, backend: NVMLBackend, function: str, fields: set[str], code: int
) -> None:
    uuid, other = stand_in.add_gpu(), stand_in.add_gpu()
    for gpu in (uuid, other):
        stand_in.add_process(gpu, 11)
    stand_in.fail(function, code, uuid)
    backend.inventory()
    stand_in.log_calls()
    for _ in range(3):
        usage = backend.usage()
        assert set(usage[uuid].reasons) == fields
        assert all(getattr(usage[uuid], field) is None for field in fields if "." not in field)
        assert usage[uuid].memory_used_bytes == GIB
        assert usage[other].reasons == {}
    assert stand_in.calls()[function, uuid] == 1
    assert stand_in.calls()[function, other] == (1 if "PowerLimit" in function else 3)


def test_what_was_unsupported_is_asked_again_of_a_driver_initialised_anew(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    uuid = stand_in.add_gpu(power_watts=100)
    stand_in.fail("nvmlDeviceGetPowerUsage", NOT_SUPPORTED)
    assert backend.usage()[uuid].power_watts is None
    stand_in.succeed("nvmlDeviceGetPowerUsage")
    assert backend.usage()[uuid].power_watts is None
    backend.close()
    assert backend.usage()[uuid].power_watts == 100.0


@pytest.mark.parametrize("function", FIGURES)
@pytest.mark.parametrize("code", [NO_PERMISSION, UNKNOWN])
def test_a_figure_that_fails_for_now_costs_only_itself_and_is_asked_again(
    stand_in: NVMLStandIn, backend: NVMLBackend, function: str, code: int
) -> None:
    uuid = stand_in.add_gpu()
    stand_in.add_process(uuid, 11)
    stand_in.add_process(uuid, 12, kind="graphics")
    complete = backend.usage()[uuid]
    stand_in.fail(function, code)
    partial = backend.usage()[uuid]
    assert not partial.lost
    assert partial.reasons
    for name in complete.__dataclass_fields__:
        if name not in partial.reasons and name != "reasons":
            assert getattr(partial, name) == getattr(complete, name), name
    stand_in.succeed(function)
    assert backend.usage()[uuid] == complete


def test_a_gpu_that_cannot_draw_still_has_the_processes_that_compute(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    uuid = stand_in.add_gpu()
    stand_in.add_process(uuid, 11)
    stand_in.fail("nvmlDeviceGetGraphicsRunningProcesses_v3", NOT_SUPPORTED)
    stand_in.log_calls()
    for _ in range(2):
        usage = backend.usage()[uuid]
        assert [p.pid for p in usage.processes or ()] == [11]
        assert usage.reasons == {}
    assert stand_in.calls()["nvmlDeviceGetGraphicsRunningProcesses_v3", uuid] == 1


def test_a_gpu_that_shares_the_hosts_memory_has_no_figure_and_says_why(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    uuid = stand_in.add_gpu(name="NVIDIA GB10")
    stand_in.fail("nvmlDeviceGetMemoryInfo", NOT_SUPPORTED)
    stand_in.fail("nvmlDeviceGetMemoryInfo_v2", NOT_SUPPORTED)
    (device,) = backend.inventory().devices
    assert device.memory_bytes is None
    usage = backend.usage()[uuid]
    assert (usage.memory_used_bytes, usage.memory_free_bytes, usage.memory_reserved_bytes) == (None, None, None)
    assert "share the host's memory" in usage.reasons["memory_used_bytes"]
    assert usage.temperature_celsius == 35.0


def test_where_reserved_memory_is_not_told_apart_it_counts_as_used(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    uuid = stand_in.add_gpu(reserved_bytes=GIB, used_bytes=3 * GIB)
    stand_in.fail("nvmlDeviceGetMemoryInfo_v2", FUNCTION_NOT_FOUND)
    usage = backend.usage()[uuid]
    assert (usage.memory_used_bytes, usage.memory_free_bytes) == (4 * GIB, 36 * GIB)
    assert usage.memory_reserved_bytes is None
    assert set(usage.reasons) == {"memory_reserved_bytes"}


@pytest.mark.skipif(not hasattr(pynvml, "nvmlDeviceGetTemperatureV"), reason="this pynvml knows only the old way")
def test_the_temperature_is_asked_the_new_way_where_the_old_one_is_gone(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    uuid = stand_in.add_gpu(temperature=66)
    stand_in.fail("nvmlDeviceGetTemperature", FUNCTION_NOT_FOUND)
    stand_in.log_calls()
    assert [backend.usage()[uuid].temperature_celsius for _ in range(2)] == [66.0, 66.0]
    assert stand_in.calls()["nvmlDeviceGetTemperature", uuid] == 1


def test_memory_that_could_not_be_read_at_first_is_found_later(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    stand_in.add_gpu()
    stand_in.fail("nvmlDeviceGetMemoryInfo_v2", INVALID_ARGUMENT)
    assert backend.inventory().devices[0].memory_bytes is None
    stand_in.succeed("nvmlDeviceGetMemoryInfo_v2")
    clock.advance(backend.inventory_interval_s)
    assert backend.inventory().devices[0].memory_bytes == 40 * GIB


def test_a_sample_makes_each_call_once_per_gpu_and_never_measures_pcie(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    uuids = [stand_in.add_gpu() for _ in range(8)]
    for number, uuid in enumerate(uuids):
        stand_in.add_process(uuid, 1000 + number)
        stand_in.add_process(uuid, 2000 + number, kind="graphics")
    backend.usage()
    stand_in.log_calls()
    for _ in range(5):
        backend.usage()
    expected = {(function, uuid): 5 for function in (*FIGURES, "nvmlDeviceGetProcessUtilization") for uuid in uuids}
    assert stand_in.calls() == expected


def test_an_idle_gpu_is_not_asked_for_the_utilisation_of_processes(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    uuid = stand_in.add_gpu()
    stand_in.log_calls()
    assert backend.usage()[uuid].processes == ()
    assert stand_in.calls()["nvmlDeviceGetProcessUtilization", uuid] == 0


def test_the_list_of_gpus_is_looked_at_again_only_after_its_interval(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    stand_in.add_gpu()
    backend.inventory()
    stand_in.log_calls()
    backend.inventory()
    assert not stand_in.calls()
    clock.advance(backend.inventory_interval_s)
    backend.inventory()
    assert sum(stand_in.calls().values()) == 2  # how many, and the handle of the one


def test_the_power_limit_is_asked_now_and_then(stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock) -> None:
    uuid = stand_in.add_gpu(power_limit_watts=400)
    assert backend.usage()[uuid].power_limit_watts == 400.0
    stand_in.set(uuid, power_limit_watts=300)
    clock.advance(60)
    assert backend.usage()[uuid].power_limit_watts == 300.0


def test_processes_that_draw_are_asked_for_now_and_then_while_there_are_none(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    uuid = stand_in.add_gpu()
    stand_in.add_process(uuid, 11)
    stand_in.log_calls()
    for _ in range(3):
        assert [p.pid for p in backend.usage()[uuid].processes or ()] == [11]
    function = "nvmlDeviceGetGraphicsRunningProcesses_v3"
    assert stand_in.calls()[function, uuid] == 1
    stand_in.add_process(uuid, 12, kind="graphics")
    clock.advance(10)
    for _ in range(3):
        assert [p.pid for p in backend.usage()[uuid].processes or ()] == [11, 12]
    assert stand_in.calls()[function, uuid] == 4


def test_options_decide_which_processes_are_asked_for(stand_in: NVMLStandIn) -> None:
    uuid = stand_in.add_gpu()
    stand_in.add_process(uuid, 11, utilization=3)
    stand_in.add_process(uuid, 12, kind="graphics")
    stand_in.add_process(uuid, 13, kind="mps")

    def pids(**options: bool) -> dict[int, float | None]:
        backend = NVMLBackend(**{"mps_processes": False, **options})
        usage = backend.usage()[uuid]
        backend.close()
        return {p.pid: p.utilization_percent for p in usage.processes or ()}

    assert pids() == {11: 3.0, 12: 0.0}
    assert pids(graphics_processes=False) == {11: 3.0}
    assert pids(mps_processes=True) == {11: 3.0, 12: 0.0, 13: 0.0}
    assert pids(process_utilization=False) == {11: None, 12: None}


def test_clients_of_the_multi_process_service_are_asked_for_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path / "pipe"))
    assert not NVMLBackend().mps_processes
    (tmp_path / "pipe").mkdir()
    assert NVMLBackend().mps_processes


@pytest.mark.parametrize("series", [440, 470, 535])
def test_older_drivers_are_understood(tmp_path: Path, run_python: Callable[..., object], series: int) -> None:
    stand_in = NVMLStandIn(tmp_path / "state", series=series)
    uuid = stand_in.add_gpu(reserved_bytes=GIB, used_bytes=2 * GIB)
    for pid in (21, 22, 23):
        stand_in.add_process(uuid, pid, pid * GIB // 64, utilization=pid)
    program = """
import dataclasses, json
from jupyter_gpu.devices.nvml import NVMLBackend
backend = NVMLBackend()
inventory = backend.inventory()
(usage,) = backend.usage().values()
print(json.dumps([[d.name for d in inventory.devices], [p.code for p in inventory.problems], usage.memory_used_bytes,
    usage.memory_reserved_bytes, [[p.pid, p.memory_bytes, p.utilization_percent] for p in usage.processes]]))
"""
    names, problems, used, reserved, processes = run_python(program, stand_in.environment())  # type: ignore[misc]
    assert (names, problems) == (["NVIDIA A100-SXM4-40GB"], [])
    assert (used, reserved) == ((2 * GIB, GIB) if series >= 510 else (3 * GIB, None))
    assert processes == [[pid, pid * GIB // 64, float(pid)] for pid in (21, 22, 23)]
