"""A server on the NVML stand-in, through the real pynvml: the life of a kernel, and a driver that takes its time."""

from __future__ import annotations

import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from live_server import LiveServer, live_server
from nvml_stand_in import NVMLStandIn

GIB = 1 << 30


@pytest.fixture
def driver(tmp_path: Path) -> NVMLStandIn:
    stand_in = NVMLStandIn(tmp_path / "state")
    for _ in range(2):
        stand_in.add_gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=80 * GIB)
    return stand_in


def write_notebook(server: LiveServer, name: str, request: str) -> None:
    content = {"cells": [], "metadata": {"jupyter_gpu": {"request": request}}, "nbformat": 4, "nbformat_minor": 5}
    (server.root / name).write_text(json.dumps(content))


def test_a_kernels_life_on_real_pynvml(tmp_path: Path, driver: NVMLStandIn) -> None:
    uuids = [device.uuid for device in driver.gpus]
    with live_server(tmp_path / "root", environment=driver.environment()) as server:
        status = server.get("gpu/api/status")
        assert (status["simulated"], status["backend"]["name"]) == (False, "NVMLBackend")
        assert status["backend"]["driver_version"] == driver.driver_version
        write_notebook(server, "a.ipynb", "1:20GiB")
        session = server.start_session("a.ipynb")
        kernel = server.get(f"gpu/api/kernels/{session['kernel']['id']}")
        assert (kernel["request"], kernel["origin"], kernel["state"]) == ("1:20GiB", "notebook", "running")
        environment = dict(
            entry.split("=", 1)
            for entry in Path(f"/proc/{kernel['pid']}/environ").read_text().split("\0")
            if "=" in entry
        )
        assert environment["CUDA_VISIBLE_DEVICES"] == uuids[1]

        driver.add_process(uuids[1], kernel["pid"], 5 * GIB)
        driver.add_process(uuids[1], 1, 30 * GIB)
        device = _until(server, lambda devices: devices[1]["foreign_bytes"] == 30 * GIB)[1]
        assert device["leases"][0]["used_bytes"] == 5 * GIB
        assert device["available_bytes"] == 30 * GIB
        assert [process["pid"] for process in device["foreign"]] == [1]

        code, refusal = server.send("PATCH", f"gpu/api/kernels/{kernel['kernel_id']}", {"request": "1:60GiB"})
        assert code == 409
        assert refusal["message"].startswith(
            "a.ipynb keeps 1:20GiB, because 1:60GiB cannot be had now: it waits for 60 GiB"
        )
        code, changed = server.send("PATCH", f"gpu/api/kernels/{kernel['kernel_id']}", {"request": "1:40GiB"})
        assert (code, changed["applied"]) == (200, "now")
        code, moved = server.send(
            "PATCH", f"gpu/api/kernels/{kernel['kernel_id']}", {"request": "0:all", "restart": True}
        )
        assert (code, moved["applied"], moved["devices"][0]["uuid"]) == (200, "restarted", uuids[0])
        server.end_session(session)
        assert all(not device["leases"] for device in server.get("gpu/api/devices")["devices"])


def test_a_missing_driver_is_told_and_kernels_start_on_the_cpu(tmp_path: Path, driver: NVMLStandIn) -> None:
    driver.break_driver()
    with live_server(tmp_path / "root", environment=driver.environment()) as server:
        [problem] = server.get("gpu/api/status")["problems"]
        assert problem["code"] == "driver-not-loaded"
        session = server.start_session("a.ipynb")
        kernel = server.get(f"gpu/api/kernels/{session['kernel']['id']}")
        assert kernel["devices"] == []
        driver.repair_driver()
        _until(server, lambda devices: len(devices) == 2)


def test_a_slow_driver_does_not_hold_up_the_servers_other_answers(tmp_path: Path, driver: NVMLStandIn) -> None:
    driver.set_latency(100_000)
    with live_server(tmp_path / "root", environment=driver.environment()) as server:
        with ThreadPoolExecutor(4) as pool:
            slow = [pool.submit(server.send, "GET", "gpu/api/devices") for _ in range(4)]
            times = []
            for _ in range(20):
                begin = time.perf_counter()
                server.get("api/status")
                times.append(time.perf_counter() - begin)
            assert not all(request.done() for request in slow)
            driver.set_latency(0)
            assert {request.result()[0] for request in slow} <= {200, 503}
        # One call of the driver takes 100 ms here, and a look at the devices dozens of calls.
        assert statistics.median(times) < 0.1


def _until(server: LiveServer, condition: object) -> list[dict]:  # type: ignore[type-arg]
    end = time.monotonic() + 30
    devices: list[dict] = []  # type: ignore[type-arg]
    while time.monotonic() < end:
        devices = server.get("gpu/api/devices")["devices"]
        if condition(devices):  # type: ignore[operator]
            return devices
    raise AssertionError(devices)
