"""Telling processes apart: a pid alone is used again, a pid with its start time is not until the next boot.

Standard library only: it also runs inside kernels, on every Python from 3.7. The start time is the kernel's own count
of clock ticks since boot (`/proc/<pid>/stat`, field 22 of proc(5)), which no change of the clock moves.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

_FLAGS_FIELD, _THREADS_FIELD, _START_FIELD = 6, 17, 19
"""Places of the flags (field 9), the number of threads (field 20) and the start time (field 22), counted from the state
(field 3)."""
_FORKED_WITHOUT_EXEC = 0x40
"""PF_FORKNOEXEC of Linux's include/linux/sched.h."""
_LONGEST_BIRTH_S = 5.0
"""So long a fork may take to become another program."""


class ProcessKey(NamedTuple):
    """One process, for as long as this boot lasts."""

    pid: int
    start_time: int
    """Clock ticks since boot."""


def process_stat(pid: int) -> tuple[int, int] | None:
    """The parent's pid and the start time in clock ticks since boot; `None` where there is no such process.

    A zombie has ended: it holds no memory, so it counts as gone. One whose other threads still run has not: it only
    lost its first thread.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - the quickest way, this runs per process
            text = file.read()
    except OSError:
        return None
    # The command may hold anything, closing parentheses too: the fields begin after the last one.
    fields = text[text.rfind(b")") + 2 :].split()
    if len(fields) <= _START_FIELD or (fields[0] in (b"Z", b"X") and int(fields[_THREADS_FIELD]) < 2):
        return None
    return int(fields[1]), int(fields[_START_FIELD])


def process_key(pid: int | None = None) -> ProcessKey | None:
    """The process that has `pid` now (default: this one); `None` where there is none."""
    pid = os.getpid() if pid is None else pid
    stat = process_stat(pid)
    return None if stat is None else ProcessKey(pid, stat[1])


def is_alive(process: ProcessKey) -> bool:
    """Whether that very process still runs."""
    stat = process_stat(process.pid)
    return stat is not None and stat[1] == process.start_time


def is_stopped(pid: int) -> bool:
    """Whether the process that has `pid` now was stopped, by job control or a debugger."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            text = file.read()
    except OSError:
        return False
    return text[text.rfind(b")") + 2 :][:1] in (b"T", b"t")


def any_newborn() -> bool:
    """Whether a process of this user was forked a moment ago and is not yet the program that it is to become.

    Until then its environment is its parent's, so nothing tells whose it will be.
    """
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123
                text = file.read()
                uid = os.fstat(file.fileno()).st_uid
        except OSError:
            continue
        fields = text[text.rfind(b")") + 2 :].split()
        if len(fields) > _START_FIELD and int(fields[_FLAGS_FIELD]) & _FORKED_WITHOUT_EXEC and uid == os.getuid():
            age_s = now - int(fields[_START_FIELD]) / ticks_per_s
            if age_s < _LONGEST_BIRTH_S and int(entry) != os.getpid():
                return True
    return False


def boot_id() -> str:
    """What tells this boot from every other; empty where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""


def pid_namespace() -> int:
    """What tells this process's pids from those of another pid namespace; 0 where the system does not say."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - only the number is wanted
    except OSError:
        return 0


def environment_value(pid: int, name: str) -> str | None:
    """The variable `name` in the environment that the process was started with; `None` if unset or not ours to read."""
    block = environment_block(pid)
    return None if block is None else value_in(block, name)


def environment_block(pid: int) -> bytes | None:
    """The environment that the process was started with, as the kernel keeps it; `None` if it is not ours to read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return None


def value_in(block: bytes, name: str) -> str | None:
    """The variable `name` in an environment; `None` if unset."""
    prefix = name.encode() + b"="
    for entry in block.split(b"\0"):
        if entry.startswith(prefix):
            return entry[len(prefix) :].decode("utf-8", "replace")
    return None


def processes_with(name: str, value: str) -> list[ProcessKey]:
    """The living processes of this user that were started with the variable `name` set to `value`, oldest first."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and environment_value(int(entry), name) == value:
            key = process_key(int(entry))
            if key is not None:
                found.append(key)
    return sorted(found, key=lambda key: key.start_time)
