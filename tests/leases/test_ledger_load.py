"""The ledger under load, for a moment; `tests/benchmarks/ledger.py` does the same for longer and times it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger_load import percentile, run

if TYPE_CHECKING:
    from pathlib import Path


def test_processes_that_come_and_go_are_never_given_more_than_there_is(runtime_directory: Path) -> None:
    result = run(runtime_directory, workers=8, rounds=400, limit_s=30, most_between_kills_s=0.05)
    assert result.rounds >= 400
    assert result.killed > 3
    assert len(result.grants) > 200
    assert result.failures == 0
    assert result.violations == 0
    assert result.left_over == 0
    # Generous, since this machine does other things too: a grant takes about as long as its turn in the queue.
    assert percentile(result.grants, 50) < percentile(result.empty, 50) + 100
