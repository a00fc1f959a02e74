"""How long the server's other requests take while people watch the GPUs: `python tests/benchmarks/event_loop.py`.

A probe in a process of its own asks for /api/status again and again, with nobody watching and with 16 open panels, in
turn, on a server with 64 running kernels whose processes are on the 8 GPUs of the NVML stand-in (50 µs for each call,
PCIe throughput 20 ms as NVML documents). Each panel asks for devices, kernels and queue once a second, in one request
as the real one does. The goal is that the 99th percentile with 16 panels is at most 1.2 times that with none, as the
median of the rounds' ratios.

Beside it, in the same rounds: a server with jupyterlab-nvdashboard on the same stand-in, without kernels, with no, one
and 16 of its "GPU Resources" charts at one update a second.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "native"))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from clients import stand_back
from figures import Figure, arguments, finish, quantile, ratios, spread, unmeasured
from live_server import LiveServer, live_server
from nvml_stand_in import NVMLStandIn
from peers import peer_python

GPUS, KERNELS_PER_GPU, WATCHERS = 8, 8, 16
GIB = 1 << 30
MOST_TIMES = 1.2
DASHBOARD = "dashboard"
PEER_EVERY = 3
"""In so many rounds the peer has one turn: its figures differ little, and it takes long to recover."""
GOAL = f"p99 at most {MOST_TIMES:g} times"
NAME = f"/api/status with {WATCHERS} panels open, p99"
PEER_NAME = "jupyterlab-nvdashboard with {} of its charts, p99"
QUIET_S = 6.0
"""For so long a server is left alone after it was watched: a second more than it takes clients to be watching still."""
QUIET_WITHIN_S = 90
"""How long a server may take to be itself again once its watchers have gone."""


@dataclass(frozen=True)
class Block:
    """What is measured at one go."""

    name: str
    server: LiveServer
    kind: str
    watchers: int


class Load:
    """Changes what the stand-in shows once a second, as GPUs that work do."""

    def __init__(self, driver: NVMLStandIn) -> None:
        self._driver = driver
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        stand_back()
        number = 0
        while not self._ended.wait(1.0):
            number += 1
            for gpu in self._driver.gpus:
                gpu.utilization = (gpu.utilization + 7) % 100
                for process in gpu.processes[number % 4 :: 4]:
                    process.memory_bytes = GIB + 1000 * number
                    process.utilization = number % 50
            self._driver.write()


def start_kernels(server: LiveServer, driver: NVMLStandIn, per_gpu: int) -> None:
    """Notebooks with a reservation each, whose kernels are on the GPUs."""

    def start(number: int) -> None:
        name = f"train-{number:02}.ipynb"
        metadata = {"jupyter_gpu": {"request": f"{number % GPUS}:4GiB"}}
        content = {"cells": [], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
        (server.root / name).write_text(json.dumps(content))
        server.start_session(name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, range(GPUS * per_gpu)))
    table = server.get("gpu/api/kernels")
    for row in table["rows"]:
        kernel = dict(zip(table["columns"], row, strict=True))
        [device] = (dict(zip(table["device_columns"], each, strict=True)) for each in kernel["devices"])
        driver.add_process(device["uuid"], kernel["pid"], GIB, utilization=20)


@contextlib.contextmanager
def watching(block: Block) -> Iterator[None]:
    """The watchers watch inside the `with`."""
    if not block.watchers:
        yield
        return
    with clients(block.kind, block.server, block.watchers, stdin=subprocess.PIPE) as watchers:
        # Long enough that all are there and the first sample has been taken.
        time.sleep(2.5)
        yield
        assert watchers.poll() is None, f"the watchers have ended: {block.name}"
        assert watchers.stdin is not None
        watchers.stdin.close()
        assert watchers.wait(30) == 0, f"the watchers have failed: {block.name}"


def clients(kind: str, server: LiveServer, argument: float, **pipes: int) -> subprocess.Popen[str]:
    """A process of clients."""
    script = Path(__file__).with_name("clients.py")
    return subprocess.Popen([sys.executable, script, kind, server.url, server.token, str(argument)], text=True, **pipes)


def latencies(block: Block, seconds: float) -> list[float]:
    """What the probe measures, in seconds, with the block's watchers there."""
    with watching(block), clients("probe", block.server, seconds, stdout=subprocess.PIPE) as probe:
        return list(json.loads(probe.communicate(timeout=seconds + 60)[0]))


