"""What is remembered of each lease on each device from one sample to the next: its peak, and when it was last busy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..devices.processes import ProcessKey
    from ..leases.lease import Lease
    from .attribution import LeaseUse

EXACT, SAMPLED = "exact", "sampled"


class Mark(NamedTuple):
    """Since the lease's process was started, or since it was first looked at, whichever came later."""

    peak_bytes: int | None
    peak_kind: str | None
    """`exact`: every allocation was counted; `sampled`: the most of all samples, which may have missed more."""
    busy_at: float | None
    """The time of the last sample in which its processes kept the device busy; `None`: in none so far."""


_NO_MARK = Mark(None, None, None)


@dataclass(slots=True)
class _Memory:
    process: ProcessKey | None
    mark: Mark = _NO_MARK
    sampled: int | None = None


class Marks:
    """The marks of all leases. Not safe for several threads at once."""

    def __init__(self) -> None:
        self._memories: dict[tuple[str, str], _Memory] = {}

    def update(
        self,
        time: float,
        leases: Mapping[str, Lease],
        uses: Mapping[tuple[str, str], LeaseUse],
        idle_percent: float,
    ) -> dict[tuple[str, str], Mark]:
        """Take a sample in, and give what is known then, by lease id and UUID.

        Args:
            time: when it was taken, in seconds since the epoch.
            leases: the leases, by id.
            uses: what they use of their devices.
            idle_percent: up to this utilisation a device counts as idle.
        """
        memories, self._memories = self._memories, {}
        marks = {}
        for key, use in uses.items():
            process = leases[key[0]].process
            memory = memories.get(key)
            if memory is None or memory.process != process:
                memory = _Memory(process)
            self._memories[key] = memory
            used, busy = use.used_bytes, (use.utilization_percent or 0.0) > idle_percent
            if used is not None and (memory.sampled is None or used > memory.sampled):
                memory.sampled = used
            elif not busy and not use.counted:
                marks[key] = memory.mark
                continue
            memory.mark = marks[key] = Mark(*_peak(use, memory.sampled), time if busy else memory.mark.busy_at)
        return marks


def _peak(use: LeaseUse, sampled: int | None) -> tuple[int | None, str | None]:
    if use.counted and use.account is not None:
        counted = use.account.peak + use.account.overhead
        # More seen than was counted: something took memory past the account, so its peak is not the peak.
        if sampled is None or counted >= sampled:
            return counted, EXACT
    return sampled, None if sampled is None else SAMPLED
