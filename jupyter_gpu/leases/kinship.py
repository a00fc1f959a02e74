"""Where the processes on the devices come from, read once for each process.

Reading `/proc` costs more than asking the driver, so what never changes is remembered: a process's ancestors as they
were when it was first seen (a worker that loses its parent later still is its kernel's), and the lease in the
environment that it was started with. Both belong to a pid with its start time. Whether that very process still runs
costs next to nothing to ask: each has a pidfd in one epoll set, and Linux says in one call which have ended.
"""

from __future__ import annotations

import os
import select
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..devices.processes import ProcessKey, environment_block, pid_namespace, process_key, process_stat, value_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LEASE_VARIABLE = "JUPYTER_GPU_LEASE"
_DEEPEST_TREE = 64
_MOST_PIDFDS = 512
"""More processes than this are looked up in /proc each time, so that the server keeps its file descriptors."""
_FOREIGN_LIFE_S = 60.0
"""How long a process without a lease is taken for one: it may become another program by exec."""
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""The inode of the host's own pid namespace, PROC_PID_INIT_INO in Linux's include/linux/proc_ns.h."""
_GPU_NODES = ("/dev/nvidia", "/dev/dxg")
"""What every process that uses a GPU has open: NVIDIA's device nodes, and WSL's."""


@dataclass(frozen=True)
class Descent:
    """Where one process comes from."""

    lineage: tuple[ProcessKey, ...] = ()
    """The process itself, its parent, and so on; empty where the pid cannot be found (another pid namespace)."""
    lease_id: str | None = None
    """From its environment."""


UNKNOWN = Descent()


@dataclass
class _Known:
    descent: Descent
    read_at: float
    pidfd: int | None
    uses_gpu: bool | None = None
    name: str | None = None
    named: bool = False


@dataclass
class _Table:
    by_pid: dict[int, _Known] = field(default_factory=dict)
    pid_of: dict[int, int] = field(default_factory=dict)
    """By pidfd."""


class Kinship:
    """The descent of processes, remembered. Safe for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, most_pidfds: int = _MOST_PIDFDS) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._table = _Table()
        self._most_pidfds = most_pidfds if hasattr(os, "pidfd_open") else 0
        self._epoll: select.epoll | None = None
        self._ended = self._unwatched = 0
        self._owner = os.getpid()
        self.other_namespace = pid_namespace() not in (0, _INITIAL_PID_NAMESPACE)
        """Whether this process runs in a container whose pids may be other than those that the driver counts in."""

    def refresh(self) -> None:
        """Forget the processes that have ended. Until the next call, the others are taken to live."""
        with self._lock:
            if self._owner != os.getpid():
                # The epoll set is shared with the process that this one was forked from.
                self._epoll, self._table, self._owner, self._unwatched = None, _Table(), os.getpid(), 0
            if self._epoll is None:
                return
            for pidfd, _ in self._epoll.poll(0, max(1, len(self._table.pid_of))):
                self._forget(self._table.pid_of[pidfd])

    def of(self, pid: int) -> Descent:
        """Where the process that has `pid` comes from; `UNKNOWN` if there is none that can be seen."""
        with self._lock:
            known = self._known(pid)
            return UNKNOWN if known is None else known.descent

    def of_all(self, pids: Iterable[int]) -> dict[int, Descent]:
        """The same for many."""
        found = {}
        with self._lock:
            by_pid, old = self._table.by_pid, self._clock() - _FOREIGN_LIFE_S
            for pid in pids:
                known = by_pid.get(pid)
                if known is None or known.pidfd is None or (known.descent.lease_id is None and known.read_at < old):
                    known = self._known(pid)
                found[pid] = UNKNOWN if known is None else known.descent
        return found

    def is_alive(self, process: ProcessKey) -> bool:
        """Whether that very process still runs, as of the last `refresh`."""
        with self._lock:
            known = self._known(process.pid)
            return known is not None and known.descent.lineage[0] == process

    @property
    def ended(self) -> int | None:
        """How many of the processes that were asked for have ended; `None` where that is not told without looking."""
        return self._ended if self._unwatched == 0 else None

    def all_alive(self, processes: Iterable[ProcessKey]) -> bool:
        """Whether all of them still run, as of the last `refresh`."""
        with self._lock:
            for process in processes:
                known = self._known(process.pid)
                if known is None or known.descent.lineage[0] != process:
                    return False
            return True

    def name_of(self, pid: int) -> str | None:
        """The name of a process of this user; `None` for other users' processes, whose names are not ours to tell."""
        with self._lock:
            known = self._known(pid)
            if known is None:
                return None
            if not known.named:
                known.name, known.named = _own_name(pid), True
            return known.name

    def uses_gpu(self, pid: int) -> bool:
        """Whether the process has a GPU's device node open; true where that is not ours to see."""
        with self._lock:
            known = self._known(pid)
            if known is None:
                return False
            if known.uses_gpu is None:
                known.uses_gpu = _has_gpu_open(pid)
            return known.uses_gpu

    def close(self) -> None:
        """Let go of all file descriptors. The next question begins anew."""
        with self._lock:
            for pid in list(self._table.by_pid):
                self._forget(pid)
            if self._epoll is not None:
                self._epoll.close()
                self._epoll = None

    def _known(self, pid: int) -> _Known | None:
        known = self._table.by_pid.get(pid)
        if known is not None:
            if known.pidfd is None and process_key(pid) != known.descent.lineage[0]:
                self._forget(pid)
            elif known.descent.lease_id is None and self._clock() - known.read_at > _FOREIGN_LIFE_S:
                self._read_lease(known)
                known.named = False
                return known
            else:
                return known
        return self._meet(pid)

    def _meet(self, pid: int) -> _Known | None:
        # The pidfd comes first: what is read after it, and still holds, belongs to the process that it stands for.
        pidfd = self._pidfd(pid)
        lineage = lineage_of(pid)
        if not lineage:
            if pidfd is not None:
                os.close(pidfd)
            return None
        known = _Known(Descent(lineage), 0.0, pidfd)
        self._read_lease(known)
        self._table.by_pid[pid] = known
        if pidfd is None:
            self._unwatched += 1
        else:
            self._table.pid_of[pidfd] = pid
            if self._epoll is None:
                self._epoll = select.epoll()
            self._epoll.register(pidfd, select.EPOLLIN)
        return known

    def _read_lease(self, known: _Known) -> None:
        """Read the lease in a process's environment."""
        lineage = known.descent.lineage
        environment = environment_block(lineage[0].pid)
        # In the middle of an exec it is empty: then the next look has to tell.
        known.read_at = float("-inf") if environment == b"" else self._clock()
        lease_id = value_in(environment, LEASE_VARIABLE) if environment else None
        # The pid may have gone to another process in between: what was read is then not this one's.
        if lease_id and process_key(lineage[0].pid) == lineage[0]:
            known.descent = Descent(lineage, lease_id)

    def _pidfd(self, pid: int) -> int | None:
        if len(self._table.pid_of) >= self._most_pidfds:
            return None
        try:
            return os.pidfd_open(pid)
        except OSError:
            return None

    def _forget(self, pid: int) -> None:
        known = self._table.by_pid.pop(pid)
        self._ended += 1
        if known.pidfd is None:
            self._unwatched -= 1
        else:
            del self._table.pid_of[known.pidfd]
            if self._epoll is not None:
                self._epoll.unregister(known.pidfd)
            os.close(known.pidfd)


def lineage_of(pid: int) -> tuple[ProcessKey, ...]:
    """The process with this pid, its parent, its parent's parent and so on up to the first; empty if there is none."""
    found: list[ProcessKey] = []
    while pid > 0 and len(found) < _DEEPEST_TREE:
        stat = process_stat(pid)
        if stat is None:
            break
        found.append(ProcessKey(pid, stat[1]))
        pid = stat[0]
    return tuple(found)


def _own_name(pid: int) -> str | None:
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.getuid():  # noqa: PTH116 - no more than a number is wanted
            return None
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return None


def _has_gpu_open(pid: int) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return True
    for name in names:
        try:
            if os.readlink(f"{folder}/{name}").startswith(_GPU_NODES):  # noqa: PTH115 - per descriptor
                return True
        except OSError:
            continue
    return False
