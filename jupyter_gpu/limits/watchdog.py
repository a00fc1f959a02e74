"""The layer behind the interposer: noticing, from outside, that a process tree holds more than its cap.

A static binary, or a process that dropped LD_PRELOAD, is held by nothing inside it. What the driver takes for itself
(contexts, modules) is on no account either, so only what is above the cap by more than a margin counts, and only when
it stays there. Pure: time and figures come in, what is to be acted on comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Reading:
    """What a lease's processes hold of a device, as the driver says, in bytes."""

    lease_id: str
    uuid: str
    used_bytes: int
    cap_bytes: int
    overhead_bytes: int = 0
    """What the driver is known to have taken for itself beyond what the lease's own allocations leave of the cap."""


@dataclass(frozen=True)
class Excess:
    """A lease that has been above its cap for long enough to act on."""

    reading: Reading
    lasted_s: float


class Watchdog:
    """Remembers since when who is above their cap, and tells of each once, until they have been below it again."""

    def __init__(self, margin_bytes: int, grace_s: float) -> None:
        """Nobody is above their cap yet.

        Args:
            margin_bytes: how far above the cap nothing is said.
            grace_s: how long one has to be farther above it.
        """
        self._margin_bytes = margin_bytes
        self._grace_s = grace_s
        self._since: dict[tuple[str, str], float] = {}
        self._told: set[tuple[str, str]] = set()

    def look(self, now: float, readings: Iterable[Reading]) -> list[Excess]:
        """Those who have been above their cap for the grace period and were not told of before.

        Args:
            now: seconds, on a clock that only goes forward.
            readings: all leases on all devices for which the driver's figure is known; who is left out is forgotten.
        """
        above = {
            (reading.lease_id, reading.uuid): reading
            for reading in readings
            # The margin is for what the driver takes for itself too: one or the other, or that would count twice.
            if reading.used_bytes > reading.cap_bytes + max(self._margin_bytes, reading.overhead_bytes)
        }
        self._since = {key: self._since.get(key, now) for key in above}
        self._told &= above.keys()
        found = [
            Excess(reading, now - self._since[key])
            for key, reading in above.items()
            if key not in self._told and now - self._since[key] >= self._grace_s
        ]
        self._told |= {(excess.reading.lease_id, excess.reading.uuid) for excess in found}
        return found
