"""What one cell did to the devices: peak and change of memory, utilisation, energy, time.

Memory comes from the account where something counts into it, which is exact; else from the driver, sampled. While the
cell runs, the account's peak is begun anew, and afterwards it is what it would have been. Utilisation and energy are
the driver's and so the whole device's, whoever used it; simulated devices count their own.
"""

from __future__ import annotations

import os
import threading
import time
from typing import NamedTuple

from ..devices.amount import readable_amount
from ..limits.account import AccountError
from .driver import DriverError
from .report import Lines, Report, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..limits.account import Account
    from .driver import DriverReading
    from .lease import LeaseView

_SAMPLE_EVERY_S = 0.1
"""NVML's own windows are 1/6 to 1 s: more often would repeat its figures."""
_NANO = 1e-9


class DeviceMeasurement(NamedTuple):
    """One device over one cell. `None` is unknown, and `reasons` says why."""

    uuid: str
    label: str
    before_bytes: int | None
    after_bytes: int | None
    peak_bytes: int | None
    peak_kind: str | None
    """`exact` or `sampled`."""
    utilization_percent: float | None
    energy_joules: float | None
    reasons: dict[str, str]

    @property
    def change_bytes(self) -> int | None:
        """What the cell left more or less than it found."""
        if self.before_bytes is None or self.after_bytes is None:
            return None
        return self.after_bytes - self.before_bytes


