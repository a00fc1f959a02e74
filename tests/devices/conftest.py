"""Fixtures for tests of devices: a stand-in driver, and a backend on it whose time the test decides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from nvml_stand_in import STATE_VARIABLE, NVMLStandIn

from jupyter_gpu.devices.nvml import NVMLBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Clock:
    """A time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NVMLStandIn:
    """A stand-in driver without GPUs, loaded into this process in place of the real one."""
    monkeypatch.delenv(STATE_VARIABLE, raising=False)
    stand_in = NVMLStandIn(tmp_path / "nvml.state")
    stand_in.load()
    return stand_in


@pytest.fixture
def backend(stand_in: NVMLStandIn, clock: Clock) -> Iterator[NVMLBackend]:
    backend = NVMLBackend(clock=clock, mps_processes=False)
    yield backend
    backend.close()


@pytest.fixture
def run_python() -> Callable[..., object]:
    """Run a program in a new process and return what it printed last, which is JSON."""

    def run(program: str, environment: dict[str, str]) -> object:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run
