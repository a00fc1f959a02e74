"""What is remembered of each lease on each device from one sample to the next: its peak, and when it was last busy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..devices.processes import ProcessKey
    from .attribution import LeaseUse

EXACT, SAMPLED = "exact", "sampled"
Key = tuple[str, str]
"""A lease's id, and a device's UUID."""


class Mark(NamedTuple):
    """The most that a lease's process used of a device since its start, or since it was first looked at."""

    peak_bytes: int | None
    peak_kind: str | None
    """`exact`: every allocation was counted; `sampled`: the most of all samples, which may have missed more."""


NO_MARK = Mark(None, None)


@dataclass(slots=True)
class _Memory:
    process: ProcessKey | None
    sampled: int = -1
    """The most bytes of all samples; -1 before the first."""


class Marks:
    """The marks of all leases. Not safe for several threads at once."""

    def __init__(self) -> None:
        self._memories: dict[Key, _Memory] = {}
        self._marks: dict[Key, Mark] = {}
        self._busy_at: dict[Key, float] = {}

    def update(
        self,
        time: float,
        processes: Mapping[str, ProcessKey | None],
        uses: Mapping[Key, LeaseUse],
        idle_percent: float,
    ) -> tuple[dict[Key, Mark], dict[Key, float]]:
        """Take a sample in.

        Args:
            time: when it was taken, in seconds since the epoch.
            processes: the process that uses each lease, by the lease's id.
            uses: what they use of their devices.
            idle_percent: up to this utilisation a device counts as idle.

        Returns:
            What is known of each lease on each device then; and the time of the last sample in which its processes
            kept the device busy, for those where that was so.
        """
        memories, marks, busy_at = self._memories, self._marks, self._busy_at
        for key, use in uses.items():
            used, _, utilization, _, counted, _ = use
            memory = memories.get(key)
            if memory is None or memory.process != processes[key[0]]:
                memory = memories[key] = _Memory(processes[key[0]])
                marks[key] = NO_MARK
                busy_at.pop(key, None)
            if utilization is not None and utilization > idle_percent:
                busy_at[key] = time
            if counted or (used is not None and used > memory.sampled):
                memory.sampled = max(memory.sampled, -1 if used is None else used)
                marks[key] = _mark(use, memory.sampled)
        if len(memories) > len(uses):
            for remembered in (memories, marks, busy_at):
                for key in remembered.keys() - uses.keys():
                    del remembered[key]
        # Whoever gets them keeps them.
        return dict(marks), dict(busy_at)


def _mark(use: LeaseUse, sampled: int) -> Mark:
    if use.counted and use.account is not None:
        counted = use.account.peak + use.account.overhead
        # More seen than was counted: something took memory past the account, so its peak is not the peak.
        if counted >= sampled:
            return Mark(counted, EXACT)
    return NO_MARK if sampled < 0 else Mark(sampled, SAMPLED)
