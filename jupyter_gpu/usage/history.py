"""What devices and kernels used over time, in bounded memory: every sample for minutes, a summary for hours.

All series share the times of the samples, so a series is two columns of numbers that are as long as those. A summary
point stands for the samples of one step, and has the time of the last: the most memory, and the mean utilisation.
"""

from __future__ import annotations

import json
import threading
from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .snapshot import Snapshot

SeriesKey = tuple[str, str]
"""Kernel id and UUID; an empty kernel id stands for the device itself."""
Value = tuple[int, int]
"""Bytes in use and percent of utilisation."""

_UNKNOWN = -1
_GAP = (_UNKNOWN, _UNKNOWN)
_SPARE = 0.25
"""The part by which columns may outgrow their length, so that they are cut now and then rather than every time."""


class History:
    """The series of one server. Samples go in from one thread, and anybody may read."""

    def __init__(
        self,
        *,
        fine_points: int = 600,
        coarse_points: int = 720,
        coarse_step_s: float = 60.0,
        gone_for_s: float = 600.0,
    ) -> None:
        """Nothing is known yet.

        Args:
            fine_points: how many samples are kept as they are.
            coarse_points: how many summary points are kept.
            coarse_step_s: how much time one of those stands for.
            gone_for_s: how long the series of a device or kernel is kept that is not there any more.
        """
        self._lock = threading.Lock()
        self._fine = _Tier(fine_points)
        self._coarse = _Tier(coarse_points)
        self._coarse_step_s = coarse_step_s
        self._gone_for_s = gone_for_s
        self._unsummed = 0
        """How many of the last samples no summary point stands for yet."""

    @property
    def time(self) -> float:
        """When the last sample was taken, in seconds since the epoch; 0 before the first."""
        return self._fine.last_time

    def add(self, snapshot: Snapshot) -> None:
        """Take in a sample. One that is not later than the last changes nothing."""
        values = _values(snapshot)
        with self._lock:
            if snapshot.time <= self.time:
                return
            self._fine.add(snapshot.time, values)
            self._unsummed += 1
            if snapshot.time - self._coarse.last_time >= self._coarse_step_s:
                self._coarse.add(snapshot.time, self._fine.summary(self._unsummed))
                self._unsummed = 0
                for tier in (self._fine, self._coarse):
                    tier.drop_gone(snapshot.time - self._gone_for_s)

    def body(self, since: float, step_s: float) -> bytes:
        """What was seen after `since` (seconds since the epoch), as the JSON that clients get.

        Args:
            since: the time of the last answer; 0 for all there is.
            step_s: the time between two samples, to be told along.
        """
        with self._lock:
            time, begin = self.time, self._fine.first_time
            parts = [self._fine.between(since)]
            if since < begin:
                parts.insert(0, self._coarse.between(since, begin))
        devices: list[str] = []
        kernels: dict[str, list[str]] = {}
        for (kernel_id, uuid), text in _texts(parts):
            (kernels.setdefault(kernel_id, []) if kernel_id else devices).append(f"{json.dumps(uuid)}:{text}")
        by_kernel = ",".join(f"{json.dumps(kernel_id)}:{{{','.join(texts)}}}" for kernel_id, texts in kernels.items())
        whole = f'{{"time":{time!r},"step_s":{step_s!r},"devices":{{{",".join(devices)}}},"kernels":{{{by_kernel}}}}}'
        return whole.encode()


class _Columns:
    """The numbers of one series; `_UNKNOWN` is what is not known, or was not there."""

    __slots__ = ("memory", "seen", "utilization")

    def __init__(self, memory: array[int], utilization: array[int], seen: float) -> None:
        self.memory = memory
        self.utilization = utilization
        self.seen = seen
        """When anything was known last."""

    def summary(self, count: int) -> Value:
        """The most memory and the mean utilisation of the last `count` samples."""
        known = [percent for percent in self.utilization[-count:] if percent != _UNKNOWN]
        mean = round(sum(known) / len(known)) if known else _UNKNOWN
        return max(self.memory[-count:], default=_UNKNOWN), mean