class Measurement:
    """Measures from `begin` to `end`.

    Args:
        lease: the kernel's devices.
        clock: seconds that only grow.
    """

    def __init__(self, lease: LeaseView, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease = lease
        self._clock = clock
        self._began_s = 0.0
        self._began_ns = 0
        self._account: Account | None = None
        self._account_reason = ""
        self._before: dict[str, int] = {}
        self._peaks_before: dict[str, int] = {}
        self._busy_before: dict[Any, int] = {}
        self._sampler: _Sampler | None = None
        self._driver_reason = ""

    def begin(self) -> None:
        """Take down what is the case now. What cannot be read is left out, and `end` says why."""
        uuids = self._lease.uuids()
        try:
            self._account = self._lease.account()
            for device in self._account.read().devices:
                self._before[device.uuid] = device.used
                self._peaks_before[device.uuid] = self._account.reset_peak(device.uuid)
            self._began_ns = time.monotonic_ns() if hasattr(time, "monotonic_ns") else int(time.monotonic() / _NANO)
            self._busy_before = self._account.busy(self._began_ns)
        except (AccountError, OSError) as error:
            self._account, self._account_reason = None, str(error)
        try:
            driver = self._lease.driver()
            self._sampler = _Sampler(lambda uuid: driver.reading(uuid, os.getpid()), uuids)
            self._sampler.start()
        except DriverError as error:
            self._driver_reason = str(error)
        self._began_s = self._clock()

    def end(self) -> CellReport:
        """What happened since `begin`."""
        seconds = self._clock() - self._began_s
        if self._sampler is not None:
            self._sampler.stop()
        devices = [self._measured(uuid) for uuid in self._lease.uuids()]
        return CellReport(seconds, devices)

    def _measured(self, uuid: str) -> DeviceMeasurement:
        reasons: dict[str, str] = {}
        name = self._lease.named(uuid)
        label = f"GPU {name.index}" if name.index else uuid[:12]
        samples = self._sampler.samples.get(uuid, []) if self._sampler is not None else []
        before, after, peak, kind = self._memory(uuid, samples)
        if peak is None:
            reasons["peak_bytes"] = (
                self._account_reason or self._driver_reason or "no cap layer counts, and the driver does not tell"
            )
        utilization = self._utilization(samples)
        if utilization is None:
            reasons["utilization_percent"] = self._driver_reason or "the driver does not tell"
        energy = _energy(samples)
        if energy is None:
            reasons["energy_joules"] = self._driver_reason or "the driver does not tell"
        return DeviceMeasurement(uuid, label, before, after, peak, kind, utilization, energy, reasons)

    def _memory(
        self, uuid: str, samples: Sequence[tuple[float, DriverReading]]
    ) -> tuple[int | None, int | None, int | None, str | None]:
        own = [reading.own_bytes for _, reading in samples if reading.own_bytes is not None]
        if self._account is not None and uuid in self._before:
            device = next(each for each in self._account.read().devices if each.uuid == uuid)
            earlier = self._peaks_before[uuid]
            self._account.raise_peak(uuid, earlier)
            if self._lease.is_counted:
                return self._before[uuid], device.used, max(device.peak, device.used), "exact"
        if own:
            return own[0], own[-1], max(own), "sampled"
        return None, None, None, None

    def _utilization(self, samples: Sequence[tuple[float, DriverReading]]) -> float | None:
        told = [each.utilization_percent for _, each in samples if each.utilization_percent is not None]
        if told:
            return sum(told) / len(told)
        if self._account is None or not self._lease.is_simulated:
            return None
        now = time.monotonic_ns() if hasattr(time, "monotonic_ns") else int(time.monotonic() / _NANO)
        busy = self._account.busy(now)
        spent = sum(spent - self._busy_before.get(process, 0) for process, spent in busy.items())
        return min(100.0, max(0.0, 100.0 * spent / max(1, now - self._began_ns)))


class CellReport:
    """What one cell did.

    Args:
        seconds: how long it ran.
        devices: what it did to each of the kernel's devices.
    """

    def __init__(self, seconds: float, devices: Sequence[DeviceMeasurement]) -> None:
        self.seconds = seconds
        self.devices = list(devices)

    def report(self, *, as_json: bool = False) -> Report:
        """The same as `%gpu` answers."""
        content = {
            "seconds": self.seconds,
            "devices": [
                {**each._asdict(), "change_bytes": each.change_bytes, "reasons": dict(each.reasons)}
                for each in self.devices
            ],
        }
        if not self.devices:
            return Report(
                content, [Lines((f"{_duration(self.seconds)} on the CPU; this kernel has no GPU.",))], as_json=as_json
            )
        rows = [
            [
                each.label,
                _peak(each),
                _change(each.change_bytes),
                "?" if each.utilization_percent is None else f"{each.utilization_percent:.0f} %",
                "?" if each.energy_joules is None else _energy_words(each.energy_joules),
                _duration(self.seconds),
            ]
            for each in self.devices
        ]
        return Report(content, [Table(("GPU", "peak", "change", "busy", "energy", "time"), rows)], as_json=as_json)


class _Sampler(threading.Thread):
    """Reads the driver a few times a second, and at both ends."""

    def __init__(self, read: Callable[[str], DriverReading], uuids: Sequence[str]) -> None:
        super().__init__(name="jupyter_gpu measurement", daemon=True)
        self._read = read
        self._uuids = list(uuids)
        self._ended = threading.Event()
        self.samples: dict[str, list[tuple[float, DriverReading]]] = {uuid: [] for uuid in uuids}
        self._sample()

    def run(self) -> None:
        while not self._ended.wait(_SAMPLE_EVERY_S):
            self._sample()

    def stop(self) -> None:
        """Take the last sample and end."""
        self._ended.set()
        self.join()
        self._sample()

    def _sample(self) -> None:
        for uuid in self._uuids:
            self.samples[uuid].append((time.monotonic(), self._read(uuid)))


def _energy(samples: Sequence[tuple[float, DriverReading]]) -> float | None:
    """Joules over the samples: the driver's counter where there is one, else power over time."""
    counted = [reading.energy_joules for _, reading in samples if reading.energy_joules is not None]
    if len(counted) > 1:
        return counted[-1] - counted[0]
    drawn = [(at, reading.power_watts) for at, reading in samples if reading.power_watts is not None]
    if len(drawn) < 2:
        return None
    return sum((first[1] + second[1]) / 2 * (second[0] - first[0]) for first, second in zip(drawn, drawn[1:]))


def _peak(device: DeviceMeasurement) -> str:
    if device.peak_bytes is None:
        return "?"
    return readable_amount(device.peak_bytes) + (" (sampled)" if device.peak_kind == "sampled" else "")


def _change(amount: int | None) -> str:
    if amount is None:
        return "?"
    return ("+" if amount > 0 else "−" if amount < 0 else "±") + readable_amount(abs(amount))


def _energy_words(joules: float) -> str:
    return f"{joules:.1f} J" if joules < 1000 else f"{joules / 3600:.2f} Wh"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
