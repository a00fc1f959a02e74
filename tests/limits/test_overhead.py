"""What the driver took for itself is known once it was seen several times, and lowers a cap by no more than it may."""

from __future__ import annotations

from dataclasses import replace

from jupyter_gpu.devices.processes import ProcessKey
from jupyter_gpu.limits.overhead import OverheadMeter, Sample

GIB, MIB = 1 << 30, 1 << 20
ONE, OTHER = ProcessKey(100, 1), ProcessKey(101, 2)
CONTEXT = 500 * MIB
STILL = Sample(
    "lease", "GPU-0", seen_bytes=2 * GIB + CONTEXT, processes=frozenset({ONE}), counted_bytes=2 * GIB,
    peak_bytes=3 * GIB, cap_bytes=8 * GIB, noted_bytes=0,
)  # fmt: skip


def noted(meter: OverheadMeter, *samples: Sample) -> list[int]:
    """What the account says after each sample, in bytes."""
    found, now = [], samples[0].noted_bytes
    for sample in samples:
        for _, overhead in meter.look([replace(sample, noted_bytes=now)]):
            now = overhead
        found.append(now)
    return found


def meter() -> OverheadMeter:
    return OverheadMeter(most_per_process_bytes=GIB)


def measured(one: OverheadMeter) -> int:
    return one.overhead("lease", "GPU-0").measured_bytes


def test_it_is_known_after_three_samples_of_a_program_that_is_still() -> None:
    assert noted(meter(), STILL, STILL, STILL, STILL) == [0, 0, CONTEXT, CONTEXT]


def test_the_least_of_the_samples_counts() -> None:
    more = replace(STILL, seen_bytes=2 * GIB + CONTEXT + 20 * MIB)
    assert noted(meter(), more, STILL, more) == [0, 0, CONTEXT]
    assert noted(meter(), more, more, more, STILL)[-1] == CONTEXT


def test_a_program_that_allocates_meanwhile_is_not_measured() -> None:
    grown = [replace(STILL, counted_bytes=2 * GIB + n * MIB, seen_bytes=3 * GIB + n * MIB) for n in range(9)]
    assert noted(meter(), *grown) == [0] * 9
    # Nor where the driver shows something else each time, while the account says the same whenever it is read.
    jumping = [replace(STILL, seen_bytes=2 * GIB + CONTEXT + n % 2 * 100 * MIB) for n in range(9)]
    assert noted(meter(), *jumping) == [0] * 9


def test_what_was_known_stays_while_a_program_allocates() -> None:
    one = meter()
    grown = replace(STILL, counted_bytes=3 * GIB, seen_bytes=3 * GIB + CONTEXT)
    assert noted(one, STILL, STILL, STILL, grown, STILL) == [0, 0, CONTEXT, CONTEXT, CONTEXT]


def test_a_process_that_counts_nothing_is_no_overhead() -> None:
    one = meter()
    stranger = replace(STILL, seen_bytes=None, processes=frozenset({ONE, OTHER}))
    assert noted(one, stranger, stranger, stranger) == [0, 0, 0]
    # It takes nothing off what is known of the others either.
    assert noted(meter(), STILL, STILL, STILL, stranger, stranger) == [0, 0, CONTEXT, CONTEXT, CONTEXT]


def test_less_than_what_is_counted_is_no_overhead() -> None:
    assert noted(meter(), *[replace(STILL, seen_bytes=GIB)] * 4) == [0] * 4


def test_it_ends_with_its_processes() -> None:
    both = replace(STILL, seen_bytes=2 * GIB + 2 * CONTEXT, processes=frozenset({ONE, OTHER}))
    none = replace(STILL, seen_bytes=0, counted_bytes=0, processes=frozenset())
    assert noted(meter(), both, both, both, STILL, none) == [0, 0, 2 * CONTEXT, CONTEXT, 0]


def test_it_begins_anew_with_another_process() -> None:
    restarted = replace(STILL, processes=frozenset({OTHER}), peak_bytes=2 * GIB)
    assert noted(meter(), STILL, STILL, STILL, restarted) == [0, 0, CONTEXT, 0]


def test_one_process_has_no_more_than_a_limit() -> None:
    much = replace(STILL, seen_bytes=6 * GIB)
    assert noted(meter(), much, much, much) == [0, 0, GIB]
    assert noted(meter(), *[replace(much, processes=frozenset({ONE, OTHER}))] * 3)[-1] == 2 * GIB


def test_what_fitted_before_fits_again() -> None:
    one = meter()
    high = replace(STILL, peak_bytes=8 * GIB - 100 * MIB)
    assert noted(one, high, high, high)[-1] == 100 * MIB
    assert measured(one) == CONTEXT
    # A peak that begins anew, as for the measurement of a cell, changes nothing.
    assert noted(one, replace(high, peak_bytes=2 * GIB, noted_bytes=100 * MIB)) == [100 * MIB]
    full = replace(STILL, peak_bytes=8 * GIB, counted_bytes=8 * GIB, seen_bytes=8 * GIB + CONTEXT)
    assert noted(meter(), full, full, full) == [0, 0, 0]


def test_half_the_cap_is_left() -> None:
    small = replace(STILL, counted_bytes=0, peak_bytes=0, seen_bytes=CONTEXT, cap_bytes=600 * MIB)
    assert noted(meter(), small, small, small)[-1] == 300 * MIB


def test_a_lease_that_is_not_looked_after_any_more_is_forgotten() -> None:
    one = meter()
    noted(one, STILL, STILL, STILL)
    one.look([])
    assert measured(one) == 0
    # And where it comes back, it begins with nothing.
    assert one.look([replace(STILL, noted_bytes=CONTEXT)]) == [(replace(STILL, noted_bytes=CONTEXT), 0)]
