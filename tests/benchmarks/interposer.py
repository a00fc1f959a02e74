"""What the interposer adds to CUDA calls, on a stand-in driver: `python tests/benchmarks/interposer.py [--rounds N]`.

Runs with and without it take turns. The goal is under 500 ns added per pair of cuMemAlloc and cuMemFree, as the median
of the rounds' differences. The fastest of each are printed too, as whatever else the machine does only adds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "native"))

import cuda_stand_in as cuda
from figures import Figure, arguments, finish, median_ratio, spread

PAIRS, QUICK_PAIRS = 100_000, 5_000
GOAL_NS = 500
GOAL_PAIR = "cuMemAlloc+cuMemFree"
NEIGHBOURS = 7
"""Other processes of the lease, whose slots are looked at with each allocation."""


def measure(account: Path, pairs: int, *, preload: bool) -> dict[str, float]:
    """Nanoseconds per pair, by the pair's name."""
    environment = cuda.environment(account, preload=preload)
    done = subprocess.run(
        [cuda.program("bench"), str(pairs)], env=environment, capture_output=True, text=True, check=True
    )
    return {name: float(figure) for name, figure in (line.split() for line in done.stdout.splitlines())}


def compare(title: str, account: Path, rounds: int, pairs: int) -> Figure:
    """What it adds to the pair that the goal is for; all pairs are printed."""
    times: dict[bool, dict[str, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
    for number in range(rounds):
        # Who goes first changes, so that neither gains by the order.
        for preload in (True, False) if number % 2 else (False, True):
            for name, figure in measure(account, pairs, preload=preload).items():
                times[preload][name].append(figure)
    print(f"\n{title}, {rounds} rounds; the fastest, and medians")
    print(f"{'':<36}{'without':>10}{'with':>10}{'added':>10}{'ratio':>8}{'medians':>18}")
    for name in times[True]:
        before, after = (min(times[preload][name]) for preload in (False, True))
        medians = (statistics.median(times[preload][name]) for preload in (False, True))
        print(
            f"{name:<36}{before:7.0f} ns{after:7.0f} ns{after - before:7.0f} ns{after / before:8.2f}"
            f"{' and '.join(f'{median:.0f}' for median in medians):>15} ns"
        )
    without, held = times[False][GOAL_PAIR], times[True][GOAL_PAIR]
    added = [b - a for a, b in zip(without, held, strict=True)]
    return Figure(
        f"cuMemAlloc and cuMemFree in a capped kernel, {title}",
        f"{statistics.median(held):.0f} ns",
        f"without the interposer {statistics.median(without):.0f} ns",
        median_ratio(held, without),
        f"{statistics.median(added):+.0f} ns ({spread(added, 0)})",
        f"under {GOAL_NS} ns more",
        statistics.median(added) < GOAL_NS,
    )


def main() -> int:
    """Compare a lease of one process with one of several."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    rounds, pairs = (1, QUICK_PAIRS) if options.quick else (options.rounds, PAIRS)
    with tempfile.TemporaryDirectory() as directory:
        figures = [compare("one process", cuda.new_account(Path(directory)), rounds, pairs)]
        account = cuda.new_account(Path(directory))
        command = [str(cuda.program("race")), "600", "1"]
        environment = cuda.environment(account, devices=(1 << 30,))
        neighbours = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(NEIGHBOURS)]
        try:
            wait_for_slots(account, NEIGHBOURS)
            for neighbour in neighbours:
                neighbour.send_signal(19)  # SIGSTOP: they hold their slots and are quiet
            with_neighbours = cuda.Account.open(account)
            with_neighbours.set_cap(cuda.UUIDS[0], 1 << 40)
            with_neighbours.close()
            figures.append(compare(f"{NEIGHBOURS + 1} processes", account, rounds, pairs))
        finally:
            for neighbour in neighbours:
                neighbour.kill()
                neighbour.wait()
    return finish(figures, options)


def wait_for_slots(account: Path, count: int) -> None:
    """Return when so many processes have a slot."""
    with cuda.Account.open(account) as opened:
        while len(opened.read().processes) < count:
            pass


if __name__ == "__main__":
    sys.exit(main())
