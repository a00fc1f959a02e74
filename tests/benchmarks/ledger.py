"""How long a grant takes under load, against an empty transaction under the same load.

    python tests/benchmarks/ledger.py [--rounds N]

16 processes take and return leases at once, some are killed at random. Each of them also times empty transactions
(`BEGIN IMMEDIATE; COMMIT`), in turn with its requests: on the ledger's own file and in the same queue, so that both
wait for the same others, and on a second file with the same settings, where there is hardly a queue. The goal is
that the 99th percentile of a grant is at most 5 ms above that of the empty transaction on the ledger's file.
The accounts of all leases are kept at every change, as a server does.

The rounds are done in several runs, each on a ledger of its own, to tell by how much they differ. On a machine that is
busy with other things the percentiles tell of those.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from figures import Figure, arguments, finish, spread
from ledger_load import Result, percentile, run

GOAL_MS = 5.0
RUNS = 5
QUICK_ROUNDS = 200


def measure(rounds: int, runs: int) -> list[Result]:
    """So many rounds in all, in so many runs."""
    results = []
    for number in range(runs):
        with tempfile.TemporaryDirectory(prefix="jg-") as directory:
            results.append(run(Path(directory), rounds=rounds // runs, seed=1000 * number))
    return results


def more_ms(result: Result) -> float:
    """By how much the 99th percentile of a grant is above that of an empty transaction."""
    return percentile(result.grants, 99) - percentile(result.empty, 99)


def report(whole: Result) -> None:
    """Print all there is to know."""
    print(
        f"{whole.rounds} rounds of 16 processes in {whole.seconds:.1f} s, {whole.killed} processes killed: "
        f"{len(whole.grants)} grants, {whole.violations} times more than there is, {whole.left_over} left over, "
        f"{whole.failures} processes failed"
    )
    print(f"{'':36}{'p50':>10}{'p99':>10}")
    for name, durations in (
        ("a grant", whole.grants),
        ("an empty transaction, same file", whole.empty),
        ("an empty transaction, second file", whole.empty_elsewhere),
    ):
        print(f"{name:36}{percentile(durations, 50):8.2f} ms{percentile(durations, 99):8.2f} ms")


def figures(results: list[Result]) -> list[Figure]:
    """What the runs come to."""
    whole = Result()
    for result in results:
        for name in vars(whole):
            setattr(whole, name, getattr(whole, name) + getattr(result, name))
    report(whole)
    broken = whole.violations + whole.left_over + whole.failures
    grant_ms, empty_ms = percentile(whole.grants, 99), percentile(whole.empty, 99)
    differences = spread([more_ms(result) for result in results])
    return [
        Figure(
            "grant of a lease with 16 processes at it, p99",
            f"{grant_ms:.1f} ms",
            f"empty transaction in the same queue {empty_ms:.1f} ms",
            grant_ms / empty_ms,
            f"{grant_ms - empty_ms:+.2f} ms ({differences})",
            f"at most {GOAL_MS:g} ms more",
            grant_ms - empty_ms <= GOAL_MS,
        ),
        Figure(
            f"leases given out twice or left over in {whole.rounds:,} rounds, {whole.killed} processes killed",
            str(broken),
            "",
            None,
            "",
            "none",
            not broken,
        ),
    ]


def main() -> int:
    """Run it and print what came of it."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=10_000)
    options = parser.parse_args()
    results = measure(QUICK_ROUNDS, 1) if options.quick else measure(options.rounds, RUNS)
    return finish(figures(results), options)


if __name__ == "__main__":
    sys.exit(main())
