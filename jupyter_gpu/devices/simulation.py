"""Simulated GPUs: what there are, and the book-keeping that they share with the kernels that use them.

Standard library only: it also runs inside kernels, on every Python from 3.7.

The specification is the text of `JUPYTER_GPU_SIMULATE`: GPUs separated by commas, each `[COUNTx]NAME:MEMORY`, followed
by `/[COUNTx]PROFILE:MEMORY` for every kind of MIG instance that it is divided into. For example::

    4xNVIDIA A100-SXM4-40GB:40GiB
    NVIDIA H100 80GB HBM3:80GiB,2xNVIDIA T4:16GiB
    NVIDIA A100-SXM4-40GB:40GiB/2x3g.20gb:20GiB
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .amount import parse_amount
from .processes import ProcessKey

if TYPE_CHECKING:
    from pathlib import Path

SPECIFICATION_VARIABLE = "JUPYTER_GPU_SIMULATE"
EXAMPLE = "4xNVIDIA A100-SXM4-40GB:40GiB"

_PART = re.compile(r"\s*(?:(?P<count>\d{1,9})x)?(?P<name>[^:,/]+?)\s*:\s*(?P<memory>[^:,/]+)\s*\Z")
_NAMESPACE = uuid.UUID("6f0b1c1e-6c57-5f0c-9c7f-7d3d8d1f3a42")
_MOST_DEVICES = 256


@dataclass(frozen=True)
class SimulatedDevice:
    """One simulated GPU or MIG instance."""

    uuid: str
    index: str
    name: str
    memory_bytes: int
    parent_uuid: str | None
    mig_enabled: bool


def parse_specification(text: str) -> tuple[SimulatedDevice, ...]:
    """The devices that `text` describes, each GPU followed by its MIG instances. The same text gives the same UUIDs.

    Raises:
        ValueError: it describes none; the message says how to write one.
    """
    devices: list[SimulatedDevice] = []
    index = 0
    for entry in text.split(","):
        gpu, *profiles = entry.split("/")
        count, name, memory = _part(gpu, text)
        for _ in range(count):
            identity = f"GPU-{uuid.uuid5(_NAMESPACE, f'{index} {name} {memory}')}"
            devices.append(SimulatedDevice(identity, str(index), name, memory, None, bool(profiles)))
            instance = 0
            for profile in profiles:
                instances, kind, share = _part(profile, text)
                for _ in range(instances):
                    mig = f"MIG-{uuid.uuid5(_NAMESPACE, f'{identity} {instance} {kind} {share}')}"
                    devices.append(
                        SimulatedDevice(mig, f"{index}.{instance}", f"{name} MIG {kind}", share, identity, False)
                    )
                    instance += 1
            index += 1
            if len(devices) > _MOST_DEVICES:
                raise ValueError(f"{text!r} describes more than {_MOST_DEVICES} simulated GPUs")
    return tuple(devices)


def unleased_directory(runtime: Path) -> Path:
    """Where processes without a lease keep the accounts of what they hold on simulated devices."""
    return runtime / "simulated"


def unleased_path(runtime: Path, process: ProcessKey) -> Path:
    """The account of a process without a lease."""
    return unleased_directory(runtime) / f"{process.pid}-{process.start_time}"


def unleased_owner(path: Path) -> ProcessKey:
    """The process whose account is at `path`; one that never was, where the name tells none."""
    pid, _, start_time = path.name.partition("-")
    return ProcessKey(int(pid), int(start_time)) if pid.isdecimal() and start_time.isdecimal() else ProcessKey(0, 0)


def account_paths(runtime: Path) -> list[Path]:
    """The accounts of everybody who may hold memory on simulated devices, leased or not."""
    found: list[Path] = []
    for directory in (runtime / "accounts", unleased_directory(runtime)):
        try:
            found += [directory / name for name in sorted(os.listdir(str(directory))) if name[0] != "."]
        except OSError:
            continue
    return found


def _part(text: str, whole: str) -> tuple[int, str, int]:
    match = _PART.match(text)
    if match is None:
        raise ValueError(f"{whole!r} does not describe simulated GPUs; write something like {EXAMPLE!r}")
    count = int(match["count"] or 1)
    if count < 1:
        raise ValueError(f"{whole!r} asks for no simulated GPU; write something like {EXAMPLE!r}")
    return count, match["name"], parse_amount(match["memory"])
