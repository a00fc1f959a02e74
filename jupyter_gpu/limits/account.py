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
    144  …            zero
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
import stat
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple

from ..devices.amount import readable_amount
from ..devices.processes import ProcessKey, boot_id, is_alive, process_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAGIC = b"JGPUACCT"
VERSION = 1
HEADER_SIZE = 256
DEVICE_SIZE = 256
NO_CAP = (1 << 64) - 1
SLOT_COUNT = 512
"""Slots in a new account: the processes of one lease that may hold device memory at once."""

_HEADER = struct.Struct("=8sIIIIIIQ64s40s")
_SLOT_HEAD_SIZE = 32
_MOST_DEVICES = 64
_LARGEST_FILE = 64 << 20
_WORD = 8
_CAP, _TOTAL, _PEAK, _REFUSALS, _REFUSED_SIZE, _REFUSED_USED, _OVERHEAD, _REFUSED_PID = range(8, 16)
"""Places of a device record's numbers, in words from its beginning."""
_BUSY, _BUSY_SINCE = 2, 3
"""Places of a slot's numbers, in words from its beginning."""


class AccountError(Exception):
    """An account file that cannot be used. The message says which and why."""


class OutOfDeviceMemory(MemoryError):  # noqa: N818 - named like the error it stands for
    """An allocation that would pass the cap. The message names the cap, what is held and what was asked for."""


class AccountDevice(NamedTuple):
    """What an account says of one device, in bytes."""

    uuid: str
    cap: int | None
    """`None` is no cap."""
    total: int | None
    """What the device has; `None` is unknown."""
    used: int
    """What the living processes hold together."""
    peak: int
    """The most they held at once since it was last reset."""
    refusals: int
    refused_size: int
    """Bytes asked for by the last allocation that was refused, `refused_used` bytes being held by all."""
    refused_used: int
    overhead: int
    """What the driver took for itself, as the server measured it."""
    refused_pid: int


class AccountReading(NamedTuple):
    """What an account says at one moment."""

    lease_id: str
    devices: tuple[AccountDevice, ...]
    processes: dict[ProcessKey, tuple[int, ...]]
    """What each living process holds, in bytes, in the order of `devices`."""


