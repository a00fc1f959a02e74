"""A kernel that goes past its cap by ways that nothing inside it holds is dealt with as configured."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer, live_server
from nvml_stand_in import NVMLStandIn

GIB = 1 << 30
FAST = ("--GPUWatchdog.grace_s=0.5", "--GPUWatchdog.interval_s=1.0", "--GPUSampler.policy_interval_s=1.0")


@pytest.fixture
def driver(tmp_path: Path) -> NVMLStandIn:
    stand_in = NVMLStandIn(tmp_path / "state")
    stand_in.add_gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=80 * GIB)
    return stand_in


def start(server: LiveServer, request: str) -> dict[str, Any]:
    content = {"cells": [], "metadata": {"jupyter_gpu": {"request": request}}, "nbformat": 4, "nbformat_minor": 5}
    (server.root / "a.ipynb").write_text(json.dumps(content))
    return server.start_session("a.ipynb")


def looks(driver: NVMLStandIn) -> int:
    """How often the devices were looked at: one look may come from a start or an end that lies before."""
    return max(driver.calls().values(), default=0)


def until(condition: Callable[[], Any], timeout_s: float = 20) -> Any:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize("action", ["warn", "interrupt", "end"])
def test_a_kernel_above_its_cap_is_dealt_with(tmp_path: Path, driver: NVMLStandIn, action: str) -> None:
    [device] = driver.gpus
    arguments = (*FAST, f"--GPUWatchdog.action={action}")
    with (
        live_server(tmp_path / "root", *arguments, environment=driver.environment()) as server,
        subprocess.Popen(["sleep", "60"]) as foreign,
    ):
        session = start(server, "0:8GiB")
        kernel_id = session["kernel"]["id"]
        kernel = server.get(f"gpu/api/kernels/{kernel_id}")
        layers = {layer["name"]: layer for layer in server.get("gpu/api/status")["limits"]["layers"]}
        assert layers["watchdog"] == {"name": "watchdog", "active": True, "reason": None}
        driver.add_process(device.uuid, foreign.pid, 40 * GIB)
        driver.add_process(device.uuid, kernel["pid"], 12 * GIB)
        if action == "end":
            until(lambda: server.send("GET", f"gpu/api/kernels/{kernel_id}")[0] == 404)
            assert "a.ipynb holds 12 GiB of GPU 0, and its cap is 8 GiB. It was shut down." in server.log.read_text()
        else:
            [notice] = until(lambda: server.get(f"gpu/api/kernels/{kernel_id}")["notices"])
            ending = {"warn": "Free some, or ask for a larger cap.", "interrupt": "What it ran was interrupted."}
            assert notice == f"a.ipynb holds 12 GiB of GPU 0, and its cap is 8 GiB. {ending[action]}"
            assert server.get(f"gpu/api/kernels/{kernel_id}")["pid"] == kernel["pid"]
        assert foreign.poll() is None
        foreign.kill()


def test_samples_are_taken_for_it_only_while_a_kernel_has_a_cap(tmp_path: Path, driver: NVMLStandIn) -> None:
    with live_server(tmp_path / "root", *FAST, environment=driver.environment()) as server:
        session = start(server, "0")
        driver.log_calls()
        time.sleep(2.5)  # the time in which two samples would have been taken
        assert looks(driver) <= 1
        kernel = f"gpu/api/kernels/{session['kernel']['id']}"
        assert server.send("PATCH", kernel, {"request": "0:8GiB"})[0] == 200
        driver.forget_calls()
        until(lambda: len(driver.calls()) > 0)
        server.end_session(session)
        session = start(server, "0:8GiB")
        driver.forget_calls()
        until(lambda: len(driver.calls()) > 0)
        server.end_session(session)
        time.sleep(1.5)  # a sample that was under way has ended
        driver.forget_calls()
        time.sleep(2.5)
        assert looks(driver) <= 1
