"""What this kernel holds, as it can tell by itself: from its environment, its account, and the driver."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..limits.account import Account, AccountError
from .driver import Driver, DriverError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..limits.account import AccountReading
    from .environment import Environment

_SIMULATION = "JUPYTER_GPU_SIMULATE"
_INTERPOSER_NAMES = ("interposer-", "libinterposer")
NO_DEVICES = ("", "-1", "NoDevFiles")


@dataclass(frozen=True)
class DeviceName:
    """How people know a device."""

    index: str | None
    name: str | None
    memory_bytes: int | None

    def label(self, uuid: str) -> str:
        """`GPU 1`, or the beginning of the UUID where no index is known."""
        return f"GPU {self.index}" if self.index else uuid[:12]


@dataclass(frozen=True)
class DeviceCap:
    """How much of a device this kernel may have, in bytes. `None` is no cap, or unknown."""

    ordinal: int
    uuid: str
    cap: int | None
    total: int | None


@dataclass(frozen=True)
class KernelDevice:
    """One device of this kernel. Memory is in bytes; `None` is unknown, and the reason stands in `reason`."""

    ordinal: int
    """As CUDA counts the devices of this process."""
    uuid: str
    index: str | None
    """NVML's, for people."""
    name: str | None
    cap: int | None
    """The most that this kernel's processes may hold together; `None` is no cap, or unknown."""
    total: int | None
    used: int | None
    """By all processes of this kernel."""
    own: int | None
    """By this process."""
    peak: int | None
    refusals: int
    reason: str = ""
    overhead: int = 0
    """What the driver took for itself in its processes, as far as it was measured; it is off the cap."""

    @property
    def label(self) -> str:
        """`GPU 1`, or the beginning of the UUID where no index is known."""
        return DeviceName(self.index, self.name, self.total).label(self.uuid)


