"""The account's file: its numbers, how it is made, how it is known to be whole, and how it is read.

Standard library only: it also runs inside kernels, on every Python from 3.7. The layout is told in `account.py`.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple

from ..devices.processes import ProcessKey, boot_id, is_alive, pid_namespace

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

MAGIC = b"JGPUACCT"
VERSION = 1
HEADER_SIZE = 256
DEVICE_SIZE = 256
SLOT_HEAD_SIZE = 32
WORD = 8
NO_CAP = (1 << 64) - 1
SLOT_COUNT = 512
"""Slots in a new account: the processes of one lease that may hold device memory at once."""
SLOTS_CLAIMED = 18
"""Place of that number in the header, in words."""
CAP, TOTAL, PEAK, REFUSALS, REFUSED_SIZE, REFUSED_USED, OVERHEAD, REFUSED_PID = range(8, 16)
"""Places of a device record's numbers, in words from its beginning."""
BUSY, BUSY_SINCE = 2, 3
"""Places of a slot's numbers, in words from its beginning."""

_HEADER = struct.Struct("=8sIIIIIIQ64s40s")
_PID_NAMESPACE_AT = 152
_BEGINNING = struct.pack("=8sII", MAGIC, VERSION, HEADER_SIZE)
_MOST_DEVICES = 64
_PAGE = 4096
_LARGEST_FILE = 64 << 20


class AccountError(Exception):
    """An account file that cannot be used. The message says which and why."""


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


class AccountContent:
    """What is in an account, whether mapped or copied: the words of the file and what they mean."""

    def __init__(self, path: Path, content: mmap.mmap | bytes) -> None:
        self.path = path
        fields = _HEADER.unpack_from(content)
        self.lease_id = _text(fields[8])
        self._device_count, self._slot_count, slot_size = fields[3], fields[4], fields[6]
        self._words = memoryview(content).cast("Q")
        self._first_slot = (HEADER_SIZE + DEVICE_SIZE * self._device_count) // WORD
        self._slot_words = slot_size // WORD
        self.uuids = tuple(
            _text(content[at : at + 64])
            for at in range(HEADER_SIZE, HEADER_SIZE + DEVICE_SIZE * self._device_count, DEVICE_SIZE)
        )

    def read(self, alive: Callable[[ProcessKey], bool] = is_alive) -> AccountReading:
        """Cap, use and peak of every device, and what each process holds that is `alive`."""
        processes: dict[ProcessKey, tuple[int, ...]] = {}
        for key, slot in self._slots():
            if alive(key):
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
                    cap=None if word[at + CAP] == NO_CAP else word[at + CAP],
                    total=word[at + TOTAL] or None,
                    used=sum(held[number] for held in processes.values()),
                    peak=word[at + PEAK],
                    refusals=word[at + REFUSALS],
                    refused_size=word[at + REFUSED_SIZE],
                    refused_used=word[at + REFUSED_USED],
                    overhead=word[at + OVERHEAD],
                    refused_pid=word[at + REFUSED_PID],
                )
            )
        return AccountReading(self.lease_id, tuple(devices), processes)

    def release(self) -> None:
        """Let go of the content, so that it can be unmapped."""
        self._words.release()

    def size_in_use(self) -> int:
        """How many bytes of the file, from its beginning, say something. The rest is zero."""
        return self._end() * WORD

    def limits(self) -> dict[str, tuple[int | None, int | None]]:
        """By UUID, the cap on each device (`None` is no cap) and its memory (`None` is unknown), in bytes."""
        found = {}
        for number, uuid in enumerate(self.uuids):
            at = self._record(number)
            cap = self._words[at + CAP]
            found[uuid] = (None if cap == NO_CAP else cap, self._words[at + TOTAL] or None)
        return found

    def _number(self, uuid: str) -> int:
        try:
            return self.uuids.index(uuid)
        except ValueError:
            raise AccountError(f"the account has no device {uuid}; it has {', '.join(self.uuids) or 'none'}") from None

    def _record(self, number: int) -> int:
        return (HEADER_SIZE + DEVICE_SIZE * number) // WORD

    def _slots(self) -> Iterator[tuple[ProcessKey, int]]:
        end = self._end()
        pids = self._words[self._first_slot : end : self._slot_words].tolist()
        for slot in compress(range(self._first_slot, end, self._slot_words), pids):
            yield ProcessKey(self._words[slot], self._words[slot + 1]), slot

    def _end(self) -> int:
        """The word after the last slot that was ever claimed: most of the many slots never are."""
        claimed = min(self._words[SLOTS_CLAIMED], self._slot_count)
        return int(self._first_slot + claimed * self._slot_words)

    def _held(self, slot: int) -> tuple[int, ...]:
        at = slot + SLOT_HEAD_SIZE // WORD
        return tuple(self._words[at : at + self._device_count])

    def _claimed(self, slot: int, number: int) -> int:
        at = slot + SLOT_HEAD_SIZE // WORD + number
        # Pending first: what a C process moves to `used` in between is then counted twice, and not missed.
        pending = self._words[at + self._device_count]
        return int(pending + self._words[at])


