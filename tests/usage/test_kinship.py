"""Where processes come from, remembered for as long as they live."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest
from observation import Processes

from jupyter_gpu.devices.processes import ProcessKey, environment_block, process_key
from jupyter_gpu.leases.kinship import UNKNOWN, Descent, Kinship


@pytest.fixture(params=["pidfd", "proc"])
def kinship(request: pytest.FixtureRequest) -> Iterator[Kinship]:
    """One that hears of a process's end from the kernel, and one that has to look."""
    kinship = Kinship() if request.param == "pidfd" else Kinship(most_pidfds=0)
    yield kinship
    kinship.close()


def test_a_lineage_begins_with_the_process_and_goes_up(kinship: Kinship, processes: Processes) -> None:
    me = process_key()
    parent, child = processes.tree("sleep 600 & echo $!; wait")
    assert kinship.of(child.pid).lineage[:3] == (child, parent, me)


def test_a_lineage_stays_as_it_was_first_seen(kinship: Kinship, processes: Processes) -> None:
    parent, child = processes.tree("sleep 600 & echo $!; wait")
    before = kinship.of(child.pid)
    processes.end(parent)
    kinship.refresh()
    assert kinship.of(child.pid) == before


def test_a_process_that_ended_is_nobody(kinship: Kinship, processes: Processes) -> None:
    key = processes.start()
    assert kinship.is_alive(key)
    processes.end(key)
    kinship.refresh()
    assert not kinship.is_alive(key)
    assert kinship.of(key.pid) == UNKNOWN


def test_another_process_with_the_pid_is_not_the_one_before(kinship: Kinship, processes: Processes) -> None:
    key = processes.start()
    assert not kinship.is_alive(ProcessKey(key.pid, key.start_time - 1))
    assert kinship.is_alive(key)


def test_the_lease_is_that_of_the_environment(kinship: Kinship, processes: Processes) -> None:
    key = processes.start(env={**os.environ, "JUPYTER_GPU_LEASE": "abc"})
    assert kinship.of(key.pid).lease_id == "abc"


@contextlib.contextmanager
def becoming_another(environment: dict[str, str]) -> Iterator[tuple[int, Callable[[], None]]]:
    """A process, and what makes it another program by exec, which then has a lease in its environment."""
    script = "echo; read line; exec env JUPYTER_GPU_LEASE=later sleep 600"
    with subprocess.Popen(
        ["/bin/sh", "-c", script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()

        def become() -> None:
            process.stdin.write(b"\n")
            process.stdin.flush()
            while b"LEASE=later" not in (environment_block(process.pid) or b""):
                os.sched_yield()

        yield process.pid, become
        process.kill()


def test_a_process_without_a_lease_is_asked_again_after_a_while() -> None:
    now = 0.0
    kinship = Kinship(lambda: now)
    with becoming_another({"PATH": os.environ["PATH"]}) as (pid, become):
        first = kinship.of(pid)
        become()
        assert kinship.of(pid) == first == Descent(first.lineage, None)
        now = 61.0
        assert kinship.of(pid) == Descent(first.lineage, "later")
    kinship.close()


def test_a_process_with_no_environment_yet_is_asked_again_at_once() -> None:
    kinship = Kinship()
    with becoming_another({}) as (pid, become):
        assert kinship.of(pid).lease_id is None
        become()
        assert kinship.of(pid).lease_id == "later"
    kinship.close()


def test_each_process_is_read_from_proc_once(processes: Processes) -> None:
    kinship = Kinship()
    keys = [processes.start() for _ in range(3)]
    for key in keys:
        kinship.of(key.pid)
    opened: list[str] = []
    _watch_opens(opened)
    for _ in range(10):
        kinship.refresh()
        assert all(kinship.is_alive(key) for key in keys)
        assert all(kinship.of(key.pid).lineage for key in keys)
    kinship.close()
    assert opened == []


_watched: list[list[str]] = []


def _watch_opens(into: list[str]) -> None:
    """Note in `into` what this process opens in /proc from now on; a hook cannot be removed, but can be idle."""
    if not _watched:
        import sys

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event == "open" and str(arguments[0]).startswith("/proc/"):
                _watched[-1].append(str(arguments[0]))

        sys.addaudithook(hook)
    _watched.append(into)


def test_no_descriptor_is_left(processes: Processes) -> None:
    before = len(os.listdir("/proc/self/fd"))
    kinship = Kinship()
    for key in [processes.start() for _ in range(5)]:
        kinship.of(key.pid)
        processes.end(key)
    kinship.refresh()
    kinship.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_forked_child_leaves_its_parents_watch_alone(processes: Processes) -> None:
    kinship = Kinship()
    key = processes.start()
    kinship.of(key.pid)
    child = os.fork()
    if child == 0:
        kinship.refresh()
        os._exit(0 if kinship.is_alive(key) else 1)
    assert os.waitpid(child, 0)[1] == 0
    processes.end(key)
    kinship.refresh()
    assert not kinship.is_alive(key)
    kinship.close()


def test_whoever_has_a_gpu_open_is_told_from_whoever_has_not(processes: Processes) -> None:
    kinship = Kinship()
    assert not kinship.uses_gpu(processes.start().pid)
    assert not kinship.uses_gpu(4194302), "there is none"
    kinship.close()


def test_names(kinship: Kinship, processes: Processes) -> None:
    assert kinship.name_of(processes.start().pid) == "sleep"
    assert kinship.name_of(4194302) is None
    if os.getuid() == 0:
        assert kinship.name_of(processes.start(user=65534).pid) is None
