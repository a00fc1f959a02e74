"""Memory and computing on simulated GPUs, for trying jupyter_gpu where there is no real one.

    >>> import jupyter_gpu.simulated as gpu
    >>> block = gpu.allocate("2GiB")     # counts as this kernel's use, up to its cap
    >>> with gpu.computing():            # counts as utilisation
    ...     ...
    >>> block.free()

What a process holds comes back when it is freed and when the process ends, however it ends. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .devices.amount import parse_amount, readable_amount
from .devices.processes import process_key
from .devices.simulation import (
    EXAMPLE,
    SPECIFICATION_VARIABLE,
    account_paths,
    parse_specification,
    unleased_directory,
    unleased_path,
)
from .limits.account import Account, AccountError, OutOfDeviceMemory
from .limits.account_file import read_account
from .paths import private_directory, runtime_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .devices.simulation import SimulatedDevice

__all__ = ["Allocation", "OutOfDeviceMemory", "allocate", "computing"]

_UUIDS = ("GPU-", "MIG-")
_lock = threading.Lock()
_accounts: dict[tuple[int, str], Account] = {}
_computing: dict[int, int] = {}
"""How many `with computing()` each process is in: a forked child has its parent's numbers too."""


class Allocation:
    """A block of simulated device memory. It is freed by `free`, at the end of a `with`, or with the object."""

    def __init__(self, account: Account, uuid: str, size: int) -> None:
        self._account = account
        self._owner = os.getpid()
        self._freed = False
        self.uuid = uuid
        """The device that it is on."""
        self.size = size
        """In bytes."""

    def free(self) -> None:
        """Give the memory back. A second call does nothing."""
        # A forked child has a copy of the object, but none of the memory.
        if self._freed or self._owner != os.getpid():
            return
        self._freed = True
        self._account.free(self.uuid, self.size)

    def __enter__(self) -> Allocation:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.free()

    def __repr__(self) -> str:
        state = "freed" if self._freed else "held"
        return f"<{readable_amount(self.size)} on {self.uuid}, {state}>"


def allocate(amount: str | int, device: int = 0) -> Allocation:
    """Take device memory from this kernel's cap.

    Args:
        amount: a text such as `"2GiB"`, or bytes.
        device: which of the devices that this process sees, counted from 0 as CUDA does.

    Raises:
        OutOfDeviceMemory: the cap, or the device, has not that much left; the message names the cap.
        RuntimeError: this process has no such simulated device.
    """
    size = parse_amount(amount) if isinstance(amount, str) else int(amount)
    if size < 1:
        raise ValueError(f"{amount!r} is not an amount of memory; write something like '2GiB'")
    account = _account()
    uuids = _seen(account)
    if not 0 <= device < len(uuids):
        there_is = f"devices 0 to {len(uuids) - 1}" if uuids else "no device"
        raise RuntimeError(f"there is no simulated device {device!r} in this process; it has {there_is}")
    uuid = uuids[device]
    with _device_lock():
        _refuse_beyond_device(account, uuid, size)
        account.allocate(uuid, size)
    return Allocation(account, uuid, size)


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """Count the time inside the `with` as utilisation of this process's devices, once however many threads compute."""
    account = _account()
    process = os.getpid()
    with _lock:
        _computing[process] = _computing.get(process, 0) + 1
        if _computing[process] == 1:
            account.begin_busy(time.monotonic_ns())
    try:
        yield
    finally:
        with _lock:
            _computing[process] -= 1
            if not _computing[process]:
                account.end_busy(time.monotonic_ns())


def _account() -> Account:
    """The account of this process's lease, or, without a lease, one of its own."""
    path = os.environ.get("JUPYTER_GPU_ACCOUNT", "")
    key = (os.getpid(), path)
    with _lock:
        if key not in _accounts:
            if path:
                _accounts[key] = Account.open(Path(path))
            else:
                _accounts[key] = _unleased_account()
        return _accounts[key]


def _seen(account: Account) -> Sequence[str]:
    """The devices of the account, or those of them that a worker process was left by CUDA_VISIBLE_DEVICES."""
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return names if set(names) <= set(account.uuids) else account.uuids


def _runtime() -> Path:
    """The runtime directory of whoever started this process: its account lies there, whatever is set here."""
    account = Path(os.environ.get("JUPYTER_GPU_ACCOUNT", ""))
    return account.parent.parent if account.parent.name == "accounts" else private_directory(runtime_directory())


def _unleased_account() -> Account:
    text = os.environ.get(SPECIFICATION_VARIABLE)
    if not text:
        raise RuntimeError(
            f"there are no simulated GPUs here: {SPECIFICATION_VARIABLE} is not set; set it to {EXAMPLE!r} for example"
        )
    me = process_key()
    assert me is not None
    runtime = _runtime()
    private_directory(unleased_directory(runtime))
    devices = [(device.uuid, None, device.memory_bytes) for device in _visible(parse_specification(text))]
    if not devices:
        raise RuntimeError("this process runs on the CPU: it holds no GPU; ask for one, with auto for example")
    return Account.create(unleased_path(runtime, me), "", devices, slot_count=64)


def _visible(devices: Sequence[SimulatedDevice]) -> list[SimulatedDevice]:
    """Those that CUDA_VISIBLE_DEVICES names, in its order, up to the first name that is none's, as CUDA has it."""
    usable = [device for device in devices if not device.mig_enabled]
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is None:
        return usable
    chosen = []
    for name in names.split(","):
        word = name.strip()
        named = [d for d in usable if word and (d.index == word or (word[:4] in _UUIDS and d.uuid.startswith(word)))]
        if len(named) != 1 or named[0] in chosen:
            break
        chosen += named
    return chosen


@contextlib.contextmanager
def _device_lock() -> Iterator[None]:
    """What a driver does inside itself: one allocation at a time on all devices."""
    path = _runtime() / "simulated.lock"
    file = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        # To close it would not do: a child that was forked meanwhile has it open too.
        fcntl.flock(file, fcntl.LOCK_UN)
        os.close(file)


def _refuse_beyond_device(account: Account, uuid: str, size: int) -> None:
    total = next((device.total for device in account.read().devices if device.uuid == uuid), None)
    if total is None:
        return
    used = 0
    for path in account_paths(_runtime()):
        try:
            used += sum(device.used for device in read_account(path).devices if device.uuid == uuid)
        except AccountError:
            continue
    if used + size > total:
        raise OutOfDeviceMemory(
            f"out of memory on {uuid}: {readable_amount(size)} asked for, and {readable_amount(total - used)} of the "
            f"device's {readable_amount(total)} is free; other processes hold the rest"
        )
