"""What devices and kernels used over time, in bounded memory: every sample for minutes, a summary for hours.

A sample is kept as one row of numbers, which costs next to nothing every second; the columns that clients want are
made when they ask. A summary row stands for the samples of one step, and has the time of the last of them: the most
memory, and the mean utilisation.
"""

from __future__ import annotations

import json
import threading
from array import array
from collections import deque
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..leases.lease import Lease
    from .snapshot import Snapshot

SeriesKey = tuple[str, str]
"""Kernel id and UUID; an empty kernel id stands for the device itself."""
Layout = tuple[SeriesKey | None, ...]
"""Which series each number of a row belongs to. `None` is nobody's who has one, two may belong to the same."""

_UNKNOWN = -1


class _Row(NamedTuple):
    time: float
    layout: Layout
    memory: array[int]
    """Bytes in use; `_UNKNOWN` is unknown."""
    utilization: array[int]
    """Percent; `_UNKNOWN` is unknown."""


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
            coarse_points: how many summaries are kept.
            coarse_step_s: how much time one of those stands for.
            gone_for_s: how long the series of a device or kernel is told that is not there any more.
        """
        self._lock = threading.Lock()
        self._fine: deque[_Row] = deque(maxlen=fine_points)
        self._coarse: deque[_Row] = deque(maxlen=coarse_points)
        self._step: list[_Row] = []
        """The samples that no summary stands for yet."""
        self._coarse_step_s = coarse_step_s
        self._gone_for_s = gone_for_s
        self._layout: Layout = ()
        self._laid_out: tuple[Mapping[str, Lease], tuple[str, ...], int] | None = None
        """What the layout was made for: the leases, the devices, and how many holds there are."""

    @property
    def time(self) -> float:
        """When the last sample was taken, in seconds since the epoch; 0 before the first."""
        return self._fine[-1].time if self._fine else 0.0

    def add(self, snapshot: Snapshot) -> None:
        """Take in a sample. One that is not later than the last changes nothing."""
        usages, uses = snapshot.survey.usage.values(), snapshot.uses.values()
        memory = [usage.memory_used_bytes for usage in usages] + [use.used_bytes for use in uses]
        percent = [usage.utilization_percent for usage in usages] + [use.utilization_percent for use in uses]
        row = _Row(
            snapshot.time,
            self._layout_of(snapshot),
            array("q", [_UNKNOWN if size is None else size for size in memory]),
            array("h", [_UNKNOWN if part is None else round(part) for part in percent]),
        )
        with self._lock:
            if snapshot.time <= self.time:
                return
            self._fine.append(row)
            self._step.append(row)
            since = self._coarse[-1].time if self._coarse else 0.0
            if snapshot.time - since >= self._coarse_step_s or len(self._step) >= (self._fine.maxlen or 0):
                self._coarse.append(_summary(self._step))
                self._step = []

    def body(self, since: float, step_s: float) -> bytes:
        """What was seen after `since` (seconds since the epoch), as the JSON that clients get.

        Args:
            since: the time of the last answer; 0 for all there is.
            step_s: the time between two samples, to be told along.
        """
        with self._lock:
            time, begin = self.time, self._fine[0].time if self._fine else 0.0
            rows = [row for row in self._coarse if since < row.time < begin]
            rows += [row for row in self._fine if row.time > since]
        gone = {key for key, seen in _last_seen(rows).items() if seen < time - self._gone_for_s}
        devices: list[str] = []
        kernels: dict[str, list[str]] = {}
        for (kernel_id, uuid), columns in _columns(rows):
            if (kernel_id, uuid) not in gone and columns.t:
                # Each by itself: one long text would keep the event loop's thread waiting for the interpreter.
                text = f"{json.dumps(uuid)}:{json.dumps(columns._asdict(), separators=(',', ':'))}"
                (kernels.setdefault(kernel_id, []) if kernel_id else devices).append(text)
        by_kernel = ",".join(f"{json.dumps(kernel_id)}:{{{','.join(texts)}}}" for kernel_id, texts in kernels.items())
        whole = f'{{"time":{time!r},"step_s":{step_s!r},"devices":{{{",".join(devices)}}},"kernels":{{{by_kernel}}}}}'
        return whole.encode()

    def _layout_of(self, snapshot: Snapshot) -> Layout:
        devices = tuple(snapshot.survey.usage)
        made_for = self._laid_out
        # As long as the leases are the same ones, so are their holds and their order.
        if made_for is None or made_for[0] is not snapshot.lease_of or made_for[1:] != (devices, len(snapshot.uses)):
            self._laid_out = (snapshot.lease_of, devices, len(snapshot.uses))
            kernels = [(snapshot.lease_of[lease_id].owner.kernel_id, uuid) for lease_id, uuid in snapshot.uses]
            self._layout = (
                *[("", uuid) for uuid in devices],
                *[(kernel_id, uuid) if kernel_id else None for kernel_id, uuid in kernels],
            )
        return self._layout


class _Columns(NamedTuple):
    """One series as clients get it."""

    t: list[float]
    memory: list[int | None]
    utilization: list[int | None]


def _columns(rows: Iterable[_Row]) -> Iterator[tuple[SeriesKey, _Columns]]:
    """Every series of the rows, without the moments of which nothing is known."""
    found: dict[SeriesKey, _Columns] = {}
    for layout, same in groupby(rows, lambda row: row.layout):
        stretch = list(same)
        times = [row.time for row in stretch]
        memories = list(zip(*[row.memory for row in stretch], strict=True))
        utilizations = list(zip(*[row.utilization for row in stretch], strict=True))
        for key, places in _places(layout).items():
            memory, utilization = memories[places[0]], utilizations[places[0]]
            for place in places[1:]:
                memory = tuple(map(max, memory, memories[place]))
                utilization = tuple(map(max, utilization, utilizations[place]))
            _append(found.setdefault(key, _Columns([], [], [])), times, memory, utilization)
    yield from found.items()


def _append(columns: _Columns, times: list[float], memory: Iterable[int], utilization: Iterable[int]) -> None:
    for time, size, percent in zip(times, memory, utilization, strict=True):
        if size != _UNKNOWN or percent != _UNKNOWN:
            columns.t.append(time)
            columns.memory.append(None if size == _UNKNOWN else size)
            columns.utilization.append(None if percent == _UNKNOWN else percent)


def _places(layout: Layout) -> dict[SeriesKey, list[int]]:
    """Where the numbers of each series are. A kernel has two leases while it moves from one to the other."""
    places: dict[SeriesKey, list[int]] = {}
    for place, key in enumerate(layout):
        if key is not None:
            places.setdefault(key, []).append(place)
    return places


def _last_seen(rows: Iterable[_Row]) -> dict[SeriesKey, float]:
    """When each series was there last."""
    return {key: row.time for row in rows for key in row.layout if key is not None}


def _summary(rows: list[_Row]) -> _Row:
    """One row that stands for all of them."""
    layout, memory, utilization = [], array("q"), array("h")
    for key, columns in _columns(rows):
        known = [percent for percent in columns.utilization if percent is not None]
        layout.append(key)
        memory.append(max((size for size in columns.memory if size is not None), default=_UNKNOWN))
        utilization.append(round(sum(known) / len(known)) if known else _UNKNOWN)
    return _Row(rows[-1].time, tuple(layout), memory, utilization)
