"""Who is above their cap for long enough is told of, once."""

from __future__ import annotations

from dataclasses import replace

from jupyter_gpu.limits.watchdog import Reading, Watchdog

GIB = 1 << 30


def at(used_gib: float, lease: str = "lease", cap_gib: float = 8) -> Reading:
    return Reading(lease, "GPU-0", int(used_gib * GIB), int(cap_gib * GIB))


def test_what_the_driver_takes_for_itself_is_no_excess() -> None:
    watchdog = Watchdog(margin_bytes=GIB, grace_s=0)
    assert watchdog.look(0, [at(8.5)]) == []
    assert watchdog.look(1, [at(9)]) == []
    assert [excess.reading for excess in watchdog.look(2, [at(9.1)])] == [at(9.1)]


def test_a_short_excess_is_none() -> None:
    watchdog = Watchdog(margin_bytes=GIB, grace_s=10)
    assert watchdog.look(0, [at(12)]) == []
    assert watchdog.look(9, [at(12)]) == []
    assert watchdog.look(9.5, [at(7)]) == []
    assert watchdog.look(11, [at(12)]) == []
    assert [excess.lasted_s for excess in watchdog.look(21, [at(12)])] == [10]


def test_each_excess_is_told_once_until_it_has_ended() -> None:
    watchdog = Watchdog(margin_bytes=GIB, grace_s=0)
    assert len(watchdog.look(0, [at(12)])) == 1
    assert watchdog.look(1, [at(13)]) == []
    assert watchdog.look(2, [at(3)]) == []
    assert len(watchdog.look(3, [at(12)])) == 1


def test_a_lease_that_is_gone_is_forgotten_and_others_are_not() -> None:
    watchdog = Watchdog(margin_bytes=GIB, grace_s=5)
    watchdog.look(0, [at(12, "a"), at(12, "b")])
    watchdog.look(3, [at(12, "b")])
    assert [excess.reading.lease_id for excess in watchdog.look(6, [at(12, "a"), at(12, "b")])] == ["b"]


def test_what_is_known_to_be_the_drivers_own_is_no_excess() -> None:
    watchdog = Watchdog(margin_bytes=GIB, grace_s=0)
    # Eight workers with half a GiB each, which could not be taken off the cap. It does not come on top of the margin.
    assert watchdog.look(0, [replace(at(12), overhead_bytes=4 * GIB)]) == []
    assert watchdog.look(1, [replace(at(12.1), overhead_bytes=4 * GIB)]) != []
    assert watchdog.look(2, [replace(at(9), overhead_bytes=GIB // 2)]) == []
    assert watchdog.look(3, [replace(at(9.1), overhead_bytes=GIB // 2)]) != []
