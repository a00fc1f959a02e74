"""What the driver takes for itself, worked out from what it shows: the memory that no account counts.

A context and loaded modules take some hundred MiB in each process and pass no hook. What the driver shows of a lease's
processes, less what their account counts, is that, where both were still for some samples in a row. It is taken off
what the lease may allocate, so that its cap is about what the driver's own tools show. Pure: figures come in, and what
is to be noted in the accounts comes out.

It errs on the side of too little: a lease is never left with less than its processes have had at once so far, nor with
less than half its cap, and one process counts for no more than a limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..devices.processes import ProcessKey

_STEADY_BYTES = 32 << 20
"""What the driver shows may differ by so much between samples of a program that does nothing."""


@dataclass(frozen=True)
class Sample:
    """One lease on one device at one moment, in bytes."""

    lease_id: str
    uuid: str
    seen_bytes: int | None
    """What the driver shows of the lease's processes; `None` where it does not, or shows one that has no place in the
    account: what such a process holds is counted by nobody, and is no overhead."""
    processes: frozenset[ProcessKey]
    """Those that the driver shows."""
    counted_bytes: int
    """What the account counts."""
    peak_bytes: int
    """The most that it counted at once."""
    cap_bytes: int | None
    noted_bytes: int
    """What it says now of what the driver took for itself."""


class Overhead(NamedTuple):
    """What the driver took for itself, in bytes."""

    measured_bytes: int
    noted_bytes: int
    """How much of that the lease's cap has been lowered by."""


NO_OVERHEAD = Overhead(0, 0)


class OverheadMeter:
    """Remembers what was seen of each lease on each device for as long as it is looked at."""

    def __init__(self, most_per_process_bytes: int, samples: int = 3) -> None:
        """Nothing was seen yet.

        Args:
            most_per_process_bytes: what counts as the driver's own at most in one process.
            samples: how many in a row have to say the same.
        """
        self._most_per_process_bytes = most_per_process_bytes
        self._samples = samples
        self._known: dict[tuple[str, str], _Tree] = {}

    def look(self, samples: Iterable[Sample]) -> list[tuple[Sample, int]]:
        """The samples whose accounts have to say something else now, and what, in bytes.

        Args:
            samples: all leases that are to be looked after, on all their devices; who is left out is forgotten.
        """
        known, changed = {}, []
        for sample in samples:
            key = (sample.lease_id, sample.uuid)
            tree = known[key] = self._known.get(key) or _Tree()
            tree.add(sample, self._samples, self._most_per_process_bytes)
            if tree.overhead.noted_bytes != sample.noted_bytes:
                changed.append((sample, tree.overhead.noted_bytes))
        self._known = known
        return changed

    def overhead(self, lease_id: str, uuid: str) -> Overhead:
        """What is known of a lease on a device."""
        tree = self._known.get((lease_id, uuid))
        return NO_OVERHEAD if tree is None else tree.overhead


class _Tree:
    """What was seen of one lease's processes on one device."""

    def __init__(self) -> None:
        self.overhead = NO_OVERHEAD
        self._processes: frozenset[ProcessKey] = frozenset()
        """Those for which it was measured."""
        self._there: frozenset[ProcessKey] = frozenset()
        """Those that were there last."""
        self._most_bytes = 0
        """The most that was counted at once while one of them was there: an account's own peak may begin anew."""
        self._still: tuple[int, frozenset[ProcessKey]] | None = None
        """What was counted in which processes in all of these:"""
        self._rests: list[int] = []

    def add(self, sample: Sample, samples: int, most_per_process_bytes: int) -> None:
        measured = self._of_those_left(sample.processes)
        most_bytes = self._most_bytes if self._there & sample.processes else 0
        self._there, self._most_bytes = sample.processes, max(sample.counted_bytes, sample.peak_bytes, most_bytes)
        rest = None if sample.seen_bytes is None else sample.seen_bytes - sample.counted_bytes
        if rest is None or rest < 0 or not sample.processes:
            self._still, self._rests = None, []
        else:
            still = (sample.counted_bytes, sample.processes)
            if still != self._still or max(*self._rests, rest) - min(*self._rests, rest) > _STEADY_BYTES:
                self._still, self._rests = still, []
            self._rests = [*self._rests, rest][-samples:]
            if len(self._rests) == samples:
                measured = min(*self._rests, most_per_process_bytes * len(sample.processes))
                self._processes = sample.processes
        self.overhead = Overhead(measured, self._noted(measured, sample.cap_bytes))

    def _of_those_left(self, processes: frozenset[ProcessKey]) -> int:
        """What was measured, less the share of the processes that have ended since."""
        left = self._processes & processes
        measured = self.overhead.measured_bytes
        if left != self._processes:
            measured = measured * len(left) // len(self._processes)
            self._processes = left
        return measured

    def _noted(self, measured: int, cap: int | None) -> int:
        if cap is None:
            return measured
        return max(0, min(measured, cap // 2, cap - self._most_bytes))
