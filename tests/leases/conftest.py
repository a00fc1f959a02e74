"""Devices and surveys for tests of leases."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from jupyter_gpu.devices.device import Device, DeviceUsage, Inventory
from jupyter_gpu.devices.processes import ProcessKey, process_key
from jupyter_gpu.leases.lease import Ask, Origin, Owner
from jupyter_gpu.leases.ledger import Ledger
from jupyter_gpu.leases.survey import Survey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GIB = 1 << 30


@pytest.fixture
def device() -> Callable[..., Device]:
    """Makes a device from its index."""

    def make(
        index: str, name: str = "NVIDIA A100-SXM4-40GB", memory_bytes: int | None = 40 * GIB, **more: object
    ) -> Device:
        kind = "MIG" if "." in index else "GPU"
        parent = {"parent_uuid": f"GPU-{index.split('.', maxsplit=1)[0]:0>8}"} if kind == "MIG" else {}
        number = index.replace(".", "-")
        return Device(f"{kind}-{number:0>8}", index, name, memory_bytes, **{**parent, **more})  # type: ignore[arg-type]

    return make


@pytest.fixture
def four(device: Callable[..., Device]) -> tuple[Device, ...]:
    """Four GPUs of 40 GiB."""
    return tuple(device(str(number)) for number in range(4))


@pytest.fixture
def survey(four: tuple[Device, ...]) -> Survey:
    """Four GPUs of 40 GiB on which nothing runs."""
    return Survey(Inventory(four), {d.uuid: DeviceUsage(d.uuid, 0, d.memory_bytes, processes=()) for d in four})


class Sleeper:
    """A process that does nothing until it is ended."""

    def __init__(self, **environment: str) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", "read line"], stdin=subprocess.PIPE, env={**os.environ, **environment}
        )
        key = process_key(self._process.pid)
        assert key is not None
        self.key = key

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def sleeper() -> Iterator[Callable[..., Sleeper]]:
    """Starts processes that stand for servers and kernels."""
    made: list[Sleeper] = []

    def start(**environment: str) -> Sleeper:
        made.append(Sleeper(**environment))
        return made[-1]

    yield start
    for each in made:
        each.end()


@pytest.fixture
def me() -> ProcessKey:
    """This process."""
    key = process_key()
    assert key is not None
    return key


@pytest.fixture
def new_ask(me: ProcessKey) -> Callable[..., Ask]:
    """Makes an ask from a request; its id is the label."""

    def make(
        request: str, label: str = "A", *, path: str | None = None, asker: ProcessKey | None = None, **more: object
    ) -> Ask:
        owner = Owner("kernel", label, f"kernel-{label}", path)
        return Ask(label, request, Origin.API, owner, asker or me, **more)  # type: ignore[arg-type]

    return make


@pytest.fixture
def new_ledger(runtime_directory: Path) -> Iterator[Callable[..., Ledger]]:
    """Opens the ledger once more, as another server would."""
    opened: list[Ledger] = []

    def make(**options: object) -> Ledger:
        opened.append(Ledger(runtime_directory, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(new_ledger: Callable[..., Ledger]) -> Ledger:
    return new_ledger()
