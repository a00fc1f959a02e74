"""What one full sample costs: 8 GPUs, 64 processes, 64 kernels with a lease each.

    python tests/benchmarks/sampler.py [--rounds N]

On the NVML stand-in, whose every call takes 50 µs (asking for PCIe throughput 20 ms, as NVML documents). A sample is
all that the server's sampler does: the driver, whose processes they are, the ledger, the accounts, peaks and history.
In turn with it: the bare pynvml calls for the same figures, which nobody can do without; and then, in processes of
their own, the snapshots of nvitop and gpustat. A quarter of the processes change between two rounds. The goals are at
most 1.5 times the CPU of the bare calls, and at least ten times less than the others, as the median of the rounds'
ratios; and that no sample is taken while nobody watches.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent / name) for name in ("native", "support")]

from crowd import Crowd  # noqa: E402
from figures import Figure, arguments, finish, median_ratio, quantile, ratios, spread, unmeasured  # noqa: E402
from peers import peer_python  # noqa: E402

from jupyter_gpu.server.kernel_models import KernelModels  # noqa: E402
from jupyter_gpu.server.models import devices_model  # noqa: E402
from jupyter_gpu.usage.sampler import GPUSampler  # noqa: E402

WARM_UP = 3
PAUSE_S = 0.1
"""Before each measurement: about one sample a second is taken, and each finds the caches as cold as in a server."""
MOST_OF_BARE, LEAST_OF_PEERS = 1.5, 10.0
UNWATCHED_S, QUICK_UNWATCHED_S = 10.0, 1.0
_PEER = """
import json, sys, time
{setup}
for line in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    {snapshot}
    print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall]), flush=True)
