"""What the driver took for itself is taken off a kernel's cap, so that the driver's tools show no more than that."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cuda_stand_in as cuda
import pytest
from cuda_stand_in import GIB, MIB, UUIDS
from live_server import LiveServer, live_server
from nvml_stand_in import NVMLStandIn
from until import until

FAST = ("--GPUOverhead.interval_s=1.0", "--GPUWatchdog.interval_s=1.0", "--GPUWatchdog.margin_bytes=0")
CONTEXT = 512 * MIB

WORKER = """
import ctypes, sys
driver = ctypes.CDLL("libcuda.so.1")
context = ctypes.c_void_p()
assert driver.cuInit(0) == 0 and driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
assert driver.cuCtxSetCurrent(context) == 0
pointer = ctypes.c_uint64()
for line in sys.stdin:
    print(driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(int(line))), flush=True)
"""


@pytest.fixture
def driver(tmp_path: Path) -> NVMLStandIn:
    stand_in = NVMLStandIn(tmp_path / "state")
    stand_in.add_gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=80 * GIB, uuid=UUIDS[0])
    return stand_in


def start(server: LiveServer, request: str) -> Any:
    content = {"cells": [], "metadata": {"jupyter_gpu": {"request": request}}, "nbformat": 4, "nbformat_minor": 5}
    (server.root / "a.ipynb").write_text(json.dumps(content))
    return server.get(f"gpu/api/kernels/{server.start_session('a.ipynb')['kernel']['id']}")


class Worker:
    """A process of a kernel's lease that was reparented, as data loaders' are."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process

    def allocate(self, size: int) -> int:
        """The driver's answer to a request for so many bytes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(size, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())


@contextlib.contextmanager
def worker(kernel: Any, runtime_directory: Path) -> Iterator[Worker]:
    """One that ends with the `with`."""
    account = runtime_directory / "accounts" / kernel["lease_id"]
    environment = cuda.environment(account, devices=(80 * GIB,), JUPYTER_GPU_LEASE=kernel["lease_id"])
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Worker(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_cap_is_about_what_the_driver_shows(tmp_path: Path, driver: NVMLStandIn, runtime_directory: Path) -> None:
    with live_server(tmp_path / "root", *FAST, environment=driver.environment()) as server:
        kernel = start(server, "0:8GiB")

        def shown() -> Any:
            [device] = server.get(f"gpu/api/kernels/{kernel['kernel_id']}")["devices"]
            return device

        assert shown()["overhead_bytes"] is None
        assert shown()["reasons"]["overhead_bytes"]
        with worker(kernel, runtime_directory) as one:
            assert one.allocate(2 * GIB) == 0
            driver.add_process(UUIDS[0], one.pid, 2 * GIB + CONTEXT)
            until(lambda: shown()["overhead_bytes"] == CONTEXT)
            assert one.allocate(6 * GIB - CONTEXT + MIB) == 2  # out of memory
            assert one.allocate(6 * GIB - CONTEXT) == 0
            driver.remove_process(UUIDS[0], one.pid)
            driver.add_process(UUIDS[0], one.pid, 8 * GIB)
            until(lambda: shown()["used_bytes"] == 8 * GIB)
            model = server.get(f"gpu/api/kernels/{kernel['kernel_id']}")
            assert (model["state"], model["notices"]) == ("running", [])
            # What fitted is not taken away by a context that grows.
            driver.remove_process(UUIDS[0], one.pid)
            driver.add_process(UUIDS[0], one.pid, 8 * GIB + CONTEXT)
            until(lambda: shown()["used_bytes"] == 8 * GIB + CONTEXT)
            assert shown()["overhead_bytes"] == CONTEXT
            driver.remove_process(UUIDS[0], one.pid)
        until(lambda: not shown()["overhead_bytes"])
        with worker(kernel, runtime_directory) as one:
            assert one.allocate(8 * GIB) == 0


@pytest.mark.parametrize("arguments", [("--GPUOverhead.enabled=False",), ()], ids=["off", "uncounted"])
def test_a_cap_is_left_alone(
    tmp_path: Path, driver: NVMLStandIn, runtime_directory: Path, arguments: tuple[str, ...]
) -> None:
    with (
        live_server(tmp_path / "root", *FAST[:2], *arguments, environment=driver.environment()) as server,
        subprocess.Popen(["sleep", "300"]) as foreign,
    ):
        kernel = start(server, "0:8GiB")
        with worker(kernel, runtime_directory) as one:
            assert one.allocate(GIB) == 0
            driver.add_process(UUIDS[0], one.pid, GIB + CONTEXT)
            if not arguments:
                # The kernel itself is on the device too, past the account.
                driver.add_process(UUIDS[0], kernel["pid"], 3 * GIB)
            driver.add_process(UUIDS[0], foreign.pid, GIB)
            times: set[float] = set()

            def seen() -> bool:
                [device] = server.get(f"gpu/api/kernels/{kernel['kernel_id']}")["devices"]
                assert not device["overhead_bytes"]
                if device["source"] == "nvml":
                    times.add(server.get("gpu/api/devices")["time"])
                return len(times) >= 6

            until(seen)
            assert one.allocate(7 * GIB) == 0
        foreign.kill()