class LeaseView:
    """Reads what the kernel was given, again on every call, because a lease changes while the kernel runs."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._names: dict[str, DeviceName] = {}
        self._account: Account | None = None
        self._driver: Driver | None = None
        self._driver_reason: str | None = None

    @property
    def lease_id(self) -> str:
        """The lease; empty where the kernel was started without one."""
        return self._environment.value("JUPYTER_GPU_LEASE") or ""

    @property
    def socket_path(self) -> str:
        """The server's socket; empty where there is none."""
        return self._environment.value("JUPYTER_GPU_SOCKET") or ""

    @property
    def is_cpu(self) -> bool:
        """Whether the kernel was told to have no device."""
        visible = self._environment.value("CUDA_VISIBLE_DEVICES")
        return visible is not None and visible.strip() in NO_DEVICES

    @property
    def is_simulated(self) -> bool:
        """Whether the devices are simulated, by request."""
        return bool(self._environment.value(_SIMULATION))

    @property
    def is_interposed(self) -> bool:
        """Whether the interposer answers for the driver in this process."""
        preload = (self._environment.value("LD_PRELOAD") or "").replace(":", " ").split()
        libraries = [path for path in preload if os.path.basename(path).startswith(_INTERPOSER_NAMES)]  # noqa: PTH119
        if not libraries:
            return False
        try:
            with open("/proc/self/maps", errors="replace") as file:  # noqa: PTH123
                mapped = file.read()
        except OSError:
            return False
        return any(path in mapped for path in libraries)

    @property
    def is_counted(self) -> bool:
        """Whether every allocation of this process is on its account, so that the account's figures are exact."""
        return self.is_simulated or self.is_interposed

    def learn(self, uuid: str, name: DeviceName) -> None:
        """Remember what the server calls a device."""
        self._names[uuid] = name

    def account(self) -> Account:
        """The kernel's account.

        Raises:
            AccountError: it has none, or the file cannot be used.
        """
        path = self._environment.value("JUPYTER_GPU_ACCOUNT") or ""
        if not path:
            raise AccountError("this kernel has no account (JUPYTER_GPU_ACCOUNT is not set)")
        if self._account is None or str(self._account.path) != path:
            self._account = Account.open(Path(path))
        return self._account

    def driver(self) -> Driver:
        """NVML, opened on first use.

        Raises:
            DriverError: there is none.
        """
        if self._driver_reason is not None:
            raise DriverError(self._driver_reason)
        if self._driver is None:
            try:
                self._driver = Driver()
            except DriverError as error:
                self._driver_reason = str(error)
                raise
        return self._driver

    def uuids(self) -> list[str]:
        """The kernel's devices in CUDA's order: what CUDA_VISIBLE_DEVICES names, else the account, else all."""
        if self.is_cpu:
            return []
        visible = [word.strip() for word in (self._environment.value("CUDA_VISIBLE_DEVICES") or "").split(",")]
        visible = [word for word in visible if word]
        if visible and all(word.startswith(("GPU-", "MIG-")) for word in visible):
            return visible
        try:
            return list(self.account().uuids)
        except AccountError:
            pass
        every = [uuid for uuid, _ in self._all_devices()]
        if visible and all(word.isdigit() and int(word) < len(every) for word in visible):
            return [every[int(word)] for word in visible]
        return every

    def caps(self) -> list[DeviceCap]:
        """The kernel's devices with their caps, from the account alone: quick, and no driver is asked."""
        try:
            account = self.account()
            entries = {device.uuid: device for device in account.read().devices}
        except AccountError:
            entries = {}
        found = []
        for ordinal, uuid in enumerate(self.uuids()):
            entry = entries.get(uuid)
            total = None if entry is None else entry.total
            cap = None if entry is None else entry.cap
            cap = cap if cap is None or total is None else min(cap, total)
            found.append(DeviceCap(ordinal, uuid, cap, total))
        return found

    def devices(self) -> list[KernelDevice]:
        """The kernel's devices with what is known of them now."""
        reading: AccountReading | None = None
        reason = ""
        try:
            reading = self.account().read()
        except AccountError as error:
            reason = str(error)
        counted = self.is_counted
        return [self._device(ordinal, uuid, reading, reason, counted) for ordinal, uuid in enumerate(self.uuids())]

    def _device(
        self, ordinal: int, uuid: str, reading: AccountReading | None, reason: str, counted: bool
    ) -> KernelDevice:
        name = self.named(uuid)
        entry = next((device for device in reading.devices if device.uuid == uuid), None) if reading else None
        if reading is None or entry is None:
            used = self._driver_use(uuid)
            why = "" if used is not None else (reason or "the account of this kernel does not have this device")
            return KernelDevice(ordinal, uuid, name.index, name.name, None, name.memory_bytes, used, used, None, 0, why)
        at = reading.devices.index(entry)
        cap = entry.cap if entry.cap is None or entry.total is None else min(entry.cap, entry.total)
        total = entry.total or name.memory_bytes
        if counted or entry.used:
            own = sum(held[at] for process, held in reading.processes.items() if process.pid == os.getpid())
            return KernelDevice(
                ordinal, uuid, name.index, name.name, cap, total, entry.used, own, entry.peak, entry.refusals,
                overhead=entry.overhead,
            )  # fmt: skip
        # Nobody counts into the account, so its zeros say nothing.
        own_use = self._driver_use(uuid)
        why = "" if own_use is not None else "no cap layer counts this kernel's memory, and the driver does not tell"
        return KernelDevice(ordinal, uuid, name.index, name.name, cap, total, own_use, own_use, None, 0, why)

    def named(self, uuid: str) -> DeviceName:
        """Index, name and memory of a device; each `None` where nobody tells."""
        if uuid not in self._names:
            for each, name in self._all_devices():
                self._names.setdefault(each, name)
        if uuid not in self._names:
            described = None
            try:
                described = self.driver().device(uuid)
            except DriverError:
                pass
            self._names[uuid] = (
                DeviceName(None, None, None)
                if described is None
                else DeviceName(described.index or None, described.name, described.memory_bytes)
            )
        return self._names[uuid]

    def all_devices(self) -> list[tuple[str, DeviceName]]:
        """Every device of this host that can be seen without a server: UUID and names."""
        return self._all_devices()

    def _all_devices(self) -> list[tuple[str, DeviceName]]:
        text = self._environment.value(_SIMULATION)
        if text:
            from ..devices.simulation import parse_specification  # noqa: PLC0415 - only where it is asked for

            try:
                simulated = parse_specification(text)
            except ValueError:
                return []
            return [(device.uuid, DeviceName(device.index, device.name, device.memory_bytes)) for device in simulated]
        try:
            devices = self.driver().devices()
        except DriverError:
            return []
        return [(device.uuid, DeviceName(device.index, device.name, device.memory_bytes)) for device in devices]

    def _driver_use(self, uuid: str) -> int | None:
        try:
            return self.driver().reading(uuid, os.getpid()).own_bytes
        except DriverError:
            return None