def read_account(path: Path) -> AccountReading:
    """What the account at `path` says now. Quicker than to map it, for whoever wants one look.

    Raises:
        AccountError: there is none, it is not ours, it is damaged, or it is of another version.
    """
    return _copy(path, with_slots=True).read()


def account_limits(path: Path) -> dict[str, tuple[int | None, int | None]]:
    """What `AccountContent.limits` gives for the account at `path`, without reading what its processes hold.

    Raises:
        AccountError: there is none, it is not ours, it is damaged, or it is of another version.
    """
    return _copy(path, with_slots=False).limits()


def has_caps(path: Path, caps: Mapping[str, int | None]) -> bool:
    """Whether the account at `path` is for just these devices with just these caps.

    Bytes are compared and not understood, so this is the quickest way to see that there is nothing to do.
    """
    try:
        file = os.open(str(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        content = os.pread(file, HEADER_SIZE + DEVICE_SIZE * len(caps), 0)
        on_disk = os.fstat(file).st_size
    except OSError:
        return False
    finally:
        os.close(file)
    if content[:16] != _BEGINNING or content[16:20] != struct.pack("=I", len(caps)):
        return False
    (size,) = struct.unpack_from("=Q", content, 32)
    if on_disk < size:
        return False
    at = HEADER_SIZE
    for uuid, cap in caps.items():
        if content[at : at + CAP * WORD + WORD] != _name_and_cap(uuid, cap):
            return False
        at += DEVICE_SIZE
    return True


def open_file(path: Path) -> int:
    """A descriptor of the file at `path`, whatever it is.

    Raises:
        AccountError: it cannot be opened.
    """
    try:
        return os.open(str(path), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise AccountError(f"the account {path} cannot be opened: {error.strerror}") from error


def checked_size(path: Path, file: int) -> int:
    """The bytes of the account behind an open descriptor, once it is known to be one of ours and whole.

    Raises:
        AccountError: it is not.
    """
    on_disk = _own_size(path, file)
    return _checked_size(path, on_disk, os.pread(file, HEADER_SIZE, 0))


def write_account(
    path: Path, lease_id: str, devices: Sequence[tuple[str, int | None, int | None]], slot_count: int = SLOT_COUNT
) -> None:
    """Write a new account for `devices`, each a UUID, its cap and its memory in bytes (`None`: none, unknown).

    The file appears at once with all its content, readable and writable by this user only.

    Raises:
        AccountError: it cannot be written.
    """
    if len(devices) > _MOST_DEVICES:
        raise AccountError(f"an account has at most {_MOST_DEVICES} devices, not {len(devices)}")
    slot_size = -(-(SLOT_HEAD_SIZE + 2 * WORD * len(devices)) // 64) * 64
    size = HEADER_SIZE + DEVICE_SIZE * len(devices) + slot_size * slot_count
    header = _HEADER.pack(
        MAGIC, VERSION, HEADER_SIZE, len(devices), slot_count, DEVICE_SIZE, slot_size, size,
        lease_id.encode("ascii")[:63], boot_id().encode("ascii")[:39],
    )  # fmt: skip
    content = bytearray(HEADER_SIZE + DEVICE_SIZE * len(devices))
    content[: len(header)] = header
    struct.pack_into("=Q", content, _PID_NAMESPACE_AT, pid_namespace())
    for number, (uuid, cap, total) in enumerate(devices):
        at = HEADER_SIZE + DEVICE_SIZE * number
        content[at : at + TOTAL * WORD] = _name_and_cap(uuid, cap)
        struct.pack_into("=Q", content, at + TOTAL * WORD, total or 0)
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


def _copy(path: Path, *, with_slots: bool) -> AccountContent:
    """A copy of the account, as far as it says something, or of what comes before its slots."""
    file = open_file(path)
    try:
        on_disk = _own_size(path, file)
        # Most accounts say all they have to say within a page.
        content = os.pread(file, _PAGE, 0)
        _checked_size(path, on_disk, content)
        _, _, _, device_count, slot_count, _, slot_size, _, _, _ = _HEADER.unpack_from(content)
        end = HEADER_SIZE + DEVICE_SIZE * device_count
        if with_slots:
            (claimed,) = struct.unpack_from("=Q", content, SLOTS_CLAIMED * WORD)
            end += min(claimed, slot_count) * slot_size
        if end > len(content):
            content = os.pread(file, end, 0)
    except OSError as error:
        raise AccountError(f"the account {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(file)
    if len(content) < end:
        raise AccountError(f"the account {path} became shorter while it was read")
    return AccountContent(path, content[:end])


def _own_size(path: Path, file: int) -> int:
    """The bytes of the file behind a descriptor, once it is known to be a file of this user."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
        raise AccountError(f"the account {path} is not a file of this user")
    return status.st_size


def _checked_size(path: Path, on_disk: int, header: bytes) -> int:
    if len(header) < _HEADER.size or header[:8] != MAGIC:
        raise AccountError(f"{path} is not an account: it does not begin as one")
    _, version, header_size, device_count, slot_count, device_size, slot_size, size, _, _ = _HEADER.unpack_from(header)
    if version != VERSION:
        raise AccountError(f"the account {path} has version {version}; this software reads version {VERSION}")
    least = HEADER_SIZE + DEVICE_SIZE * device_count + slot_size * slot_count
    if (
        header_size != HEADER_SIZE
        or device_size != DEVICE_SIZE
        or device_count > _MOST_DEVICES
        or slot_size % WORD
        or slot_size < SLOT_HEAD_SIZE + 2 * WORD * device_count
        or not least <= size <= _LARGEST_FILE
        or size % WORD
        or on_disk < size
    ):
        raise AccountError(f"the account {path} is damaged: its header does not fit its {on_disk} bytes")
    (counts_in,) = struct.unpack_from("=Q", header, _PID_NAMESPACE_AT)
    # 0 is unknown, which says nothing against it.
    if counts_in and pid_namespace() not in (0, counts_in):
        raise AccountError(
            f"the account {path} was made where other pids count (pid namespace {counts_in}, and here it is "
            f"{pid_namespace()}), so its processes cannot be told apart here; start the kernel and the server in one "
            "pid namespace, in containers with --pid=host"
        )
    return int(size)


def _name_and_cap(uuid: str, cap: int | None) -> bytes:
    return struct.pack("=64sQ", uuid.encode("ascii")[:63], NO_CAP if cap is None else cap)


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("ascii", "replace")
