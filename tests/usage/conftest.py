"""Fixtures for tests of usage: a host on the NVML stand-in, and real processes that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nvml_stand_in import STATE_VARIABLE, NVMLStandIn
from observation import Eyes, Processes

from jupyter_gpu.devices.nvml import NVMLBackend
from jupyter_gpu.host import GPUHost


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NVMLStandIn:
    """A stand-in driver without GPUs, loaded into this process in place of the real one."""
    monkeypatch.delenv(STATE_VARIABLE, raising=False)
    stand_in = NVMLStandIn(tmp_path / "nvml.state")
    stand_in.load()
    return stand_in


@pytest.fixture
def nvml_host(stand_in: NVMLStandIn) -> Iterator[GPUHost]:
    """A host whose devices are the stand-in's."""
    host = GPUHost(backend_class=NVMLBackend)
    yield host
    host.close()


@pytest.fixture
def processes() -> Iterator[Processes]:
    processes = Processes()
    yield processes
    processes.close()


@pytest.fixture
def eyes() -> Iterator[Callable[[GPUHost], Eyes]]:
    made: list[Eyes] = []

    def make(host: GPUHost) -> Eyes:
        made.append(Eyes(host))
        return made[-1]

    yield make
    for each in made:
        each.observer.close()
