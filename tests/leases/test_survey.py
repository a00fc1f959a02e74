"""Whose the memory on the devices is: by descent, by environment, by account, or nobody's that we know."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jupyter_gpu.devices.device import Device, DeviceBackend, DeviceProcess, DeviceUsage, Inventory
from jupyter_gpu.devices.processes import ProcessKey, process_key
from jupyter_gpu.leases.survey import SeenProcess, Survey, look, taken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

GIB = 1 << 30
UUID = "GPU-00000000"

FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; print('ready', flush=True); signal.pause()"])
print(child.pid, flush=True)
input()
"""


class ToldBackend(DeviceBackend):
    """A driver that says what it was told to."""

    def __init__(self, devices: Sequence[Device], usage: Sequence[DeviceUsage]) -> None:
        super().__init__()
        self._inventory = Inventory(tuple(devices))
        self._usage = {each.uuid: each for each in usage}

    def inventory(self) -> Inventory:
        return self._inventory

    def usage(self, uuids: Sequence[str] | None = None) -> dict[str, DeviceUsage]:
        return {uuid: each for uuid, each in self._usage.items() if uuids is None or uuid in uuids}


class Family:
    """A process with a child."""

    def __init__(self, **environment: str) -> None:
        self._parent = subprocess.Popen(
            [sys.executable, "-c", FAMILY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        assert self._parent.stdout is not None
        lines = [self._parent.stdout.readline(), self._parent.stdout.readline()]
        self.child = int(next(line for line in lines if b"ready" not in line))
        self.parent = self._parent.pid

    def lose_parent(self) -> None:
        self._parent.kill()
        self._parent.wait()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, 9)  # it has its parent's output open too
        self._parent.kill()
        self._parent.communicate()


@pytest.fixture
def family() -> Iterator[Callable[..., Family]]:
    made: list[Family] = []

    def make(**environment: str) -> Family:
        made.append(Family(**environment))
        return made[-1]

    yield make
    for each in made:
        each.end()


def seen(four: Sequence[Device], *processes: DeviceProcess, used: int | None = None) -> Survey:
    """What is seen with these processes on GPU 0."""
    return look(ToldBackend(four, [DeviceUsage(UUID, memory_used_bytes=used, processes=processes)]))


def key(pid: int) -> ProcessKey:
    found = process_key(pid)
    assert found is not None
    return found


def test_a_descendant_of_a_leases_process_is_its_own(four: tuple[Device, ...], family: Callable[..., Family]) -> None:
    kernel = family()
    survey = seen(four, DeviceProcess(kernel.parent, 3 * GIB), DeviceProcess(kernel.child, GIB))
    (use,) = taken(survey, {"lease": [key(kernel.parent)]}, {}).values()
    assert use.by_lease == {"lease": 4 * GIB}
    assert use.foreign_bytes == 0


def test_the_nearest_ancestor_with_a_lease_counts(four: tuple[Device, ...], family: Callable[..., Family]) -> None:
    outer = family()
    survey = seen(four, DeviceProcess(outer.parent, 3 * GIB), DeviceProcess(outer.child, GIB))
    leases = {"outer": [key(outer.parent)], "inner": [key(outer.child)]}
    assert taken(survey, leases, {})[UUID].by_lease == {"outer": 3 * GIB, "inner": GIB}


def test_a_worker_that_lost_its_parent_is_known_by_its_environment(
    four: tuple[Device, ...], family: Callable[..., Family]
) -> None:
    kernel = family(JUPYTER_GPU_LEASE="lease")
    gone = key(kernel.parent)
    kernel.lose_parent()
    survey = seen(four, DeviceProcess(kernel.child, 2 * GIB))
    assert taken(survey, {"lease": [gone]}, {})[UUID].by_lease == {"lease": 2 * GIB}


def test_a_process_of_a_lease_that_has_ended_is_foreign(
    four: tuple[Device, ...], family: Callable[..., Family]
) -> None:
    process = family(JUPYTER_GPU_LEASE="ended")
    use = taken(seen(four, DeviceProcess(process.child, 2 * GIB)), {"other": []}, {})[UUID]
    assert (use.by_lease, use.foreign_bytes) == ({}, 2 * GIB)


def test_a_process_that_no_lease_covers_is_foreign(four: tuple[Device, ...], family: Callable[..., Family]) -> None:
    kernel, other = family(), family()
    survey = seen(four, DeviceProcess(kernel.child, GIB), DeviceProcess(other.child, 5 * GIB))
    use = taken(survey, {"lease": [key(kernel.parent)]}, {})[UUID]
    assert (use.by_lease, use.foreign_bytes) == ({"lease": GIB}, 5 * GIB)


def test_a_pid_that_went_to_another_process_is_not_the_leases(
    four: tuple[Device, ...], family: Callable[..., Family]
) -> None:
    process = family()
    before = ProcessKey(process.parent, key(process.parent).start_time - 1)
    use = taken(seen(four, DeviceProcess(process.parent, GIB)), {"lease": [before]}, {})[UUID]
    assert (use.by_lease, use.foreign_bytes) == ({}, GIB)


def test_the_devices_own_book_keeping_tells_the_lease(four: tuple[Device, ...]) -> None:
    survey = seen(four, DeviceProcess(1 << 30, GIB, lease_id="lease"))
    assert taken(survey, {"lease": []}, {})[UUID].by_lease == {"lease": GIB}


def test_an_account_counts_where_it_says_more_than_was_seen(
    four: tuple[Device, ...], family: Callable[..., Family]
) -> None:
    kernel = family()
    survey = seen(four, DeviceProcess(kernel.parent, 2 * GIB))
    roots = {"lease": [key(kernel.parent)], "young": []}
    accounted = {"lease": {UUID: GIB}, "young": {UUID: 3 * GIB, "GPU-other": GIB}}
    assert taken(survey, roots, accounted)[UUID].by_lease == {"lease": 2 * GIB, "young": 3 * GIB}


class TestInAContainerWithPidsOfItsOwn:
    """The driver's pids mean nothing here. What accounts say is ours; only the rest is foreign."""

    HIDDEN = (SeenProcess(1 << 30, UUID, 6 * GIB), SeenProcess((1 << 30) + 1, UUID, 2 * GIB))

    def survey(self, four: tuple[Device, ...]) -> Survey:
        listed = tuple(DeviceProcess(process.pid, process.memory_bytes) for process in self.HIDDEN)
        return Survey(Inventory(four), {UUID: DeviceUsage(UUID, 9 * GIB, processes=listed)}, self.HIDDEN)

    def test_nothing_is_known_without_accounts(self, four: tuple[Device, ...]) -> None:
        assert taken(self.survey(four), {"lease": []}, {})[UUID].foreign_bytes == 8 * GIB

    def test_what_our_accounts_say_is_taken_off(self, four: tuple[Device, ...]) -> None:
        use = taken(self.survey(four), {"lease": []}, {"lease": {UUID: 5 * GIB}})[UUID]
        assert (use.by_lease, use.foreign_bytes) == ({"lease": 5 * GIB}, 3 * GIB)

    def test_accounts_that_say_more_leave_nothing_foreign(self, four: tuple[Device, ...]) -> None:
        assert taken(self.survey(four), {"lease": []}, {"lease": {UUID: 30 * GIB}})[UUID].foreign_bytes == 0


def test_where_the_memory_of_processes_is_unknown_all_that_is_used_and_not_ours_is_foreign(
    four: tuple[Device, ...], family: Callable[..., Family]
) -> None:
    kernel, other = family(), family()
    processes = (DeviceProcess(kernel.parent, None), DeviceProcess(other.parent, None))
    survey = seen(four, *processes, used=10 * GIB)
    use = taken(survey, {"lease": [key(kernel.parent)]}, {"lease": {UUID: 4 * GIB}})[UUID]
    assert (use.by_lease, use.foreign_bytes) == ({"lease": 4 * GIB}, 6 * GIB)


def test_where_the_driver_does_not_tell_processes_the_same_holds(four: tuple[Device, ...]) -> None:
    survey = look(ToldBackend(four, [DeviceUsage(UUID, memory_used_bytes=10 * GIB, processes=None)]))
    assert taken(survey, {}, {})[UUID].foreign_bytes == 10 * GIB
    assert taken(survey, {"lease": []}, {"lease": {UUID: 4 * GIB}})[UUID].foreign_bytes == 6 * GIB


def test_an_empty_list_is_not_believed_where_memory_is_in_use(four: tuple[Device, ...]) -> None:
    survey = look(ToldBackend(four, [DeviceUsage(UUID, memory_used_bytes=10 * GIB, processes=())]))
    assert taken(survey, {"lease": []}, {"lease": {UUID: 4 * GIB}})[UUID].foreign_bytes == 6 * GIB
    idle = look(ToldBackend(four, [DeviceUsage(UUID, memory_used_bytes=16 << 20, processes=())]))
    assert taken(idle, {}, {})[UUID].foreign_bytes == 0


def test_what_the_driver_does_not_tell_at_all_is_not_taken_for_used(four: tuple[Device, ...]) -> None:
    survey = look(ToldBackend(four, [DeviceUsage(UUID, processes=None)]))
    assert taken(survey, {}, {})[UUID].foreign_bytes == 0


def test_a_process_on_two_devices_counts_on_each(four: tuple[Device, ...], family: Callable[..., Family]) -> None:
    kernel = family()
    usage = [
        DeviceUsage(device.uuid, processes=(DeviceProcess(kernel.child, (number + 1) * GIB),))
        for number, device in enumerate(four[:2])
    ]
    use = taken(look(ToldBackend(four, usage)), {"lease": [key(kernel.parent)]}, {})
    assert [each.by_lease["lease"] for each in use.values()] == [GIB, 2 * GIB]


def test_only_visible_devices_are_looked_at(four: tuple[Device, ...]) -> None:
    backend = ToldBackend(four, [DeviceUsage(device.uuid, processes=()) for device in four])
    survey = look(backend, lambda inventory: Inventory(inventory.devices[2:3]))
    assert [device.index for device in survey.inventory.devices] == ["2"]
    assert list(survey.usage) == [four[2].uuid]
