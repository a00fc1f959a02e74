"""What goes wrong with drivers and GPUs is reported, survived, and tried again."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import pynvml
import pytest
from nvml_stand_in import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    INVALID_ARGUMENT,
    NO_PERMISSION,
    RESET_REQUIRED,
    UNKNOWN,
    VERSION_MISMATCH,
    NVMLStandIn,
    build,
)

from jupyter_gpu.leases.survey import look

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Clock

    from jupyter_gpu.devices.device import Inventory
    from jupyter_gpu.devices.nvml import NVMLBackend


def codes(inventory: Inventory) -> list[str]:
    return [problem.code for problem in inventory.problems]


def is_one_sentence(text: str) -> bool:
    return text[0].isupper() and text.endswith(".") and text.count(". ") == 0


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (DRIVER_NOT_LOADED, "driver-not-loaded"),
        (VERSION_MISMATCH, "driver-mismatch"),
        (NO_PERMISSION, "no-permission"),
        (17, "no-permission"),
        (13, "driver-too-old"),
        (UNKNOWN, "driver-failed"),
        (12345, "driver-failed"),
    ],
)
def test_a_driver_that_does_not_start_is_a_problem_with_advice_and_works_once_it_does(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock, code: int, name: str
) -> None:
    uuid = stand_in.add_gpu()
    stand_in.break_driver(code)
    inventory = backend.inventory()
    assert inventory.devices == ()
    assert codes(inventory) == [name]
    assert is_one_sentence(inventory.problems[0].message)
    assert is_one_sentence(inventory.problems[0].advice)
    assert backend.usage() == {}
    stand_in.repair_driver()
    clock.advance(backend.retry_interval_s)
    assert [device.uuid for device in backend.inventory().devices] == [uuid]
    assert backend.inventory().problems == ()


def test_a_driver_that_does_not_start_is_not_tried_with_every_question(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    stand_in.break_driver()
    stand_in.log_calls()
    for _ in range(5):
        backend.inventory()
        backend.usage()
    assert stand_in.calls()["nvmlInitWithFlags", "-"] == 1
    clock.advance(backend.retry_interval_s)
    backend.usage()
    assert stand_in.calls()["nvmlInitWithFlags", "-"] == 2


def test_a_driver_that_starts_but_does_not_answer_is_not_started_with_every_question(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    uuid = stand_in.add_gpu()
    backend.usage()
    stand_in.fail("nvmlDeviceGetMemoryInfo_v2", DRIVER_NOT_LOADED)
    stand_in.log_calls()
    for _ in range(5):
        assert backend.usage([uuid])[uuid].memory_used_bytes is None
    assert stand_in.calls()["nvmlInitWithFlags", "-"] <= 2


def test_closing_lets_go_of_the_driver_and_the_next_question_takes_it_up_without_waiting(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    uuid = stand_in.add_gpu()
    backend.inventory()
    backend.close()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()
    assert list(backend.usage()) == [uuid]
    stand_in.break_driver()
    backend.close()
    assert codes(backend.inventory()) == ["driver-not-loaded"]
    stand_in.repair_driver()
    backend.close()
    assert codes(backend.inventory()) == []


def test_a_driver_that_goes_away_leaves_named_devices_without_figures_and_comes_back(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    uuid = stand_in.add_gpu()
    complete = backend.usage()
    stand_in.break_driver()
    usage = backend.usage([uuid, "GPU-unknown"])
    assert list(usage) == [uuid]
    assert usage[uuid].memory_used_bytes is None
    assert "kernel module is not loaded" in usage[uuid].reasons["memory_used_bytes"]
    assert not usage[uuid].lost
    assert backend.usage() == {}
    assert codes(backend.inventory()) == ["driver-not-loaded"]
    stand_in.repair_driver()
    clock.advance(backend.retry_interval_s)
    assert backend.usage() == complete
    assert codes(backend.inventory()) == []


def test_a_shutdown_by_somebody_else_in_the_process_goes_unnoticed(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    uuid = stand_in.add_gpu(utilization=12)
    backend.usage()
    pynvml.nvmlShutdown()
    assert backend.usage()[uuid].utilization_percent == 12.0
    pynvml.nvmlShutdown()
    clock.advance(backend.inventory_interval_s)
    assert codes(backend.inventory()) == []


def test_handles_that_somebody_elses_restart_made_invalid_are_replaced(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    uuid = stand_in.add_gpu(utilization=12)
    backend.usage()
    pynvml.nvmlShutdown()
    pynvml.nvmlInit()
    assert backend.usage()[uuid].utilization_percent == 12.0


def test_a_gpu_that_the_driver_disowns_does_not_hide_the_others_nor_cost_a_new_look_every_time(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    bad, good = stand_in.add_gpu(), stand_in.add_gpu(utilization=5)
    backend.usage()
    stand_in.fail("nvmlDeviceGetMemoryInfo_v2", INVALID_ARGUMENT, bad)
    stand_in.log_calls()
    for _ in range(5):
        usage = backend.usage()
        assert usage[good].utilization_percent == 5.0
        assert "does not answer" in usage[bad].reasons["memory_used_bytes"]
    assert stand_in.calls()["nvmlDeviceGetCount_v2", "-"] == 1
    for _ in range(10):
        clock.advance(backend.inventory_interval_s / 2)
        backend.usage()
    assert stand_in.calls()["nvmlDeviceGetCount_v2", "-"] >= 5


@pytest.mark.parametrize("code", [GPU_IS_LOST, RESET_REQUIRED])
def test_a_lost_gpu_stays_listed_is_reported_and_does_not_disturb_the_others(
    stand_in: NVMLStandIn, backend: NVMLBackend, code: int
) -> None:
    bad, good = stand_in.add_gpu(), stand_in.add_gpu(utilization=5)
    backend.usage()
    stand_in.fail("*", code, bad)
    usage = backend.usage()
    assert usage[bad].lost
    assert usage[bad].memory_used_bytes is None
    assert usage[bad].reasons.keys() >= {"memory_used_bytes", "utilization_percent", "processes"}
    assert usage[good].utilization_percent == 5.0
    inventory = backend.inventory()
    assert [device.uuid for device in inventory.devices] == [bad, good]
    assert codes(inventory) == ["device-lost" if code == GPU_IS_LOST else "device-reset-required"]
    assert bad in inventory.problems[0].message
    assert is_one_sentence(inventory.problems[0].advice)


def test_a_look_that_finds_a_gpu_lost_or_back_says_so_itself(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    bad = stand_in.add_gpu()
    stand_in.add_gpu()
    assert codes(look(backend).inventory) == []
    stand_in.lose(bad)
    lost = look(backend)
    assert (lost.usage[bad].lost, codes(lost.inventory)) == (True, ["device-lost"])
    stand_in.found(bad)
    clock.advance(backend.inventory_interval_s)
    found = look(backend)
    assert (found.usage[bad].lost, codes(found.inventory)) == (False, [])


def test_a_lost_gpu_is_asked_no_more_than_once_per_sample(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    uuid = stand_in.add_gpu()
    backend.usage()
    stand_in.lose(uuid)
    for _ in range(3):
        backend.usage()
    stand_in.log_calls()
    backend.usage()
    assert sum(stand_in.calls().values()) <= 1


def test_a_lost_gpu_that_answers_again_is_back_at_the_next_look(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    uuid = stand_in.add_gpu()
    complete = backend.usage()
    stand_in.lose(uuid)
    assert backend.usage()[uuid].lost
    assert codes(backend.inventory()) == ["device-lost"]
    stand_in.found(uuid)
    clock.advance(backend.inventory_interval_s)
    assert backend.usage() == complete
    assert codes(backend.inventory()) == []


def test_a_lost_gpu_that_needs_a_new_initialisation_gets_it_at_growing_intervals(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    uuid = stand_in.add_gpu()
    complete = backend.usage()
    stand_in.lose(uuid, until_init=True)
    backend.usage()
    stand_in.log_calls()
    for _ in range(100):
        assert backend.usage()[uuid].lost
        clock.advance(backend.retry_interval_s)
    assert 3 < stand_in.calls()["nvmlInitWithFlags", "-"] < 12
    stand_in.found(uuid)
    clock.advance(backend.retry_interval_s * 32)
    assert backend.usage() == complete
    assert codes(backend.inventory()) == []


def test_what_happens_while_a_lost_gpu_is_waited_for_is_noticed_at_once(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    first, second = stand_in.add_gpu(), stand_in.add_gpu(utilization=7)
    backend.usage()
    stand_in.lose(first, until_init=True)
    for _ in range(40):
        backend.usage()
        clock.advance(backend.retry_interval_s)
    backend.usage()
    pynvml.nvmlShutdown()
    assert backend.usage()[second].utilization_percent == 7.0
    assert "GPU 0 (" in backend.inventory().problems[0].message
    stand_in.lose(second)
    assert backend.usage()[second].lost
    assert "GPUs 0 (" in backend.inventory().problems[0].message
    stand_in.found(second)
    assert not backend.usage()[second].lost
    assert "GPU 0 (" in backend.inventory().problems[0].message


def test_a_gpu_lost_before_the_first_look_is_reported_by_index_and_found_later(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    bad, good = stand_in.add_gpu(), stand_in.add_gpu()
    stand_in.lose(bad, until_init=True)
    inventory = backend.inventory()
    assert [device.uuid for device in inventory.devices] == [good]
    assert codes(inventory) == ["device-lost"]
    assert inventory.problems[0].message.startswith("GPU 0 is lost")
    stand_in.found(bad)
    clock.advance(backend.retry_interval_s)
    assert [device.uuid for device in backend.inventory().devices] == [bad, good]


def test_a_gpu_that_the_driver_lists_no_more_is_reported_until_it_is_back(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    first, second = stand_in.add_gpu(), stand_in.add_gpu()
    backend.inventory()
    gone = stand_in.gpus.pop(0)
    stand_in.write()
    backend.close()
    for _ in range(5):
        clock.advance(backend.retry_interval_s)
        inventory = backend.inventory()
        assert [(device.uuid, device.index) for device in inventory.devices] == [(second, "0")]
        assert codes(inventory) == ["device-lost"]
        assert f"({first}), which was GPU 0, is not there any more." in inventory.problems[0].message
        assert list(backend.usage()) == [second]
    stand_in.gpus.insert(0, gone)
    stand_in.write()
    clock.advance(backend.retry_interval_s * 32)
    assert [device.uuid for device in backend.inventory().devices] == [first, second]
    assert codes(backend.inventory()) == []


def test_a_gpu_that_is_not_ones_own_is_not_listed_and_said_to_be_there(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    uuids = [stand_in.add_gpu() for _ in range(4)]
    assert len(backend.inventory().devices) == 4
    for uuid in uuids[1:]:
        stand_in.fail("nvmlDeviceGetHandleByIndex_v2", NO_PERMISSION, uuid)
    clock.advance(backend.inventory_interval_s)
    inventory = backend.inventory()
    assert [device.uuid for device in inventory.devices] == uuids[:1]
    assert codes(inventory) == ["no-permission"]
    assert inventory.problems[0].message.startswith("GPUs 1, 2 and 3 are there, but")
    stand_in.succeed("nvmlDeviceGetHandleByIndex_v2", uuids[2])
    clock.advance(backend.inventory_interval_s)
    assert [device.index for device in backend.inventory().devices] == ["0", "2"]


def test_a_host_without_gpus_is_a_problem_until_it_has_one(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    inventory = backend.inventory()
    assert inventory.devices == ()
    assert codes(inventory) == ["no-devices"]
    assert inventory.driver_version == stand_in.driver_version
    stand_in.add_gpu()
    clock.advance(backend.inventory_interval_s)
    assert codes(backend.inventory()) == []


@pytest.mark.parametrize(
    "function", ["nvmlSystemGetDriverVersion", "nvmlDeviceGetName", "nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetMigMode"]
)
def test_a_fact_that_cannot_be_had_does_not_hide_the_gpu(
    stand_in: NVMLStandIn, backend: NVMLBackend, function: str
) -> None:
    uuid = stand_in.add_gpu()
    stand_in.fail(function, UNKNOWN if "Mig" not in function else 3)
    inventory = backend.inventory()
    assert [device.uuid for device in inventory.devices] == [uuid]
    assert backend.usage()[uuid].temperature_celsius == 35.0


def test_problems_are_logged_once_and_so_is_their_end(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    backend.log = logging.getLogger("test-nvml")
    stand_in.add_gpu()
    stand_in.break_driver()
    with caplog.at_level(logging.INFO, "test-nvml"):
        for _ in range(3):
            backend.inventory()
            backend.usage()
            clock.advance(backend.retry_interval_s)
        stand_in.repair_driver()
        for _ in range(3):
            backend.inventory()
            clock.advance(backend.inventory_interval_s)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "kernel module is not loaded" in caplog.records[0].getMessage()


def test_an_answer_that_nobody_expects_is_a_problem_too(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    uuid = stand_in.add_gpu(name="NVIDIA")
    path = stand_in.state_path
    path.write_bytes(path.read_bytes().replace(b"gpu GPU-", b"gpu \xff\xfe-"))
    assert codes(backend.inventory()) == ["driver-failed"]
    assert backend.usage() == {}
    stand_in.write()
    clock.advance(backend.retry_interval_s)
    assert [device.uuid for device in backend.inventory().devices] == [uuid]


PROGRAM_WITHOUT_LIBRARY = """
import json, shutil, sys
from jupyter_gpu.devices.nvml import NVMLBackend
now = [0.0]
backend = NVMLBackend(clock=lambda: now[0])
seen = [[p.code for p in backend.inventory().problems], len(backend.usage())]
shutil.copy(sys.argv[1] if len(sys.argv) > 1 else {library!r}, {folder!r})
now[0] += backend.retry_interval_s
seen.append([d.index for d in backend.inventory().devices])
print(json.dumps(seen))
"""


def test_a_missing_library_is_a_problem_and_is_found_once_it_is_installed(
    tmp_path: Path, run_python: Callable[..., object]
) -> None:
    stand_in = NVMLStandIn(tmp_path / "state")
    stand_in.add_gpu()
    library = build()
    folder = tmp_path / "lib"
    folder.mkdir()
    # A broken library comes first in the search, so that a driver of this host does not help out.
    (folder / library.name).write_bytes(b"")
    program = PROGRAM_WITHOUT_LIBRARY.format(library=str(library), folder=str(folder / library.name))
    environment = {**stand_in.environment(), "LD_LIBRARY_PATH": str(folder)}
    assert run_python(program, environment) == [["driver-missing"], 0, ["0"]]


def test_without_pynvml_there_is_a_problem_and_no_exception(tmp_path: Path, run_python: Callable[..., object]) -> None:
    stand_in = NVMLStandIn(tmp_path / "state")
    program = """
import json, sys
sys.modules["pynvml"] = None
from jupyter_gpu.devices.nvml import NVMLBackend
backend = NVMLBackend()
print(json.dumps([[p.code for p in backend.inventory().problems], backend.usage()]))
"""
    assert run_python(program, stand_in.environment()) == [["pynvml-missing"], {}]


def test_a_library_that_is_no_library_is_a_problem(tmp_path: Path, run_python: Callable[..., object]) -> None:
    folder = tmp_path / "lib"
    folder.mkdir()
    shutil.copy(__file__, folder / build().name)
    program = """
import json
from jupyter_gpu.devices.nvml import NVMLBackend
print(json.dumps([p.code for p in NVMLBackend().inventory().problems]))
"""
    assert run_python(program, {"LD_LIBRARY_PATH": str(folder)}) == ["driver-missing"]
