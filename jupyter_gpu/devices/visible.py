"""Which devices may be handed out, where the server itself was started with some of them only.

A batch system, a wrapper or a container tells its programs through CUDA_VISIBLE_DEVICES which GPUs are theirs. NVML
pays no attention to it, so the server has to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jupyter_gpu.devices.device import Device, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"[+-]?\d+")
_BY_UUID = ("GPU-", "MIG-")
_NO_MORE = frozenset({"", "-1", "none", "nodevfiles"})
"""What people, and Slurm with the last, write to say that there are no (more) devices."""


@dataclass(frozen=True, slots=True)
class VisibleDevices:
    """The devices that may be handed out, in the order they came, and what is to be said about the others."""

    devices: tuple[Device, ...]
    """Among them the GPUs of visible MIG instances, which cannot be handed out themselves."""
    notes: tuple[Problem, ...] = ()


def visible_devices(value: str | None, order: str | None, devices: Sequence[Device]) -> VisibleDevices:
    """The devices that CUDA_VISIBLE_DEVICES leaves, by CUDA's own rules.

    An entry is an index, a GPU's UUID or an unambiguous beginning of one, or a MIG instance's. The first entry that
    names no device ends the list; an empty list is no device at all, and so is one that names a device twice. A number
    is read up to the first character that does not belong to it. (CUDA programming guide, environment variables; the
    last two are what the driver does, and what PyTorch does after it.)
    A GPU that is divided stands for all its MIG instances.

    Args:
        value: CUDA_VISIBLE_DEVICES as the server was started with; `None`: not set, so all devices are visible.
        order: CUDA_DEVICE_ORDER, likewise. By default CUDA counts the fastest GPU first and NVML by PCI address, so
            with GPUs of several models an index is ambiguous: it is taken as NVML's, and a note says so.
        devices: All there are, each GPU followed by its MIG instances.
    """
    if value is None:
        return VisibleDevices(tuple(devices))
    chosen, complaint = _chosen(value, devices)
    kept = tuple(d for d in devices if d.uuid in chosen or d.parent_uuid in chosen or _parent_of(d, devices, chosen))
    notes = []
    if complaint is not None:
        notes.append(complaint)
    elif _is_ambiguous(value, order, devices):
        notes.append(_ambiguous(value, kept))
    hidden = sum(d.leasable for d in devices) - sum(d.leasable for d in kept)
    if hidden and complaint is None:
        notes.append(_restricted(value, kept, hidden))
    return VisibleDevices(kept, tuple(notes))


def _chosen(value: str, devices: Sequence[Device]) -> tuple[set[str], Problem | None]:
    """The UUIDs named, and what is wrong with the value."""
    chosen: set[str] = set()
    entries = [entry.strip() for entry in value.split(",")]
    for position, entry in enumerate(entries):
        rest = [later for later in entries[position + 1 :] if later]
        if entry.lower() in _NO_MORE and not rest:
            return chosen, None
        device = _named(entry, devices)
        if device is None:
            return chosen, _invalid(value, entry, rest)
        if device.uuid in chosen:
            return set(), _repeated(value, device)
        chosen.add(device.uuid)
    return chosen, None


def _named(entry: str, devices: Sequence[Device]) -> Device | None:
    if entry.upper().startswith(_BY_UUID):
        matches = [d for d in devices if d.uuid.lower().startswith(entry.lower())]
        exact = [d for d in matches if d.uuid.lower() == entry.lower()]
        matches = exact or matches
        return matches[0] if len(matches) == 1 else None
    number = _NUMBER.match(entry)
    if number is None:
        return None
    index = str(int(number.group()))
    return next((d for d in devices if d.index == index and not d.is_mig), None)


def _parent_of(device: Device, devices: Iterable[Device], chosen: set[str]) -> bool:
    return any(d.parent_uuid == device.uuid and d.uuid in chosen for d in devices)


def _is_ambiguous(value: str, order: str | None, devices: Sequence[Device]) -> bool:
    models = {d.name for d in devices if not d.is_mig}
    by_index = any(_NUMBER.match(entry.strip()) and entry.strip() != "-1" for entry in value.split(","))
    return by_index and order != "PCI_BUS_ID" and len(models) > 1


def _list(devices: Iterable[Device]) -> str:
    names = [f"GPU {d.index}" for d in devices if d.leasable]
    return ", ".join(names) if names else "no GPU"


def _restricted(value: str, kept: Sequence[Device], hidden: int) -> Problem:
    others = "the other one" if hidden == 1 else f"the {hidden} others"
    return Problem(
        "visible-devices",
        f"CUDA_VISIBLE_DEVICES={value!r} was set when this was started, so it hands out {_list(kept)} and hides "
        f"{others if any(d.leasable for d in kept) else f'all {hidden} that this host has'}.",
        "Start it without CUDA_VISIBLE_DEVICES, outside a kernel or a command that has GPUs of its own, to see all.",
    )


def _ambiguous(value: str, kept: Sequence[Device]) -> Problem:
    return Problem(
        "visible-devices-ambiguous",
        f"CUDA_VISIBLE_DEVICES={value!r} names GPUs by index on a host with several models, where CUDA counts the "
        f"fastest first and nvidia-smi by PCI address; it was taken in nvidia-smi's order: {_list(kept)}.",
        "Start the server with CUDA_DEVICE_ORDER=PCI_BUS_ID, or name the GPUs by UUID (nvidia-smi -L).",
    )


def _invalid(value: str, entry: str, rest: Sequence[str]) -> Problem:
    what = f"the entry {entry!r}, which names no device of this host" if entry else "an empty entry"
    ignored = f", and CUDA ignores what follows it ({', '.join(rest)})" if rest else ""
    return Problem(
        "visible-devices-invalid",
        f"CUDA_VISIBLE_DEVICES={value!r} has {what}{ignored}.",
        "Correct it to indices or UUIDs that nvidia-smi -L lists, and start the server again.",
    )


def _repeated(value: str, device: Device) -> Problem:
    return Problem(
        "visible-devices-invalid",
        f"CUDA_VISIBLE_DEVICES={value!r} names GPU {device.index} twice, and then CUDA shows no device at all.",
        "Name each device once, and start the server again.",
    )
