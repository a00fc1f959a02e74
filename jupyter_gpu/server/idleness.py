"""Which kernels keep GPU memory without computing, for how long, and what is due for them. Pure.

Only time that samples cover counts. So neither a clock that is set, nor a machine that was asleep, nor a driver that
did not answer for an hour makes a kernel idle; and a grace period is one in which its owner could have done something.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable


class Turn(str, Enum):
    """What happens to a kernel with a sample. The values are those of the event."""

    IDLE = "idle"
    """It is marked, and no more than that is announced."""
    WARNED = "warned"
    """It is going to be acted upon when the grace period is over."""
    DUE = "due"
    """The grace period is over."""
    ACTIVE = "active"
    """What was said of it holds no longer: it computes, or is exempt."""


class Sighting(NamedTuple):
    """What one sample shows of one kernel."""

    kernel_id: str
    since: float | None
    """Since when it has executed and computed nothing, in seconds since the epoch; `None` while it does."""
    holds: bool | None
    """Whether it has GPU memory in use, or keeps some from others; `None` where that is unknown."""
    known: bool
    """Whether all is known that an action has to be sure of."""
    changes: bool
    """Whether the action would change anything about it."""
    exempt: bool
    activity: Hashable = None
    """When it last said anything, by a clock that may be set back meanwhile."""
    used: Hashable = None
    """What it uses of each device. Whoever allocates or frees is not idle, though no sample saw it compute."""


class Standing(NamedTuple):
    """How a kernel stands after a sample."""

    kernel_id: str
    since: float | None
    """Since when it has been idle; `None` where it is not marked."""
    acts_in_s: float | None
    """When it is going to be acted upon; `None` where it is not."""
    done: bool
    """Whether it has been acted upon since it is idle."""
    turn: Turn | None
    """What has just changed."""


@dataclass
class _Memory:
    since: float
    activity: Hashable
    used: Hashable
    seen_at: float
    idle_s: float = 0.0
    known_s: float = 0.0
    marked: bool = False
    told: bool = False
    """Whether its owner has been told."""
    grace_left_s: float | None = None
    done: bool = False
    """Whether it has been acted upon."""


class Idleness:
    """The memory from one sample to the next. Not safe for several threads at once."""

    def __init__(self, *, after_s: float, grace_s: float, acts: bool, longest_step_s: float) -> None:
        """Nothing is known yet.

        Args:
            after_s: how long a kernel has to be idle to be marked.
            grace_s: how long after a warning it is acted upon.
            acts: whether it is acted upon at all.
            longest_step_s: so much time at most passes between two samples; more does not count.
        """
        self._after_s = after_s
        self._grace_s = grace_s
        self._acts = acts
        self._longest_step_s = longest_step_s
        self._memories: dict[str, _Memory] = {}

    def look(self, now: float, sightings: Iterable[Sighting]) -> list[Standing]:
        """How each kernel stands after a sample. Those that are not in it are forgotten.

        Args:
            now: when the sample was taken, in seconds by a clock that is never set.
            sightings: all kernels of it.
        """
        standings = [self._stands(now, sighting) for sighting in sightings]
        seen = {standing.kernel_id for standing in standings}
        self._memories = {kernel_id: memory for kernel_id, memory in self._memories.items() if kernel_id in seen}
        return standings

    def _stands(self, now: float, seen: Sighting) -> Standing:
        memory = self._memories.get(seen.kernel_id)
        if seen.since is None or (memory is not None and _has_computed(memory, seen)):
            return self._begun_anew(now, seen, was_told=memory is not None and memory.told)
        if seen.holds is False:
            # It has given up by itself what this is about. That matters to its owner only if an end was announced.
            return self._begun_anew(now, seen, was_told=memory is not None and memory.grace_left_s is not None)
        if memory is None:
            return self._begun_anew(now, seen, was_told=False)
        step_s = max(0.0, min(now - memory.seen_at, self._longest_step_s))
        memory.seen_at = now
        turn = None if seen.holds is None else self._counted(step_s, seen, memory)
        since = memory.since if memory.marked else None
        return Standing(seen.kernel_id, since, memory.grace_left_s, memory.done, turn)

    def _begun_anew(self, now: float, seen: Sighting, *, was_told: bool) -> Standing:
        if seen.since is None:
            self._memories.pop(seen.kernel_id, None)
        else:
            self._memories[seen.kernel_id] = _Memory(seen.since, seen.activity, seen.used, now)
        return Standing(seen.kernel_id, None, None, done=False, turn=Turn.ACTIVE if was_told else None)

    def _counted(self, step_s: float, seen: Sighting, memory: _Memory) -> Turn | None:
        """Count the time that has passed, and say what that leads to."""
        memory.used = seen.used
        memory.idle_s += step_s
        memory.known_s += step_s if seen.known else 0.0
        if memory.idle_s < self._after_s:
            return None
        is_new, memory.marked = not memory.marked, True
        if not self._acts or memory.done or seen.exempt or not seen.changes:
            if memory.grace_left_s is not None:
                memory.grace_left_s, memory.told = None, False
                return Turn.ACTIVE
            return self._told_of(memory, exempt=seen.exempt) if is_new else None
        if memory.grace_left_s is None:
            if not seen.known or memory.known_s < self._after_s:
                return self._told_of(memory, exempt=False) if is_new else None
            memory.grace_left_s, memory.told = self._grace_s, True
            return Turn.WARNED
        if not seen.known:
            return None
        memory.grace_left_s -= step_s
        if memory.grace_left_s > 0:
            return None
        memory.grace_left_s, memory.done = None, True
        return Turn.DUE

    @staticmethod
    def _told_of(memory: _Memory, *, exempt: bool) -> Turn | None:
        """What is said of one that is only marked: nothing, if its owner wants it to be so."""
        memory.told = not exempt
        return None if exempt else Turn.IDLE


def _has_computed(memory: _Memory, seen: Sighting) -> bool:
    """Whether there is a trace of activity since the last sample."""
    allocated = None not in (memory.used, seen.used) and memory.used != seen.used
    return (seen.since, seen.activity) != (memory.since, memory.activity) or allocated