"""
PEERS = {
    "nvitop take_snapshots()": ("import nvitop", "nvitop.take_snapshots()"),
    "gpustat new_query()": ("import gpustat", "gpustat.new_query()"),
}
BARE, BARE_WITH_GRAPHICS = "bare pynvml calls", "bare pynvml calls, graphics processes too"
OURS = "one full sample"
TITLE = f"{OURS} of 8 GPUs and 64 kernels, CPU"
Cost = tuple[float, float]
"""CPU and wall, in seconds."""
Costs = dict[str, list[Cost]]
"""By name, round by round."""


def bare(pynvml: Any, handles: list[Any], *, graphics: bool) -> None:
    """The pynvml calls for memory, utilisation, temperature, power, processes and their utilisation."""
    for handle in handles:
        pynvml.nvmlDeviceGetMemoryInfo(handle)
        pynvml.nvmlDeviceGetUtilizationRates(handle)
        pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
        pynvml.nvmlDeviceGetPowerUsage(handle)
        pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        if graphics:
            pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle)
        pynvml.nvmlDeviceGetProcessUtilization(handle, 0)


def timed(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


class Peer:
    """Another project's snapshot, taken in a process of its own whenever it is its turn."""

    def __init__(self, python: Path, environment: dict[str, str], setup: str, snapshot: str) -> None:
        self._process = subprocess.Popen(
            [str(python), "-c", _PEER.format(setup=setup, snapshot=snapshot)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def cost(self) -> Cost:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        cpu, wall = json.loads(self._process.stdout.readline())
        return cpu, wall

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def in_turn(crowd: Crowd, work: dict[str, Callable[[], Cost]], rounds: int, warm_up: int) -> dict[str, list[Cost]]:
    """The costs of each, taken in turn."""
    import pynvml

    costs: dict[str, list[Cost]] = {name: [] for name in work}
    for number in range(warm_up + rounds):
        crowd.work(number)
        # Who goes first changes, so that nobody gains by the order.
        for name in reversed(work) if number % 2 else work:
            time.sleep(PAUSE_S)
            pynvml.nvmlDeviceGetCount()  # the stand-in reads what has changed now, not while it is measured
            cost = work[name]()
            if number >= warm_up:
                costs[name].append(cost)
    return costs


def measure(crowd: Crowd, rounds: int, peer_rounds: int, warm_up: int) -> tuple[Costs, Costs]:
    """The costs of ours beside those of the bare calls, and beside those of the others, who take much longer."""
    import pynvml

    host = crowd.host()
    leases = crowd.lease_all(host)
    crowd.register(host, leases)
    sampler = GPUSampler(host=host)
    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(len(crowd.uuids))]
    models = KernelModels(crowd.server(), host.kernels)
    environment = {**os.environ, **crowd.stand_in.environment()}
    peers = {}
    if peer_rounds:
        peers = {name: Peer(peer_python(), environment, *commands) for name, commands in PEERS.items()}

    def sample() -> None:
        snapshot = sampler._sample()
        assert len(snapshot.uses) == len(leases), snapshot  # type: ignore[union-attr]

    def bodies() -> None:
        assert sampler.last is not None
        json.dumps(devices_model(sampler.last, simulated=False), separators=(",", ":")).encode()
        json.dumps(models.table(sampler.last), separators=(",", ":")).encode()

    ours = {OURS: lambda: timed(sample)}
    own: dict[str, Callable[[], Cost]] = {
        BARE: lambda: timed(lambda: bare(pynvml, handles, graphics=False)),
        BARE_WITH_GRAPHICS: lambda: timed(lambda: bare(pynvml, handles, graphics=True)),
        **ours,
        "the two bodies that clients get of it": lambda: timed(bodies),
    }
    try:
        beside_bare = in_turn(crowd, own, rounds, warm_up)
        others = {name: peer.cost for name, peer in peers.items()}
        beside_peers = in_turn(crowd, {**ours, **others}, peer_rounds, warm_up) if peers else {}
    finally:
        for peer in peers.values():
            peer.close()
    sampler.close()
    pynvml.nvmlShutdown()
    host.close()
    return beside_bare, beside_peers


def unwatched(crowd: Crowd, seconds: float) -> tuple[int, int]:
    """How many samples the server's sampler takes in so many seconds with a client that watches, and with none."""
    host = crowd.host()
    sampler = GPUSampler(host=host, interval_s=seconds / 10, watched_for_s=seconds / 4)
    taken: list[float] = []
    sampler.listen(lambda snapshot: taken.append(snapshot.time))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sampler.watch()
        time.sleep(seconds / 20)
    watched = len(taken)
    time.sleep(2 * sampler.watched_for_s)
    before = len(taken)
    time.sleep(seconds)
    count = len(taken) - before
    sampler.close()
    host.close()
    return watched, count


def report(costs: Costs, floor: str) -> None:
    """Print all there is to know of the costs."""
    print(f"{len(costs[OURS])} rounds")
    print(f"{'':44}{'CPU, ms':>26}{'wall, ms':>12}{'CPU ÷ ' + floor.split(maxsplit=1)[0]:>13}")
    print(f"{'':44}{'median':>9}{'p10':>8}{'p90':>9}{'median':>12}")
    for name, each in costs.items():
        cpus = [1000 * cost[0] for cost in each]
        wall = 1000 * statistics.median(cost[1] for cost in each)
        figures = f"{statistics.median(cpus):9.2f}{quantile(cpus, 0.1):8.2f}{quantile(cpus, 0.9):9.2f}{wall:12.2f}"
        print(f"{name:44}{figures}{median_ratio(cpu(costs, name), cpu(costs, floor)):13.2f}")


def cpu(costs: Costs, name: str) -> list[float]:
    """The CPU seconds alone."""
    return [cost[0] for cost in costs[name]]


def beside(costs: Costs, name: str, most: float, goal: str) -> Figure:
    """One sample beside what else was measured in the same rounds."""
    times = ratios(cpu(costs, OURS), cpu(costs, name))
    middle = statistics.median(times)
    ours_ms, other_ms = (1000 * statistics.median(cpu(costs, each)) for each in (OURS, name))
    digits = 2 if middle > 0.5 else 3
    return Figure(
        TITLE, f"{ours_ms:.1f} ms", f"{name} {other_ms:.1f} ms", middle, spread(times, digits), goal, middle <= most
    )


def figures(beside_bare: Costs, beside_peers: Costs, samples: tuple[int, int], seconds: float) -> list[Figure]:
    """What the rounds come to."""
    report(beside_bare, BARE)
    rows = [beside(beside_bare, BARE, MOST_OF_BARE, f"at most {MOST_OF_BARE:g} times")]
    goal = f"at most 1/{LEAST_OF_PEERS:g}"
    if beside_peers:
        report(beside_peers, OURS)
        rows += [beside(beside_peers, name, 1 / LEAST_OF_PEERS, goal) for name in PEERS]
    else:
        rows += [unmeasured(TITLE, goal, f"{name} was left out of this run.") for name in PEERS]
    watched, count = samples
    rows.append(
        Figure(
            f"samples in {seconds:g} s while nobody watches", str(count), f"somebody watches {watched}",
            None, "", "none", not count,
        )
    )  # fmt: skip
    return rows


def main() -> int:
    """Run it on a host of its own."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--peer-rounds", type=int, default=12)
    options = parser.parse_args()
    for name in ("JUPYTER_GPU_SIMULATE", "CUDA_VISIBLE_DEVICES"):
        os.environ.pop(name, None)
    seconds = QUICK_UNWATCHED_S if options.quick else UNWATCHED_S
    with tempfile.TemporaryDirectory(prefix="jg-") as directory:
        os.environ["JUPYTER_GPU_RUNTIME_DIR"] = f"{directory}/run"
        crowd = Crowd(Path(directory))
        try:
            crowd.stand_in.set_latency(50)
            crowd.stand_in.load()
            rounds = (1, 0, 0) if options.quick else (options.rounds, options.peer_rounds, WARM_UP)
            costs = measure(crowd, *rounds)
            samples = unwatched(crowd, seconds)
        finally:
            crowd.close()
    return finish(figures(*costs, samples, seconds), options)


if __name__ == "__main__":
    sys.exit(main())
