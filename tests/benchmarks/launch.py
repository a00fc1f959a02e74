"""Kernel start to ready, ours beside the stock LocalProvisioner, in turn: `python tests/benchmarks/launch.py`.

Ours looks at 8 GPUs through the real pynvml and an NVML whose every call takes 50 µs, takes a lease, and starts the
kernel with everything that a kernel gets. The goal is a median ratio of at most 1.03.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "native"))

from figures import Figure, arguments, finish, ratios, spread
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from nvml_stand_in import NVMLStandIn

from jupyter_gpu.host import GPUHost

WARM_UP = 2
MOST_TIMES = 1.03
GIB = 1 << 30


async def start_to_ready(provisioner: str) -> float:
    """Seconds from asking for a kernel until it answers."""
    KernelProvisionerFactory.instance().default_provisioner_name = provisioner
    manager = AsyncKernelManager(kernel_name="python3")
    begin = time.perf_counter()
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=60)
    taken = time.perf_counter() - begin
    client.stop_channels()
    await manager.shutdown_kernel(now=True)
    return taken


async def measure(pairs: int, warm_up: int) -> tuple[list[float], list[float]]:
    """Seconds that kernels took, stock and ours, pair by pair."""
    stock: list[float] = []
    ours: list[float] = []
    for number in range(warm_up + pairs):
        # Who goes first changes, so that neither gains by the order.
        order = [("local-provisioner", stock), ("gpu-provisioner", ours)]
        for name, times in order if number % 2 else reversed(order):
            taken = await start_to_ready(name)
            if number >= warm_up:
                times.append(taken)
    return stock, ours


def figure(stock: list[float], ours: list[float]) -> Figure:
    """What the pairs come to, printed in more detail than it has."""
    print(f"kernel start to ready, {len(ours)} pairs   median      min      max")
    for name, times in (("stock LocalProvisioner", stock), ("gpu-provisioner", ours)):
        row = (statistics.median(times), min(times), max(times))
        print(f"{name:<36}" + "".join(f"{1000 * value:6.0f} ms" for value in row))
    times = ratios(ours, stock)
    middle = statistics.median(times)
    print(f"{'ratio, pair by pair':<36}{middle:9.3f}{min(times):9.3f}{max(times):9.3f}")
    print(f"{'ratio of medians':<36}{statistics.median(ours) / statistics.median(stock):9.3f}")
    return Figure(
        "kernel start to ready",
        f"{1000 * statistics.median(ours):.0f} ms",
        f"stock LocalProvisioner {1000 * statistics.median(stock):.0f} ms",
        middle,
        spread(times, 3),
        f"at most {MOST_TIMES:g} times",
        middle <= MOST_TIMES,
    )


def main() -> int:
    """Measure on a host of its own."""
    parser = arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=21)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jg-") as directory:
        os.environ["JUPYTER_GPU_RUNTIME_DIR"] = directory
        for name in ("JUPYTER_GPU_SIMULATE", "JUPYTER_GPU", "CUDA_VISIBLE_DEVICES"):
            os.environ.pop(name, None)
        driver = NVMLStandIn(Path(directory) / "state")
        for _ in range(8):
            driver.add_gpu(memory_bytes=80 * GIB)
        driver.set_latency(50)
        driver.load()
        GPUHost.instance(default_policy="fail")
        stock, ours = asyncio.run(measure(*((1, 0) if options.quick else (options.pairs, WARM_UP))))
    return finish([figure(stock, ours)], options)


if __name__ == "__main__":
    sys.exit(main())
