"""Devices and surveys for tests of leases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jupyter_gpu.devices.device import Device, DeviceUsage, Inventory
from jupyter_gpu.leases.survey import Survey

if TYPE_CHECKING:
    from collections.abc import Callable

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