def wait_until_quiet(server: LiveServer, seconds: float) -> None:
    """Return when the server has answered as promptly as without watchers for so long, and has no samples taken."""
    end = time.monotonic() + QUIET_WITHIN_S
    prompt = 0
    while prompt < 10 * seconds and time.monotonic() < end:
        began = time.perf_counter()
        server.get("api/status")
        prompt = prompt + 1 if time.perf_counter() - began < 0.05 else 0
        time.sleep(0.1)


def measure(blocks: list[Block], rounds: int, seconds: float, quiet_s: float) -> dict[str, list[list[float]]]:
    """The latencies of each block, round by round."""
    found: dict[str, list[list[float]]] = {block.name: [] for block in blocks}
    for number in range(rounds):
        # Who goes first changes, so that nobody gains by the order.
        for block in reversed(blocks) if number % 2 else blocks:
            if block.kind == DASHBOARD and number % PEER_EVERY:
                continue
            found[block.name].append(latencies(block, seconds))
            if block.watchers:
                wait_until_quiet(block.server, quiet_s)
    return found


def in_ms(seconds: float, limit_s: float) -> str:
    """A latency with its unit; where the time there was may have cut it short, the least that it was."""
    return f"{'over ' if seconds > limit_s / 2 else ''}{1000 * seconds:.1f} ms"


def figure(found: dict[str, list[list[float]]], name: str, floor: str, title: str, goal: str, limit_s: float) -> Figure:
    """The 99th percentile of one block's latencies beside that of another's."""
    ours, others = ([quantile(each, 0.99) for each in found[block]] for block in (name, floor))
    times = ratios(ours, others)
    middle = statistics.median(times)
    return Figure(
        title,
        in_ms(statistics.median(ours), limit_s),
        f"with none {in_ms(statistics.median(others), limit_s)}",
        middle,
        spread(times),
        goal,
        middle <= MOST_TIMES if goal else None,
    )


def report(found: dict[str, list[list[float]]]) -> None:
    """Print all there is to know of the latencies."""
    print(f"{'/api/status, ms; medians of the rounds':<44}{'answers':>8}{'p50':>9}{'p90':>9}{'p99':>9}{'worst':>9}")
    for name, latencies_s in found.items():
        row = [statistics.median(quantile(each, part) for each in latencies_s) for part in (0.5, 0.9, 0.99)]
        row.append(max(map(max, latencies_s)))
        print(f"{name:<44}{sum(map(len, latencies_s)):8}" + "".join(f"{1000 * value:9.2f}" for value in row))
    print()


def main() -> int:
    """Run it with servers and a host of its own."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each block is probed")
    parser.add_argument("--no-peer", action="store_true", help="leave jupyterlab-nvdashboard out")
    options = parser.parse_args()
    rounds, seconds, quiet_s = (1, 1.0, 0.1) if options.quick else (options.rounds, options.seconds, QUIET_S)
    for name in ("JUPYTER_GPU_SIMULATE", "JUPYTER_GPU", "CUDA_VISIBLE_DEVICES"):
        os.environ.pop(name, None)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jg-")))
        driver = NVMLStandIn(directory / "nvml")
        for number in range(GPUS):
            driver.add_gpu(utilization=10 * number, temperature=50)
        driver.set_latency(50)
        environment = {**driver.environment(), "JUPYTER_GPU_RUNTIME_DIR": f"{directory}/run"}
        server = stack.enter_context(live_server(directory / "ours" / "root", environment=environment))
        start_kernels(server, driver, 1 if options.quick else KERNELS_PER_GPU)
        blocks = [Block("ours, nobody watches", server, "panel", 0)]
        blocks.append(Block(f"ours, {WATCHERS} panels", server, "panel", WATCHERS))
        if not options.quick and not options.no_peer:
            python = str(peer_python())
            peer = stack.enter_context(live_server(directory / "peer" / "root", environment=environment, python=python))
            blocks += [Block(f"nvdashboard, {count} charts", peer, DASHBOARD, count) for count in (0, 1, WATCHERS)]
        load = Load(driver)
        stack.callback(load.close)
        for each in {block.server.url: block.server for block in blocks}.values():
            wait_until_quiet(each, quiet_s)
        found = measure(blocks, rounds, seconds, quiet_s)
    report(found)
    figures = [figure(found, blocks[1].name, blocks[0].name, NAME, GOAL, seconds)]
    for count, block in zip((1, WATCHERS), blocks[3:], strict=False):
        figures.append(figure(found, block.name, blocks[2].name, PEER_NAME.format(count), "", seconds))
    if len(blocks) == 2:
        figures.append(unmeasured(PEER_NAME.format(1), "", "The peer was left out of this run."))
    return finish(figures, options)


if __name__ == "__main__":
    sys.exit(main())
