"""The server's start with the extension and without, in turn: `python tests/benchmarks/server_start.py`.

From the process's start to the first answer of /api/status. The goal is at most 100 ms more with the extension.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from figures import Figure, arguments, finish, median_ratio, spread
from live_server import live_server
from nvml_stand_in import NVMLStandIn

WARM_UP = 1
MOST_MORE_MS = 100


def start_to_answer(directory: Path, environment: dict[str, str], *, extension: bool) -> float:
    """Seconds until the server answers."""
    enabled = f"--ServerApp.jpserver_extensions={{'jupyter_gpu': {extension}}}"
    begin = time.perf_counter()
    with live_server(directory, enabled, environment=environment) as server:
        taken = time.perf_counter() - begin
        found = server.send("GET", "gpu/api/status")[0]
        assert found == (200 if extension else 404), found
    return taken


def measure(pairs: int, warm_up: int) -> tuple[list[float], list[float]]:
    """Seconds to the first answer, without the extension and with it, pair by pair."""
    without: list[float] = []
    with_extension: list[float] = []
    with tempfile.TemporaryDirectory(prefix="jg-") as directory:
        driver = NVMLStandIn(Path(directory) / "state")
        for _ in range(8):
            driver.add_gpu()
        driver.set_latency(50)
        environment = {**driver.environment(), "JUPYTER_GPU_RUNTIME_DIR": f"{directory}/run"}
        os.environ.pop("JUPYTER_GPU_SIMULATE", None)
        for number in range(warm_up + pairs):
            # Who goes first changes, so that neither gains by the order.
            order = [(False, without), (True, with_extension)]
            for extension, times in order if number % 2 else reversed(order):
                taken = start_to_answer(Path(directory) / "root", environment, extension=extension)
                if number >= warm_up:
                    times.append(taken)
    return without, with_extension


def figure(without: list[float], with_extension: list[float]) -> Figure:
    """What the pairs come to, printed in more detail than it has."""
    more = [b - a for a, b in zip(without, with_extension, strict=True)]
    print(f"server start to first answer, {len(more)} pairs   median      min      max")
    for name, times in (("without", without), ("with the extension", with_extension), ("more", more)):
        row = (statistics.median(times), min(times), max(times))
        print(f"{name:<40}" + "".join(f"{1000 * value:6.0f} ms" for value in row))
    more_ms = [1000 * each for each in more]
    return Figure(
        "server start to its first answer",
        f"{1000 * statistics.median(with_extension):.0f} ms",
        f"without the extension {1000 * statistics.median(without):.0f} ms",
        median_ratio(with_extension, without),
        f"{statistics.median(more_ms):+.0f} ms ({spread(more_ms, 0)})",
        f"at most {MOST_MORE_MS} ms more",
        statistics.median(more_ms) <= MOST_MORE_MS,
    )


def main() -> int:
    """Measure, and print what came of it."""
    parser = arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=25)
    options = parser.parse_args()
    without, with_extension = measure(*((1, 0) if options.quick else (options.pairs, WARM_UP)))
    return finish([figure(without, with_extension)], options)


if __name__ == "__main__":
    sys.exit(main())
