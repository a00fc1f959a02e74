"""What the interposer adds to CUDA calls, on a stand-in driver: `python tests/benchmarks/interposer.py [ROUNDS]`.

Runs with and without it take turns. The fastest of each are compared, as whatever else the machine does only adds; the
medians stand beside them. The goal is under 500 ns added per pair of cuMemAlloc and cuMemFree.
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

PAIRS = 100_000
GOAL_NS = 500
GOAL_PAIR = "cuMemAlloc+cuMemFree"
NEIGHBOURS = 7
"""Other processes of the lease, whose slots are looked at with each allocation."""


def measure(account: Path, *, preload: bool) -> dict[str, float]:
    """Nanoseconds per pair, by the pair's name."""
    environment = cuda.environment(account, preload=preload)
    done = subprocess.run(
        [cuda.program("bench"), str(PAIRS)], env=environment, capture_output=True, text=True, check=True
    )
    return {name: float(figure) for name, figure in (line.split() for line in done.stdout.splitlines())}


def compare(title: str, account: Path, rounds: int) -> bool:
    """Print the figures; whether the goal is met."""
    times: dict[bool, dict[str, list[float]]] = {True: defaultdict(list), False: defaultdict(list)}
    for number in range(rounds):
        # Who goes first changes, so that neither gains by the order.
        for preload in (True, False) if number % 2 else (False, True):
            for name, figure in measure(account, preload=preload).items():
                times[preload][name].append(figure)
    print(f"{title}\n{'':<36}{'without':>10}{'with':>10}{'added':>10}{'ratio':>8}{'medians':>18}")
    met = True
    for name in times[True]:
        before, after = (min(times[preload][name]) for preload in (False, True))
        medians = (statistics.median(times[preload][name]) for preload in (False, True))
        goal = f"   goal: under {GOAL_NS} ns added" if name == GOAL_PAIR else ""
        print(
            f"{name:<36}{before:7.0f} ns{after:7.0f} ns{after - before:7.0f} ns{after / before:8.2f}"
            f"{' and '.join(f'{median:.0f}' for median in medians):>15} ns{goal}"
        )
        met = met and (name != GOAL_PAIR or after - before < GOAL_NS)
    return met


def main() -> int:
    """Compare a lease of one process with one of several; 0 where the goal is met."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as directory:
        met = compare("one process", cuda.new_account(Path(directory)), rounds)
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
            met = compare(f"\nbeside {NEIGHBOURS} other processes of the lease", account, rounds) and met
        finally:
            for neighbour in neighbours:
                neighbour.kill()
                neighbour.wait()
    return 0 if met else 1


def wait_for_slots(account: Path, count: int) -> None:
    """Return when so many processes have a slot."""
    with cuda.Account.open(account) as opened:
        while len(opened.read().processes) < count:
            pass


if __name__ == "__main__":
    sys.exit(main())
