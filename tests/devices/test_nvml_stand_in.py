"""The stand-in NVML is taken for the real one by the real pynvml, and does as its state file says."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pynvml
import pytest
from nvml_stand_in import (
    DRIVER_NOT_LOADED,
    GIB,
    GPU_IS_LOST,
    INVALID_ARGUMENT,
    NO_PERMISSION,
    NOT_FOUND,
    NOT_SUPPORTED,
    SOURCE,
    UNINITIALIZED,
    NVMLStandIn,
    build,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def nvml(stand_in: NVMLStandIn) -> Iterator[None]:
    pynvml.nvmlInit()
    yield
    stand_in.repair_driver()
    try:
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        assert error.value == UNINITIALIZED  # noqa: PT017 - the test itself shut it down


def code_of(call: Callable[..., object], *arguments: object) -> int:
    with pytest.raises(pynvml.NVMLError) as caught:
        call(*arguments)
    return int(caught.value.value)


LAYOUTS = {
    "nvmlMemory_t": pynvml.c_nvmlMemory_t,
    "nvmlMemory_v2_t": pynvml.c_nvmlMemory_v2_t,
    "nvmlBAR1Memory_t": pynvml.c_nvmlBAR1Memory_t,
    "nvmlConfComputeMemSizeInfo_t": pynvml.c_nvmlConfComputeMemSizeInfo_t,
    "nvmlUtilization_t": pynvml.c_nvmlUtilization_t,
    "nvmlPciInfo_t": pynvml.nvmlPciInfo_t,
    "nvmlTemperature_t": pynvml.c_nvmlTemperature_v1_t,
    "nvmlDeviceAttributes_t": pynvml.c_nvmlDeviceAttributes,
    "nvmlProcessInfo_v2_t": pynvml.c_nvmlProcessInfo_v2_t,
    "nvmlProcessDetail_t": pynvml.c_nvmlProcessDetail_v1_t,
    "nvmlProcessDetailList_t": pynvml.c_nvmlProcessDetailList_v1_t,
    "nvmlProcessUtilizationSample_t": pynvml.c_nvmlProcessUtilizationSample_t,
    "nvmlProcessUtilizationInfo_t": pynvml.c_nvmlProcessUtilizationInfo_v1_t,
    "nvmlProcessesUtilizationInfo_t": pynvml.c_nvmlProcessesUtilizationInfo_v1_t,
    "nvmlFieldValue_t": pynvml.c_nvmlFieldValue_t,
}


def test_every_structure_has_the_size_that_pynvml_expects(tmp_path: Path) -> None:
    source = tmp_path / "layouts.c"
    checks = [f'_Static_assert(sizeof({name}) == {ctypes.sizeof(type_)}, "{name}");' for name, type_ in LAYOUTS.items()]
    source.write_text("\n".join(['#include "abi.h"', *checks]))
    compiler = [os.environ.get("CC", "cc"), "-std=c11", "-fsyntax-only", "-I", str(SOURCE), str(source)]
    done = subprocess.run(compiler, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_new_process_loads_it_by_the_drivers_soname(tmp_path: Path, run_python: Callable[..., object]) -> None:
    stand_in = NVMLStandIn(tmp_path / "state")
    stand_in.add_gpu(name="NVIDIA H100 80GB HBM3")
    program = (
        "import json, pynvml; pynvml.nvmlInit();"
        "print(json.dumps(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))))"
    )
    assert run_python(program, stand_in.environment()) == "NVIDIA H100 80GB HBM3"


def test_it_shows_each_figure_of_a_gpu(stand_in: NVMLStandIn, nvml: None) -> None:
    uuid = stand_in.add_gpu(
        reserved_bytes=GIB,
        used_bytes=3 * GIB,
        utilization=37,
        memory_utilization=12,
        temperature=61,
        power_watts=251.5,
        power_limit_watts=400,
        capability=(9, 0),
        pci="00000000:3B:00.0",
    )
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
    assert (memory.total, memory.reserved, memory.used, memory.free) == (40 * GIB, GIB, 3 * GIB, 36 * GIB)
    assert pynvml.nvmlDeviceGetMemoryInfo(handle).used == 4 * GIB
    assert pynvml.nvmlDeviceGetUtilizationRates(handle).gpu == 37
    assert pynvml.nvmlDeviceGetUtilizationRates(handle).memory == 12
    assert pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU) == 61
    assert pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU) == 61
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 251500
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) == 400000
    assert pynvml.nvmlDeviceGetCudaComputeCapability(handle) == (9, 0)
    assert str(pynvml.nvmlDeviceGetPciInfo(handle).bus) == "59"
    assert pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByPciBusId("00000000:3b:00.0")) == 0
    assert pynvml.nvmlSystemGetDriverVersion() == stand_in.driver_version
    assert pynvml.nvmlSystemGetCudaDriverVersion() == 12080


def test_it_lists_processes_by_kind_and_those_with_utilisation_since_a_time(stand_in: NVMLStandIn, nvml: None) -> None:
    uuid = stand_in.add_gpu()
    stand_in.add_process(uuid, 11, 2 * GIB, utilization=40)
    stand_in.add_process(uuid, 12, None, utilization=0)
    stand_in.add_process(uuid, 13, GIB, utilization=9, age_s=30)
    stand_in.add_process(uuid, 14, GIB, kind="graphics")
    stand_in.add_process(uuid, 15, GIB, kind="mps")
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    listed = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    assert [(p.pid, p.usedGpuMemory) for p in listed] == [(11, 2 * GIB), (12, None), (13, GIB)]
    assert [p.pid for p in pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle)] == [14]
    assert [p.pid for p in pynvml.nvmlDeviceGetMPSComputeRunningProcesses(handle)] == [15]
    assert [(s.pid, s.smUtil) for s in pynvml.nvmlDeviceGetProcessUtilization(handle, 0)] == [(11, 40), (13, 9)]
    recently = int((time.time() - 5) * 1e6)
    assert [s.pid for s in pynvml.nvmlDeviceGetProcessUtilization(handle, recently)] == [11]
    stand_in.remove_process(uuid, 11)
    assert code_of(pynvml.nvmlDeviceGetProcessUtilization, handle, recently) == NOT_FOUND


def test_it_divides_a_gpu_into_instances(stand_in: NVMLStandIn, nvml: None) -> None:
    uuid = stand_in.add_gpu()
    mig = stand_in.add_instance(uuid, "2g.10gb", 10 * GIB, slot=3)
    stand_in.add_process(mig, 21, GIB)
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetMigMode(gpu) == [1, 1]
    assert code_of(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, 0) == NOT_FOUND
    handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 3)
    assert pynvml.nvmlDeviceGetUUID(handle) == mig
    assert pynvml.nvmlDeviceGetMemoryInfo(handle).total == 10 * GIB
    assert pynvml.nvmlDeviceIsMigDeviceHandle(handle)
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)) == uuid
    assert code_of(pynvml.nvmlDeviceGetUtilizationRates, handle) == NOT_SUPPORTED
    (process,) = pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)
    assert process.gpuInstanceId == pynvml.nvmlDeviceGetGpuInstanceId(handle)
    stand_in.remove(mig)
    assert code_of(pynvml.nvmlDeviceGetMemoryInfo, handle) == INVALID_ARGUMENT


def test_changes_show_at_once_however_quickly_they_follow(stand_in: NVMLStandIn, nvml: None) -> None:
    uuid = stand_in.add_gpu()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    for value in range(10, 90):
        stand_in.set(uuid, utilization=99)
        stand_in.set(uuid, utilization=value)
        assert pynvml.nvmlDeviceGetUtilizationRates(handle).gpu == value


def test_a_function_fails_as_set_for_one_device_or_for_all(stand_in: NVMLStandIn, nvml: None) -> None:
    first, _ = stand_in.add_gpu(), stand_in.add_gpu()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(2)]
    stand_in.fail("nvmlDeviceGetPowerUsage", NOT_SUPPORTED, first)
    assert code_of(pynvml.nvmlDeviceGetPowerUsage, handles[0]) == NOT_SUPPORTED
    assert pynvml.nvmlDeviceGetPowerUsage(handles[1]) == 60000
    stand_in.succeed("nvmlDeviceGetPowerUsage", first)
    assert pynvml.nvmlDeviceGetPowerUsage(handles[0]) == 60000
    stand_in.fail("nvmlDeviceGetPowerUsage", NO_PERMISSION)
    assert [code_of(pynvml.nvmlDeviceGetPowerUsage, handle) for handle in handles] == [NO_PERMISSION] * 2


def test_a_lost_gpu_answers_nothing_and_if_so_set_stays_lost_until_a_new_initialisation(
    stand_in: NVMLStandIn, nvml: None
) -> None:
    uuid = stand_in.add_gpu()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    stand_in.lose(uuid)
    assert code_of(pynvml.nvmlDeviceGetTemperature, handle, 0) == GPU_IS_LOST
    stand_in.found(uuid)
    assert pynvml.nvmlDeviceGetTemperature(handle, 0) == 35
    stand_in.lose(uuid, until_init=True)
    assert code_of(pynvml.nvmlDeviceGetTemperature, handle, 0) == GPU_IS_LOST
    stand_in.found(uuid)
    assert code_of(pynvml.nvmlDeviceGetTemperature, handle, 0) == GPU_IS_LOST
    pynvml.nvmlShutdown()
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetTemperature(pynvml.nvmlDeviceGetHandleByIndex(0), 0) == 35


def test_handles_end_with_the_initialisation_that_gave_them(stand_in: NVMLStandIn, nvml: None) -> None:
    stand_in.add_gpu()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    pynvml.nvmlShutdown()
    assert code_of(pynvml.nvmlDeviceGetTemperature, handle, 0) == UNINITIALIZED
    pynvml.nvmlInit()
    assert code_of(pynvml.nvmlDeviceGetTemperature, handle, 0) == INVALID_ARGUMENT


def test_a_broken_driver_refuses_everything(stand_in: NVMLStandIn, nvml: None) -> None:
    stand_in.break_driver(DRIVER_NOT_LOADED)
    assert code_of(pynvml.nvmlInit) == DRIVER_NOT_LOADED
    assert code_of(pynvml.nvmlDeviceGetCount) == DRIVER_NOT_LOADED
    stand_in.repair_driver()
    assert pynvml.nvmlDeviceGetCount() == 0


@pytest.mark.parametrize("spin", [False, True])
def test_calls_take_as_long_as_set_and_pcie_throughput_takes_its_twenty_milliseconds(
    stand_in: NVMLStandIn, nvml: None, spin: bool
) -> None:
    stand_in.add_gpu()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def seconds(call: Callable[..., object], *arguments: object) -> float:
        start = time.perf_counter()
        call(*arguments)
        return time.perf_counter() - start

    stand_in.set_latency(2000, spin=spin)
    assert seconds(pynvml.nvmlDeviceGetTemperature, handle, 0) >= 0.002
    assert seconds(pynvml.nvmlDeviceGetPcieThroughput, handle, 0) >= 0.020
    stand_in.set_latency(4000, "nvmlDeviceGetTemperature")
    assert seconds(pynvml.nvmlDeviceGetTemperature, handle, 0) >= 0.004


def test_it_notes_the_calls_made(stand_in: NVMLStandIn, nvml: None) -> None:
    uuid = stand_in.add_gpu()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    stand_in.log_calls()
    pynvml.nvmlDeviceGetPowerUsage(handle)
    pynvml.nvmlDeviceGetPowerUsage(handle)
    pynvml.nvmlDeviceGetCount()
    assert stand_in.calls() == {("nvmlDeviceGetPowerUsage", uuid): 2, ("nvmlDeviceGetCount_v2", "-"): 1}


def test_threads_read_whole_states_while_they_change(stand_in: NVMLStandIn, nvml: None) -> None:
    uuid = stand_in.add_gpu()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    stand_in.set(uuid, utilization=10, memory_utilization=10)
    seen: list[tuple[int, int]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
            seen.append((rates.gpu, rates.memory))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for value in range(11, 60):
        stand_in.set(uuid, utilization=value, memory_utilization=value)
    done.set()
    for reader in readers:
        reader.join()
    assert seen
    assert all(gpu == memory for gpu, memory in seen)


@pytest.mark.parametrize(
    ("series", "there", "missing"),
    [
        (440, "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetMigMode"),
        (470, "nvmlDeviceGetComputeRunningProcesses_v2", "nvmlDeviceGetMemoryInfo_v2"),
        (535, "nvmlDeviceGetConfComputeMemSizeInfo", "nvmlDeviceGetRunningProcessDetailList"),
    ],
)
def test_older_series_lack_what_those_drivers_lacked(series: int, there: str, missing: str) -> None:
    listed = subprocess.run(["nm", "-D", "--defined-only", build(series)], capture_output=True, text=True, check=True)
    symbols = {line.split()[-1] for line in listed.stdout.splitlines()}
    assert there in symbols
    assert missing not in symbols
