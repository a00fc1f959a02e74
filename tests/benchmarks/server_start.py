"""The server's start with the extension and without, in turn: `python tests/benchmarks/server_start.py [PAIRS]`.

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

from live_server import live_server
from nvml_stand_in import NVMLStandIn

WARM_UP = 1


def start_to_answer(directory: Path, environment: dict[str, str], *, extension: bool) -> float:
    """Seconds until the server answers."""
    enabled = f"--ServerApp.jpserver_extensions={{'jupyter_gpu': {extension}}}"
    begin = time.perf_counter()
    with live_server(directory, enabled, environment=environment) as server:
        taken = time.perf_counter() - begin
        found = server.send("GET", "gpu/api/status")[0]
        assert found == (200 if extension else 404), found
    return taken


def main() -> None:
    """Print the figures."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    without: list[float] = []
    with_extension: list[float] = []
    with tempfile.TemporaryDirectory(prefix="jg-") as directory:
        driver = NVMLStandIn(Path(directory) / "state")
        for _ in range(8):
            driver.add_gpu()
        driver.set_latency(50)
        environment = {**driver.environment(), "JUPYTER_GPU_RUNTIME_DIR": f"{directory}/run"}
        os.environ.pop("JUPYTER_GPU_SIMULATE", None)
        for number in range(WARM_UP + pairs):
            order = [(False, without), (True, with_extension)]
            for extension, times in order if number % 2 else reversed(order):
                taken = start_to_answer(Path(directory) / "root", environment, extension=extension)
                if number >= WARM_UP:
                    times.append(taken)
    more = [b - a for a, b in zip(without, with_extension, strict=True)]
    print(f"server start to first answer, {pairs} pairs   median      min      max")
    for name, times in (("without", without), ("with the extension", with_extension), ("more (goal 100 ms)", more)):
        row = (statistics.median(times), min(times), max(times))
        print(f"{name:<40}" + "".join(f"{1000 * value:6.0f} ms" for value in row))


if __name__ == "__main__":
    main()
