"""When a kernel counts as idle, when its owner is warned, and when it is acted upon."""

from __future__ import annotations

from typing import Any

import pytest

from jupyter_gpu.server.idleness import Idleness, Sighting, Standing, Turn

AFTER_S, GRACE_S, STEP_S = 100.0, 50.0, 10.0
BEGAN = 1_700_000_000.0


class Clock:
    """Samples of one kernel, one step apart unless told otherwise."""

    def __init__(self, *, acts: bool = True, grace_s: float = GRACE_S) -> None:
        self.now = 0.0
        self.idleness = Idleness(after_s=AFTER_S, grace_s=grace_s, acts=acts, longest_step_s=3 * STEP_S)

    def sample(self, step_s: float = STEP_S, **facts: Any) -> Standing:
        self.now += step_s
        idle = {"since": BEGAN, "holds": True, "known": True, "changes": True, "exempt": False, "used": (1,)}
        [standing] = self.idleness.look(self.now, [Sighting(kernel_id="k", **{**idle, **facts})])
        return standing

    def until(self, turn: Turn, **facts: Any) -> float:
        """How many seconds it takes."""
        began = self.now
        for _ in range(1000):
            if self.sample(**facts).turn is turn:
                return self.now - began
        raise AssertionError(f"it is never {turn}")

    def never(self, *turns: Turn, seconds: float = 10 * (AFTER_S + GRACE_S), **facts: Any) -> Standing:
        """The last of many samples, in none of which any of these turns was taken."""
        end = self.now + seconds
        while self.now < end:
            standing = self.sample(**facts)
            assert standing.turn not in turns, standing
        return standing


def test_it_is_marked_after_the_time_and_not_before() -> None:
    clock = Clock(acts=False)
    clock.sample()
    for _ in range(int(AFTER_S / STEP_S) - 1):
        assert clock.sample() == Standing("k", None, None, done=False, turn=None)
    assert clock.sample() == Standing("k", BEGAN, None, done=False, turn=Turn.IDLE)
    assert clock.sample() == Standing("k", BEGAN, None, done=False, turn=None)


def test_where_nothing_is_to_be_done_it_is_marked_for_good_and_told_of_once() -> None:
    clock = Clock(acts=False)
    clock.until(Turn.IDLE)
    assert clock.never(*Turn).since == BEGAN


def test_it_is_warned_then_acted_upon_once() -> None:
    clock = Clock()
    assert clock.until(Turn.WARNED) == AFTER_S + STEP_S
    assert clock.sample().acts_in_s == GRACE_S - STEP_S
    assert clock.until(Turn.DUE) == GRACE_S - STEP_S
    standing = clock.never(*Turn)
    assert (standing.done, standing.acts_in_s, standing.since) == (True, None, BEGAN)


def test_computing_in_the_grace_period_cancels_and_the_time_begins_anew() -> None:
    clock = Clock()
    clock.until(Turn.WARNED)
    assert clock.sample(since=None) == Standing("k", None, None, done=False, turn=Turn.ACTIVE)
    clock.sample(since=BEGAN + 200)
    assert clock.until(Turn.WARNED, since=BEGAN + 200) == AFTER_S


def test_computing_between_two_samples_cancels_too() -> None:
    clock = Clock()
    clock.until(Turn.WARNED)
    standing = clock.sample(since=BEGAN + 200)
    assert (standing.turn, standing.since) == (Turn.ACTIVE, None)
    assert clock.until(Turn.WARNED, since=BEGAN + 200) == AFTER_S


@pytest.mark.parametrize("trace", [{"since": BEGAN - 3600}, {"activity": 7}])
def test_activity_after_the_clock_was_set_back_is_activity(trace: dict[str, Any]) -> None:
    clock = Clock()
    clock.until(Turn.WARNED)
    assert clock.sample(**trace).turn is Turn.ACTIVE
    assert clock.until(Turn.WARNED, **trace) == AFTER_S


@pytest.mark.parametrize("used", [(2,), (0,)])
def test_allocating_or_freeing_is_activity(used: tuple[int, ...]) -> None:
    clock = Clock()
    clock.until(Turn.WARNED)
    assert clock.sample(used=used).turn is Turn.ACTIVE
    assert clock.until(Turn.WARNED, used=used) == AFTER_S


def test_what_it_uses_becoming_unknown_is_no_activity() -> None:
    clock = Clock()
    clock.until(Turn.WARNED)
    assert clock.sample(used=None).turn is None
    assert clock.sample(used=(7,)).turn is None