class Account:
    """A lease's account file, mapped. Use `create` or `open`.

    Any number of processes may have it open, and a process may use one from several threads.
    """

    def __init__(self, path: Path, file: int, mapped: mmap.mmap) -> None:
        self.path = path
        self._file = file
        self._map = mapped
        fields = _HEADER.unpack_from(mapped)
        self.lease_id = _text(fields[8])
        self._device_count, self._slot_count, self._slot_size = fields[3], fields[4], fields[6]
        self._words = memoryview(mapped).cast("Q")
        self._first_slot = (HEADER_SIZE + DEVICE_SIZE * self._device_count) // _WORD
        self._slot_words = self._slot_size // _WORD
        self._thread_lock = threading.RLock()
        self._own_slot: tuple[ProcessKey, int] | None = None
        self.uuids = tuple(
            _text(mapped[at : at + 64])
            for at in range(HEADER_SIZE, HEADER_SIZE + DEVICE_SIZE * self._device_count, DEVICE_SIZE)
        )

    @classmethod
    def create(
        cls,
        path: Path,
        lease_id: str,
        devices: Sequence[tuple[str, int | None, int | None]],
        slot_count: int = SLOT_COUNT,
    ) -> Account:
        """A new account at `path` for `devices`, each a UUID, its cap and its memory in bytes (`None`: none, unknown).

        The file appears at once with all its content, readable and writable by this user only.

        Raises:
            AccountError: it cannot be written.
        """
        slot_size = -(-(_SLOT_HEAD_SIZE + 2 * _WORD * len(devices)) // 64) * 64
        size = HEADER_SIZE + DEVICE_SIZE * len(devices) + slot_size * slot_count
        header = _HEADER.pack(
            MAGIC, VERSION, HEADER_SIZE, len(devices), slot_count, DEVICE_SIZE, slot_size, size,
            lease_id.encode("ascii")[:63], boot_id().encode("ascii")[:39],
        )  # fmt: skip
        content = bytearray(HEADER_SIZE + DEVICE_SIZE * len(devices))
        content[: len(header)] = header
        for number, (uuid, cap, total) in enumerate(devices):
            at = HEADER_SIZE + DEVICE_SIZE * number
            content[at : at + 64] = uuid.encode("ascii")[:63].ljust(64, b"\0")
            struct.pack_into("=QQ", content, at + _CAP * _WORD, NO_CAP if cap is None else cap, total or 0)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            file = os.open(str(draft), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(file, bytes(content))
                # Blocks are taken now: a mapped file that meets a full disk later would end the kernel with SIGBUS.
                os.posix_fallocate(file, 0, size)
                draft.rename(path)
            except OSError:
                draft.unlink()
                raise
            finally:
                os.close(file)
        except OSError as error:
            raise AccountError(f"the account {path} cannot be written: {error.strerror}") from error
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Account:
        """The account at `path`.

        Raises:
            AccountError: there is none, it is not ours, it is damaged, or it is of another version.
        """
        try:
            file = os.open(str(path), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise AccountError(f"the account {path} cannot be opened: {error.strerror}") from error
        try:
            size = _checked_size(path, file)
            mapped = mmap.mmap(file, size)
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

    def read(self) -> AccountReading:
        """Cap, use and peak of every device, and what each living process holds."""
        processes: dict[ProcessKey, tuple[int, ...]] = {}
        for key, slot in self._slots():
            if is_alive(key):
                held = self._held(slot)
                before = processes.get(key, (0,) * self._device_count)
                processes[key] = tuple(a + b for a, b in zip(before, held))  # noqa: B905 - Python 3.7 runs this
        devices = []
        for number, uuid in enumerate(self.uuids):
            at = self._record(number)
            word = self._words
            devices.append(
                AccountDevice(
                    uuid=uuid,
                    cap=None if word[at + _CAP] == NO_CAP else word[at + _CAP],
                    total=word[at + _TOTAL] or None,
                    used=sum(held[number] for held in processes.values()),
                    peak=word[at + _PEAK],
                    refusals=word[at + _REFUSALS],
                    refused_size=word[at + _REFUSED_SIZE],
                    refused_used=word[at + _REFUSED_USED],
                    overhead=word[at + _OVERHEAD],
                    refused_pid=word[at + _REFUSED_PID],
                )
            )
        return AccountReading(self.lease_id, tuple(devices), processes)

    def set_cap(self, uuid: str, cap: int | None) -> None:
        """Change the cap on a device, in bytes; it holds from the next allocation on, and takes nothing away."""
        self._words[self._record(self._number(uuid)) + _CAP] = NO_CAP if cap is None else cap

    def set_overhead(self, uuid: str, overhead: int) -> None:
        """Note what the driver took for itself on a device, in bytes."""
        self._words[self._record(self._number(uuid)) + _OVERHEAD] = overhead

    def reset_peak(self, uuid: str) -> int:
        """Begin a new peak at what is held now, and return the peak until now, in bytes."""
        number = self._number(uuid)
        at = self._record(number) + _PEAK
        with self._locked():
            before = self._words[at]
            self._words[at] = sum(self._held(slot)[number] for key, slot in self._slots() if is_alive(key))
        return before

    def raise_peak(self, uuid: str, peak: int) -> None:
        """Put a peak from before `reset_peak` back in its place, unless a higher one has come since, in bytes."""
        at = self._record(self._number(uuid)) + _PEAK
        with self._locked():
            if self._words[at] < peak:
                self._words[at] = peak

    def allocate(self, uuid: str, size: int) -> None:
        """Charge `size` bytes on a device to this process.

        Raises:
            OutOfDeviceMemory: the processes of the lease would hold more than its cap, or the device has.
        """
        number = self._number(uuid)
        with self._locked():
            slot = self._claimed_slot()
            at = self._record(number)
            pending = slot + (_SLOT_HEAD_SIZE // _WORD) + self._device_count + number
            self._words[pending] += size
            used = sum(self._claimed(other, number) for _, other in self._slots())
            cap = min(self._words[at + _CAP], self._words[at + _TOTAL] or NO_CAP)
            if used > cap:
                # Before the refusal counts, the dead give back what they held.
                self._reclaim()
                used = sum(self._claimed(other, number) for _, other in self._slots())
            if used > cap:
                self._words[pending] -= size
                self._words[at + _REFUSALS] += 1
                self._words[at + _REFUSED_SIZE] = size
                self._words[at + _REFUSED_USED] = used - size
                self._words[at + _REFUSED_PID] = os.getpid()
                raise OutOfDeviceMemory(
                    f"out of memory on {uuid}: {readable_amount(size)} asked for, {readable_amount(used - size)} held, "
                    f"and the cap of this kernel is {readable_amount(cap)}; "
                    "free some, or raise the cap with a larger GPU request"
                )
            self._words[slot + (_SLOT_HEAD_SIZE // _WORD) + number] += size
            self._words[pending] -= size
            self._words[at + _PEAK] = max(self._words[at + _PEAK], used)

    def free(self, uuid: str, size: int) -> None:
        """Take `size` bytes on a device off this process's account."""
        number = self._number(uuid)
        with self._locked():
            at = self._claimed_slot() + (_SLOT_HEAD_SIZE // _WORD) + number
            self._words[at] -= min(size, self._words[at])

    def begin_busy(self, now_ns: int) -> None:
        """Note that this process computes from `now_ns` (CLOCK_MONOTONIC) on."""
        with self._locked():
            slot = self._claimed_slot()
            if not self._words[slot + _BUSY_SINCE]:
                self._words[slot + _BUSY_SINCE] = now_ns

    def end_busy(self, now_ns: int) -> None:
        """Note that this process computes no more."""
        with self._locked():
            slot = self._claimed_slot()
            since = self._words[slot + _BUSY_SINCE]
            if since:
                self._words[slot + _BUSY] += max(0, now_ns - since)
                self._words[slot + _BUSY_SINCE] = 0

    def busy(self, now_ns: int) -> dict[ProcessKey, int]:
        """How long each living process has computed until `now_ns` (CLOCK_MONOTONIC), in nanoseconds."""
        result = {}
        for key, slot in self._slots():
            if is_alive(key):
                since = self._words[slot + _BUSY_SINCE]
                result[key] = self._words[slot + _BUSY] + (max(0, now_ns - since) if since else 0)
        return result

    def _number(self, uuid: str) -> int:
        try:
            return self.uuids.index(uuid)
        except ValueError:
            raise AccountError(f"the account has no device {uuid}; it has {', '.join(self.uuids) or 'none'}") from None

    def _record(self, number: int) -> int:
        return (HEADER_SIZE + DEVICE_SIZE * number) // _WORD

    def _slots(self) -> Iterator[tuple[ProcessKey, int]]:
        for number in range(self._slot_count):
            slot = self._first_slot + number * self._slot_words
            pid = self._words[slot]
            if pid:
                yield ProcessKey(pid, self._words[slot + 1]), slot

    def _held(self, slot: int) -> tuple[int, ...]:
        at = slot + _SLOT_HEAD_SIZE // _WORD
        return tuple(self._words[at : at + self._device_count])

    def _claimed(self, slot: int, number: int) -> int:
        at = slot + _SLOT_HEAD_SIZE // _WORD + number
        return int(self._words[at] + self._words[at + self._device_count])

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._thread_lock:
            # A descriptor that was inherited by fork shares its lock, so each use locks through one of its own; it is
            # opened through the old one, because the path is gone once the lease has ended.
            file = os.open(f"/proc/self/fd/{self._file}", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
            finally:
                os.close(file)

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
            for number in range(self._slot_count):
                slot = self._first_slot + number * self._slot_words
                pid, start_time = self._words[slot], self._words[slot + 1]
                if pid == 0 or (pid, start_time) == key:
                    if pid == 0:
                        for at in range(slot + 1, slot + self._slot_words):
                            self._words[at] = 0
                        self._words[slot + 1] = key.start_time
                        self._words[slot] = key.pid
                    self._own_slot = (key, slot)
                    return int(slot)
        raise AccountError(f"all {self._slot_count} places of the account {self.path} are taken by living processes")

    def _reclaim(self) -> None:
        """Free the slots of processes that have ended. The lock is held."""
        for key, slot in list(self._slots()):
            if not is_alive(key):
                for at in range(slot + self._slot_words - 1, slot - 1, -1):
                    self._words[at] = 0


def _checked_size(path: Path, file: int) -> int:
    """The size of the account behind an open descriptor, once it is known to be one of ours and whole."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
        raise AccountError(f"the account {path} is not a file of this user")
    header = os.pread(file, _HEADER.size, 0)
    if len(header) < _HEADER.size or header[:8] != MAGIC:
        raise AccountError(f"{path} is not an account: it does not begin as one")
    _, version, header_size, device_count, slot_count, device_size, slot_size, size, _, _ = _HEADER.unpack(header)
    if version != VERSION:
        raise AccountError(f"the account {path} has version {version}; this software reads version {VERSION}")
    least = HEADER_SIZE + DEVICE_SIZE * device_count + slot_size * slot_count
    if (
        header_size != HEADER_SIZE
        or device_size != DEVICE_SIZE
        or device_count > _MOST_DEVICES
        or slot_size % _WORD
        or slot_size < _SLOT_HEAD_SIZE + 2 * _WORD * device_count
        or not least <= size <= _LARGEST_FILE
        or status.st_size < size
    ):
        raise AccountError(f"the account {path} is damaged: its header does not fit its {status.st_size} bytes")
    return int(size)


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("ascii", "replace")
