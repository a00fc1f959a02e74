"""The JSON of the REST API, made from snapshots. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..usage.attribution import LeaseUse
from ..usage.marks import NO_MARK
from ..usage.observer import take_snapshot
from ..usage.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..devices.device import Device, DeviceUsage, Inventory
    from ..devices.processes import ProcessKey
    from ..kernels import KernelRecord
    from ..leases.lease import Lease
    from ..leases.placement import LeaseHold

__all__ = [
    "JSON",
    "Snapshot",
    "device_memory",
    "devices_model",
    "kernel_devices_model",
    "kernel_state",
    "problems_model",
    "queue_entries",
    "queue_model",
    "take_snapshot",
]

JSON = dict[str, Any]

_NOT_COUNTED_REASON = "No process of this kernel counts what it allocates on this GPU."
_NO_USE = LeaseUse(reasons={"used_bytes": "Nothing was seen of this GPU yet."})


def problems_model(inventory: Inventory | None) -> list[JSON]:
    """What keeps devices from being seen."""
    if inventory is None:
        return []
    return [{"code": p.code, "message": p.message, "advice": p.advice} for p in inventory.problems]


def devices_model(snapshot: Snapshot, *, simulated: bool) -> JSON:
    """All devices, what they do, who holds them and who else is on them."""
    inventory = snapshot.survey.inventory
    leases: dict[str, list[JSON]] = {}
    for lease in snapshot.held:
        for hold in lease.holds:
            leases.setdefault(hold.uuid, []).append(_lease_model(lease, hold, snapshot))
    return {
        "time": snapshot.time,
        "stale": snapshot.stale,
        "simulated": simulated,
        "problems": problems_model(inventory),
        "devices": [_device_model(device, leases.get(device.uuid, []), snapshot) for device in inventory.devices],
    }


def kernel_devices_model(lease: Lease | None, snapshot: Snapshot, by_uuid: Mapping[str, Device]) -> list[JSON]:
    """What a lease holds and uses of each of its devices, with the devices there are by UUID."""
    if lease is None:
        return []
    return [_kernel_device_model(lease, hold, by_uuid.get(hold.uuid), snapshot) for hold in lease.holds]


def queue_model(snapshot: Snapshot) -> JSON:
    """The requests that wait, in order of arrival."""
    return {"time": snapshot.time, "entries": queue_entries(snapshot.waiting, snapshot.process)}


def queue_entries(waiting: Sequence[Lease], server: ProcessKey) -> list[JSON]:
    """The requests that wait, in order of arrival, as `server` sees them."""
    return [
        {
            "id": lease.id,
            "request": lease.request,
            "label": lease.owner.label,
            "path": lease.owner.path,
            "kernel_id": lease.owner.kernel_id,
            "owner_kind": lease.owner.kind,
            "since": lease.created,
            "position": number,
            "message": lease.message,
            "mine": lease.asker == server,
        }
        for number, lease in enumerate(waiting, 1)
    ]


def kernel_state(record: KernelRecord | None, lease: Lease | None, snapshot: Snapshot) -> str:
    """One word for a kernel: the worst that is the case."""
    if record is not None and record.state in ("starting", "waiting"):
        return record.state
    if lease is not None and any(snapshot.is_lost(hold.uuid) for hold in lease.holds):
        return "lost"
    if lease is not None and snapshot.passes_cap(lease):
        return "over-cap"
    if record is not None and record.state == "problem":
        return "problem"
    return "running" if lease is not None and lease.holds else "cpu"


def _device_model(device: Device, leases: list[JSON], snapshot: Snapshot) -> JSON:
    usage = snapshot.survey.usage.get(device.uuid)
    state = snapshot.states[device.uuid]
    capability = device.compute_capability
    used, source = device_memory(usage)
    missing = {"usage": "The driver did not tell."} if usage is None and device.leasable else {}
    return {
        "uuid": device.uuid,
        "index": device.index,
        "name": device.name,
        "memory_bytes": device.memory_bytes,
        "pci_address": device.pci_address,
        "compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
        "parent_uuid": device.parent_uuid,
        "mig_enabled": device.mig_enabled,
        "leasable": device.leasable,
        "simulated": device.simulated,
        "lost": usage.lost if usage else False,
        "memory_used_bytes": used,
        "memory_source": source,
        "memory_free_bytes": usage.memory_free_bytes if usage else None,
        "utilization_percent": usage.utilization_percent if usage else None,
        "temperature_celsius": usage.temperature_celsius if usage else None,
        "power_watts": usage.power_watts if usage else None,
        "power_limit_watts": usage.power_limit_watts if usage else None,
        "reasons": _reasons(usage) if usage else missing,
        "reserved_bytes": state.reserved_bytes,
        "available_bytes": state.available_bytes,
        "foreign_bytes": state.foreign_bytes,
        "leases": leases,
        "foreign": [process._asdict() for process in snapshot.foreign_on(device.uuid)],
    }


def device_memory(usage: DeviceUsage | None) -> tuple[int | None, str | None]:
    """What is in use on a device, in bytes, and who says so.

    GPUs that share the host's memory have no figure of their own, but their processes do.
    """
    if usage is None:
        return None, None
    if usage.memory_used_bytes is not None:
        return usage.memory_used_bytes, "device"
    sizes = [process.memory_bytes for process in usage.processes or ()]
    known = [size for size in sizes if size is not None]
    return (sum(known), "processes") if known and len(known) == len(sizes) else (None, None)


def _reasons(usage: DeviceUsage) -> JSON:
    """Why figures that clients get are unknown."""
    return {name: reason for name, reason in usage.reasons.items() if name in _TOLD}


_TOLD = frozenset(
    {
        "memory_used_bytes",
        "memory_free_bytes",
        "utilization_percent",
        "temperature_celsius",
        "power_watts",
        "power_limit_watts",
        "processes",
    }
)


def _lease_model(lease: Lease, hold: LeaseHold, snapshot: Snapshot) -> JSON:
    key = (lease.id, hold.uuid)
    use, cap = snapshot.uses.get(key, _NO_USE), snapshot.caps.get(key)
    return {
        "lease_id": lease.id,
        "kind": hold.hold.value,
        "memory_bytes": hold.bytes,
        "cap_bytes": cap,
        "used_bytes": use.used_bytes,
        "over_cap": use.passes(cap),
        "owner": {
            "kind": lease.owner.kind,
            "kernel_id": lease.owner.kernel_id,
            "label": lease.owner.label,
            "path": lease.owner.path,
            "pid": lease.process.pid if lease.process else None,
            "mine": snapshot.is_mine(lease),
        },
    }


def _kernel_device_model(lease: Lease, hold: LeaseHold, device: Device | None, snapshot: Snapshot) -> JSON:
    key = (lease.id, hold.uuid)
    use, mark = snapshot.uses.get(key, _NO_USE), snapshot.marks.get(key, NO_MARK)
    reasons = dict(use.reasons)
    if mark.peak_bytes is None:
        reasons["peak_bytes"] = reasons.get("used_bytes", "No use was seen so far.")
    if not use.counted:
        reasons["overhead_bytes"] = _NOT_COUNTED_REASON
    return {
        "uuid": hold.uuid,
        "index": device.index if device else None,
        "kind": hold.hold.value,
        "memory_bytes": hold.bytes,
        "cap_bytes": snapshot.caps.get(key),
        "used_bytes": use.used_bytes,
        "peak_bytes": mark.peak_bytes,
        "peak_kind": mark.peak_kind,
        "overhead_bytes": use.account.overhead if use.counted and use.account else None,
        "utilization_percent": use.utilization_percent,
        "source": use.source,
        "lost": snapshot.is_lost(hold.uuid),
        "reasons": reasons,
    }
