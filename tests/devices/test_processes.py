"""Telling processes apart, on real ones."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jupyter_gpu.devices.processes import (
    ProcessKey,
    boot_id,
    environment_value,
    is_alive,
    is_stopped,
    process_key,
    process_stat,
    processes_with,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LOST_ITS_FIRST_THREAD = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print("ready", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until its input is closed."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", "echo ready; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"MARK": "this one", "OTHER": "x=y"},
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_this_process_is_alive_and_its_parent_is_known() -> None:
    me = process_key()
    assert me is not None
    assert me.pid == os.getpid()
    assert is_alive(me)
    stat = process_stat(os.getpid())
    assert stat is not None
    assert stat[0] == os.getppid()


def test_the_same_pid_with_another_start_time_is_another_process() -> None:
    me = process_key()
    assert me is not None
    assert not is_alive(ProcessKey(me.pid, me.start_time + 1))


def test_there_is_nothing_to_say_of_a_pid_without_a_process() -> None:
    assert process_stat(1 << 40) is None
    assert process_key(1 << 40) is None
    assert environment_value(1 << 40, "PATH") is None


def test_a_process_that_ended_but_was_not_waited_for_is_not_alive(child: subprocess.Popen[bytes]) -> None:
    key = process_key(child.pid)
    assert key is not None
    assert is_alive(key)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    assert Path(f"/proc/{child.pid}").exists()
    assert not is_alive(key)


def test_a_process_that_only_lost_its_first_thread_is_alive() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LOST_ITS_FIRST_THREAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        key = process_key(process.pid)
        assert key is not None
        stat = Path(f"/proc/{process.pid}/stat")
        while b") Z " not in stat.read_bytes():
            assert process.poll() is None
        assert is_alive(key)
    finally:
        process.kill()
        process.communicate()
    assert not is_alive(key)


def test_a_command_that_looks_like_the_end_of_a_field_does_not_mislead() -> None:
    libc = ctypes.CDLL(None)
    name = ctypes.create_string_buffer(16)
    libc.prctl(16, name)  # PR_GET_NAME
    found: list[tuple[int, int] | None] = []

    def look() -> None:
        libc.prctl(15, b") Z 1 2 3 4")  # PR_SET_NAME, of this thread only
        found.append(process_stat(threading.get_native_id()))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found[0] is not None
    assert found[0][0] == os.getppid()


def test_a_process_that_was_stopped_is_seen_to_be(child: subprocess.Popen[bytes]) -> None:
    assert not is_stopped(child.pid)
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    assert is_stopped(child.pid)
    child.send_signal(signal.SIGCONT)
    os.waitid(os.P_PID, child.pid, os.WCONTINUED)
    assert not is_stopped(child.pid)
    assert not is_stopped(1 << 40)


def test_the_environment_that_a_process_was_started_with_can_be_asked(child: subprocess.Popen[bytes]) -> None:
    assert environment_value(child.pid, "MARK") == "this one"
    assert environment_value(child.pid, "OTHER") == "x=y"
    assert environment_value(child.pid, "MAR") is None


def test_processes_are_found_by_their_environment(child: subprocess.Popen[bytes]) -> None:
    assert processes_with("MARK", "this one") == [process_key(child.pid)]
    assert processes_with("MARK", "this") == []


def test_the_boot_has_an_id() -> None:
    assert boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
