"""Kernels of a real server have the interposer preloaded, unless it is turned off; the server itself never has."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer, live_server
from nvml_stand_in import NVMLStandIn

from jupyter_gpu.devices.processes import environment_value
from jupyter_gpu.limits import interposer

GIB = 1 << 30


@pytest.fixture
def driver(tmp_path: Path) -> NVMLStandIn:
    stand_in = NVMLStandIn(tmp_path / "state")
    stand_in.add_gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=80 * GIB)
    return stand_in


def layer(server: LiveServer) -> Any:
    return next(each for each in server.get("gpu/api/status")["limits"]["layers"] if each["name"] == "interposer")


def start(server: LiveServer) -> Any:
    content = {"cells": [], "metadata": {"jupyter_gpu": {"request": "0:8GiB"}}, "nbformat": 4, "nbformat_minor": 5}
    (server.root / "a.ipynb").write_text(json.dumps(content))
    return server.get(f"gpu/api/kernels/{server.start_session('a.ipynb')['kernel']['id']}")


def has_mapped(pid: int, library: Path) -> bool:
    return str(library) in Path(f"/proc/{pid}/maps").read_text()


def test_a_kernel_has_it_and_the_server_has_not(
    tmp_path: Path, driver: NVMLStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    with live_server(tmp_path / "root", environment=driver.environment()) as server:
        end = time.monotonic() + 120
        while not layer(server)["active"]:  # it is compiled once the server runs
            assert time.monotonic() < end, layer(server)
            time.sleep(0.2)
        kernel = start(server)
        library, reason = interposer.library_path()
        assert library is not None, reason
        assert "interposer" in kernel["layers"]
        assert environment_value(kernel["pid"], "LD_PRELOAD") == str(library)
        assert has_mapped(kernel["pid"], library)
        assert environment_value(server.process.pid, "LD_PRELOAD") is None
        assert not has_mapped(server.process.pid, library)


def test_a_kernel_has_it_not_where_it_is_turned_off(
    tmp_path: Path, driver: NVMLStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    with live_server(tmp_path / "root", "--GPUHost.interposer=False", environment=driver.environment()) as server:
        kernel = start(server)
        assert layer(server) == {"name": "interposer", "active": False, "reason": "GPUHost.interposer is false"}
        assert "interposer" not in kernel["layers"]
        assert environment_value(kernel["pid"], "LD_PRELOAD") is None