def test_a_busy_kernel_is_never_marked() -> None:
    assert Clock().never(*Turn, since=None).since is None


def test_a_kernel_that_was_never_told_of_is_active_without_a_word() -> None:
    clock = Clock()
    clock.never(*Turn, seconds=AFTER_S - STEP_S)
    assert clock.sample(since=None).turn is None


def test_a_kernel_without_memory_is_never_marked() -> None:
    assert Clock().never(*Turn, holds=False).since is None


def test_one_that_gives_its_memory_up_is_marked_no_more() -> None:
    clock = Clock(acts=False)
    clock.until(Turn.IDLE)
    assert clock.sample(holds=False) == Standing("k", None, None, done=False, turn=None)
    clock = Clock()
    clock.until(Turn.WARNED)
    assert clock.sample(holds=False).turn is Turn.ACTIVE


def test_whether_it_holds_memory_being_unknown_changes_nothing_and_does_not_count() -> None:
    clock = Clock()
    assert clock.never(*Turn, holds=None).since is None
    clock.until(Turn.WARNED)
    standing = clock.never(*Turn, holds=None)
    assert (standing.since, standing.acts_in_s) == (BEGAN, GRACE_S)


def test_what_is_unknown_is_marked_but_never_acted_upon() -> None:
    clock = Clock()
    assert clock.until(Turn.IDLE, known=False) == AFTER_S + STEP_S
    assert clock.never(*Turn, known=False).since == BEGAN


def test_time_in_which_something_was_unknown_does_not_count_for_acting() -> None:
    clock = Clock()
    clock.until(Turn.IDLE, known=False)
    assert clock.until(Turn.WARNED) == AFTER_S
    standing = clock.never(*Turn, known=False)
    assert standing.acts_in_s == GRACE_S
    assert clock.until(Turn.DUE) == GRACE_S


@pytest.mark.parametrize("gap_s", [3600.0, 1e9, -5.0])
def test_time_without_samples_counts_for_no_more_than_three_of_them(gap_s: float) -> None:
    clock = Clock()
    clock.sample()
    assert clock.sample(gap_s).turn is None
    clock.until(Turn.WARNED)
    assert clock.sample(gap_s).turn is None
    assert (clock.sample(0.0).acts_in_s or 0) >= GRACE_S - 3 * STEP_S


def test_an_exempt_kernel_is_marked_without_a_word() -> None:
    assert Clock().never(*Turn, exempt=True).since == BEGAN


def test_an_exemption_in_the_grace_period_cancels() -> None:
    clock = Clock()
    clock.until(Turn.WARNED)
    standing = clock.sample(exempt=True)
    assert (standing.turn, standing.since, standing.acts_in_s) == (Turn.ACTIVE, BEGAN, None)
    clock.never(*Turn, exempt=True)
    assert clock.sample().turn is Turn.WARNED


def test_where_the_action_would_change_nothing_it_is_only_marked() -> None:
    clock = Clock()
    assert clock.until(Turn.IDLE, changes=False) == AFTER_S + STEP_S
    clock.never(*Turn, changes=False)


def test_without_a_grace_period_it_is_warned_all_the_same() -> None:
    clock = Clock(grace_s=0.0)
    clock.until(Turn.WARNED)
    assert clock.sample().turn is Turn.DUE


def test_a_kernel_that_has_ended_is_forgotten() -> None:
    clock = Clock()
    clock.until(Turn.WARNED)
    assert clock.idleness.look(clock.now + STEP_S, []) == []
    assert clock.sample(2 * STEP_S).turn is None
    assert clock.until(Turn.WARNED) == AFTER_S


def test_each_kernel_has_its_own_time() -> None:
    idleness = Idleness(after_s=AFTER_S, grace_s=GRACE_S, acts=False, longest_step_s=60)

    def sighting(kernel_id: str, since: float | None) -> Sighting:
        return Sighting(kernel_id, since, holds=True, known=True, changes=True, exempt=False)

    idleness.look(0, [sighting("a", BEGAN), sighting("b", None)])
    idleness.look(60, [sighting("a", BEGAN), sighting("b", BEGAN + 60)])
    a, b = idleness.look(120, [sighting("a", BEGAN), sighting("b", BEGAN + 60)])
    assert (a.turn, b.turn) == (Turn.IDLE, None)
    a, b = idleness.look(180, [sighting("a", None), sighting("b", BEGAN + 60)])
    assert (a.turn, b.turn) == (Turn.ACTIVE, Turn.IDLE)