class _Tier:
    """Series of the same times."""

    def __init__(self, points: int) -> None:
        self._points = points
        self.times = array("d")
        self.series: dict[SeriesKey, _Columns] = {}

    @property
    def first_time(self) -> float:
        return self.times[0] if self.times else 0.0

    @property
    def last_time(self) -> float:
        return self.times[-1] if self.times else 0.0

    def add(self, time: float, values: Mapping[SeriesKey, Value]) -> None:
        """Add a point to every series, and begin those that are new."""
        for key in values.keys() - self.series.keys():
            gap = [_UNKNOWN] * len(self.times)
            self.series[key] = _Columns(array("q", gap), array("h", gap), time)
        self.times.append(time)
        for key, columns in self.series.items():
            value = values.get(key, _GAP)
            columns.memory.append(value[0])
            columns.utilization.append(value[1])
            if value != _GAP:
                columns.seen = time
        if len(self.times) > self._points * (1 + _SPARE):
            old = slice(0, len(self.times) - self._points)
            del self.times[old]
            for columns in self.series.values():
                del columns.memory[old]
                del columns.utilization[old]

    def summary(self, count: int) -> dict[SeriesKey, Value]:
        """What stands for the last `count` points of every series."""
        return {key: columns.summary(count) for key, columns in self.series.items()}

    def between(self, after: float, before: float = float("inf")) -> _Tier:
        """A copy of the points later than `after` and earlier than `before`."""
        part = slice(bisect_right(self.times, after), bisect_left(self.times, before))
        copy = _Tier(self._points)
        copy.times = self.times[part]
        copy.series = {
            key: _Columns(columns.memory[part], columns.utilization[part], columns.seen)
            for key, columns in self.series.items()
        }
        return copy

    def drop_gone(self, before: float) -> None:
        """Forget the series of which nothing was known since."""
        for key in [key for key, columns in self.series.items() if columns.seen < before]:
            del self.series[key]


def _values(snapshot: Snapshot) -> dict[SeriesKey, Value]:
    values: dict[SeriesKey, Value] = {
        ("", uuid): (
            _UNKNOWN if usage.memory_used_bytes is None else usage.memory_used_bytes,
            _UNKNOWN if usage.utilization_percent is None else round(usage.utilization_percent),
        )
        for uuid, usage in snapshot.survey.usage.items()
    }
    for (lease_id, uuid), use in snapshot.uses.items():
        kernel_id = snapshot.lease_of[lease_id].owner.kernel_id
        if kernel_id is not None:
            # A kernel has two leases while it moves from one to the other.
            memory, utilization = values.get((kernel_id, uuid), _GAP)
            values[kernel_id, uuid] = (
                memory if use.used_bytes is None else max(memory, use.used_bytes),
                utilization if use.utilization_percent is None else max(utilization, round(use.utilization_percent)),
            )
    return values


def _texts(parts: Sequence[_Tier]) -> Iterator[tuple[SeriesKey, str]]:
    """The JSON of each series: its times and columns, without the moments of which nothing is known."""
    # In many small steps: one big one would keep the event loop's thread waiting for the interpreter.
    for key in dict.fromkeys(key for part in parts for key in part.series):
        times: list[float] = []
        memory: list[int | None] = []
        utilization: list[int | None] = []
        for part in parts:
            columns = part.series.get(key)
            if columns is not None:
                for time, size, percent in zip(part.times, columns.memory, columns.utilization, strict=True):
                    if size != _UNKNOWN or percent != _UNKNOWN:
                        times.append(time)
                        memory.append(None if size == _UNKNOWN else size)
                        utilization.append(None if percent == _UNKNOWN else percent)
        if times:
            columns_text = json.dumps({"t": times, "memory": memory, "utilization": utilization}, separators=(",", ":"))
            yield key, columns_text
