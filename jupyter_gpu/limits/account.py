"""The account: one small file per lease, through which its processes and the server share cap, use and peak.

Standard library only: it also runs inside kernels, on every Python from 3.7.

Layout, version 1. All numbers are unsigned, in the host's byte order, aligned to their size. A C twin maps the same
file with the same offsets (`limits/interposer/account.h`)::

    header, 256 bytes
      0  magic        8 bytes   b"JGPUACCT"
      8  version      u32       1
     12  header_size  u32       256
     16  device_count u32
     20  slot_count   u32
     24  device_size  u32       256, bytes from one device record to the next
     28  slot_size    u32       32 + 16 * device_count rounded up to 64
     32  file_size    u64
     40  lease_id     64 bytes  NUL-terminated ASCII
    104  boot_id      40 bytes  NUL-terminated ASCII, /proc/sys/kernel/random/boot_id
    144  slots_claimed  u64   one past the highest slot that was ever claimed: no slot from there on is in use
    152  pid_namespace u64    inode of the creator's /proc/self/ns/pid, in which the slots' pids count; 0 is unknown
    160  …            zero
    device record, device_count times
      0  uuid         64 bytes  NUL-terminated ASCII
     64  cap          u64       bytes; 2**64-1 is no cap
     72  total        u64       bytes the device has; 0 is unknown
     80  peak         u64       bytes, the most that all slots held at once since it was last reset
     88  refusals     u64       how many allocations were refused at the cap
     96  refused_size u64       bytes asked for by the last one that was refused
    104  refused_used u64       bytes held in all when it was refused
    112  overhead     u64       bytes that the driver took for itself (contexts, modules), as the server measured them
    120  refused_pid  u64       who asked for it
    128  …            zero
    slot, slot_count times
      0  pid          u64       0 is a free slot
      8  start_time   u64       /proc/<pid>/stat field 22, clock ticks since boot
     16  busy         u64       nanoseconds this process has computed, as simulated devices count it
     24  busy_since   u64       CLOCK_MONOTONIC nanoseconds since when it computes; 0 is not now
     32  used         u64 × device_count   bytes this process holds
      …  pending      u64 × device_count   bytes this process is asking for right now

Only the process that a slot belongs to writes its `used` and `pending`. Nothing else is added up anywhere: what a
lease holds is the sum over the slots of living processes, so a process that dies at any instruction takes its part
along, and there is no total that could drift. To allocate, a process adds the size to its own `pending`, sums
`used + pending` over all slots, and takes the size back where the sum passes the cap; else it moves it to `used`.
Two that ask at once may both be refused (and try again after a moment), but never pass the cap together.
C does this with sequentially consistent atomics. Python has none, so Python processes also hold an exclusive
`flock` on the file meanwhile. Claiming a slot and reclaiming those of the dead is done under that lock by both.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading
from typing import TYPE_CHECKING

from ..devices.amount import readable_amount
from ..devices.processes import ProcessKey, is_alive, process_key
from .account_file import (
    BUSY,
    BUSY_SINCE,
    CAP,
    NO_CAP,
    OVERHEAD,
    PEAK,
    REFUSALS,
    REFUSED_PID,
    REFUSED_SIZE,
    REFUSED_USED,
    SLOT_COUNT,
    SLOT_HEAD_SIZE,
    SLOTS_CLAIMED,
    TOTAL,
    WORD,
    AccountContent,
    AccountDevice,
    AccountError,
    AccountReading,
    checked_size,
    open_file,
    write_account,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Account", "AccountDevice", "AccountError", "AccountReading", "OutOfDeviceMemory"]

_SLOT_HEAD = SLOT_HEAD_SIZE // WORD


class OutOfDeviceMemory(MemoryError):  # noqa: N818 - named like the error it stands for
    """An allocation that would pass the cap. The message names the cap, what is held and what was asked for."""


class Account(AccountContent):
    """A lease's account file, mapped. Use `create` or `open`.

    Any number of processes may have it open, and a process may use one from several threads.
    """

    def __init__(self, path: Path, file: int, mapped: mmap.mmap) -> None:
        super().__init__(path, mapped)
        self._file = file
        self._map = mapped
        self._thread_lock = threading.RLock()
        self._lock_pid = os.getpid()
        self._lock_file = -1
        self._inside = False
        self._freed_inside: list[tuple[int, int]] = []
        self._own_slot: tuple[ProcessKey, int] | None = None

    @classmethod
    def create(
        cls,
        path: Path,
        lease_id: str,
        devices: Sequence[tuple[str, int | None, int | None]],
        slot_count: int = SLOT_COUNT,
    ) -> Account:
        """A new account at `path` for `devices`, each a UUID, its cap and its memory in bytes (`None`: none, unknown).

        Raises:
            AccountError: it cannot be written.
        """
        write_account(path, lease_id, devices, slot_count)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Account:
        """The account at `path`.

        Raises:
            AccountError: there is none, it is not ours, it is damaged, it is of another version, or its pids count in
                another pid namespace.
        """
        file = open_file(path)
        try:
            mapped = mmap.mmap(file, checked_size(path, file))
        except (AccountError, OSError, ValueError) as error:
            os.close(file)
            if isinstance(error, AccountError):
                raise
            raise AccountError(f"the account {path} cannot be mapped: {error}") from error
        return cls(path, file, mapped)

    def close(self) -> None:
        """Unmap the file. What this process holds through it stays on its account until the process ends."""
        with self._thread_lock:
            if self._file >= 0:
                self._words.release()
                self._map.close()
                os.close(self._file)
                self._file = -1

    def __enter__(self) -> Account:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def refusals(self) -> dict[str, int]:
        """How many allocations were refused on each device, by UUID; cheap enough to ask often."""
        return {uuid: self._words[self._record(number) + REFUSALS] for number, uuid in enumerate(self.uuids)}

    def set_cap(self, uuid: str, cap: int | None) -> None:
        """Change the cap on a device, in bytes; it holds from the next allocation on, and takes nothing away."""
        self._words[self._record(self._number(uuid)) + CAP] = NO_CAP if cap is None else cap

    def set_overhead(self, uuid: str, overhead: int) -> None:
        """Note what the driver took for itself on a device, in bytes."""
        self._words[self._record(self._number(uuid)) + OVERHEAD] = overhead

    def reset_peak(self, uuid: str) -> int:
        """Begin a new peak at what is held now, and return the peak until now, in bytes."""
        number = self._number(uuid)
        at = self._record(number) + PEAK
        with self._locked():
            before = self._words[at]
            self._words[at] = sum(self._held(slot)[number] for key, slot in self._slots() if is_alive(key))
        return before

    def raise_peak(self, uuid: str, peak: int) -> None:
        """Put a peak from before `reset_peak` back in its place, unless a higher one has come since, in bytes."""
        at = self._record(self._number(uuid)) + PEAK
        with self._locked():
            self._words[at] = max(self._words[at], peak)

    def allocate(self, uuid: str, size: int) -> None:
        """Charge `size` bytes on a device to this process.

        Raises:
            OutOfDeviceMemory: the processes of the lease would hold more than its cap, or the device has.
        """
        if size < 0:
            raise ValueError(f"{size} bytes cannot be allocated; ask for 0 or more")
        number = self._number(uuid)
        with self._locked():
            slot = self._claimed_slot()
            at = self._record(number)
            cap = min(self._words[at + CAP], self._words[at + TOTAL] or NO_CAP)
            pending = slot + _SLOT_HEAD + self._device_count + number
            try:
                # More than the cap is refused in any case, and might not fit the word.
                self._words[pending] = min(size, cap)
                used = self._sum(number) - self._words[pending] + size
                if used > cap:
                    # Before the refusal counts, the dead give back what they held.
                    self._reclaim()
                    used = self._sum(number) - self._words[pending] + size
                if used > cap:
                    self._refuse(uuid, size, used - size, cap)
                self._words[slot + _SLOT_HEAD + number] += size
            finally:
                # Also where an interrupt came in between: what nobody asks for any more must not stand in the way.
                self._words[pending] = 0
            self._words[at + PEAK] = max(self._words[at + PEAK], min(used, NO_CAP))

    def free(self, uuid: str, size: int) -> None:
        """Take `size` bytes on a device off this process's account.

        It may be called at any point of a program, by a destructor that runs inside `allocate` too.
        """
        number = self._number(uuid)
        with self._locked() as outermost:
            if outermost:
                self._give_back(number, size)
            else:
                self._freed_inside.append((number, size))

    def begin_busy(self, now_ns: int) -> None:
        """Note that this process computes from `now_ns` (CLOCK_MONOTONIC) on."""
        with self._locked():
            slot = self._claimed_slot()
            if not self._words[slot + BUSY_SINCE]:
                self._words[slot + BUSY_SINCE] = now_ns

    def end_busy(self, now_ns: int) -> None:
        """Note that this process computes no more."""
        with self._locked():
            slot = self._claimed_slot()
            since = self._words[slot + BUSY_SINCE]
            if since:
                self._words[slot + BUSY] += max(0, now_ns - since)
                self._words[slot + BUSY_SINCE] = 0

    def busy(self, now_ns: int) -> dict[ProcessKey, int]:
        """How long each living process has computed until `now_ns` (CLOCK_MONOTONIC), in nanoseconds."""
        result = {}
        for key, slot in self._slots():
            if is_alive(key):
                since = self._words[slot + BUSY_SINCE]
                result[key] = self._words[slot + BUSY] + (max(0, now_ns - since) if since else 0)
        return result

    def _sum(self, number: int) -> int:
        """What all slots hold of a device and ask for right now, in bytes."""
        return sum(self._claimed(slot, number) for _, slot in self._slots())

    def _refuse(self, uuid: str, size: int, used: int, cap: int) -> None:
        at = self._record(self._number(uuid))
        self._words[at + REFUSALS] += 1
        self._words[at + REFUSED_SIZE] = min(size, NO_CAP)
        self._words[at + REFUSED_USED] = min(used, NO_CAP)
        self._words[at + REFUSED_PID] = os.getpid()
        raise OutOfDeviceMemory(
            f"out of memory on {uuid}: {readable_amount(size)} asked for, {readable_amount(used)} held, "
            f"and the cap of this kernel is {readable_amount(cap)}; "
            "free some, or raise the cap with a larger GPU request"
        )

    def _give_back(self, number: int, size: int) -> None:
        at = self._claimed_slot() + _SLOT_HEAD + number
        self._words[at] -= min(size, self._words[at])

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Alone with the account. Gives whether this is the first of such `with` that this thread is in.

        A destructor or a signal handler may come here while the same thread is in here already.
        """
        if self._lock_pid != os.getpid():
            # A thread that the parent had may hold the locks that came along with the fork, and is not here to let go.
            self._thread_lock, self._lock_pid, self._inside = threading.RLock(), os.getpid(), False
            if self._lock_file >= 0:
                os.close(self._lock_file)
                self._lock_file = -1
        with self._thread_lock:
            if self._inside:
                yield False
                return
            self._inside = True
            try:
                # A descriptor that was inherited by fork shares its lock, so each use locks through one of its own; it
                # is opened through the old one, because the path is gone once the lease has ended.
                file = self._lock_file = os.open(f"/proc/self/fd/{self._file}", os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX)
                    try:
                        yield True
                    finally:
                        while self._freed_inside:
                            self._give_back(*self._freed_inside.pop())
                        # To close it would not do: a child that was forked meanwhile has it open too.
                        fcntl.flock(file, fcntl.LOCK_UN)
                finally:
                    self._lock_file = -1
                    os.close(file)
            finally:
                self._inside = False

    def _claimed_slot(self) -> int:
        """This process's slot, in words; claimed on first use and, in a forked child, anew."""
        if self._own_slot is not None and self._own_slot[0].pid == os.getpid():
            return self._own_slot[1]
        key = process_key()
        if key is None:
            raise AccountError("this process cannot be found in /proc, so its use cannot be accounted for")
        for reclaimed in (False, True):
            if reclaimed:
                self._reclaim()
            slot = self._slot_of(key)
            if slot is not None:
                self._own_slot = (key, slot)
                return int(slot)
        raise AccountError(f"all {self._slot_count} places of the account {self.path} are taken by living processes")

    def _slot_of(self, key: ProcessKey) -> int | None:
        """The slot that a process has, or a free one that is its own from now on; `None` if all are taken."""
        taken = {slot: owner for owner, slot in self._slots()}
        for slot, owner in taken.items():
            if owner == key:
                return int(slot)
        for number in range(self._slot_count):
            slot = self._first_slot + number * self._slot_words
            if slot not in taken:
                self._words[SLOTS_CLAIMED] = max(self._words[SLOTS_CLAIMED], number + 1)
                for at in range(slot + 1, slot + self._slot_words):
                    self._words[at] = 0
                self._words[slot + 1] = key.start_time
                self._words[slot] = key.pid
                return int(slot)
        return None

    def _reclaim(self) -> None:
        """Free the slots of processes that have ended. The lock is held."""
        for key, slot in list(self._slots()):
            if not is_alive(key):
                for at in range(slot + self._slot_words - 1, slot - 1, -1):
                    self._words[at] = 0
