"""The JSON of the REST API, made from what was surveyed. Pure, but for the names of processes."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..leases.lease import Lease, LeaseState
from ..leases.survey import Survey, Taken, taken
from ..limits.account import Account, AccountDevice, AccountError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..devices.device import Device, Inventory
    from ..devices.processes import ProcessKey
    from ..host import GPUHost
    from ..kernels import KernelRecord
    from ..leases.placement import DeviceState, LeaseHold

JSON = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """Everything that the models of one moment are made from."""

    time: float
    survey: Survey
    leases: Sequence[Lease]
    states: Sequence[DeviceState]
    caps: Mapping[tuple[str, str], int | None]
    """By lease id and UUID."""
    accounts: Mapping[str, Mapping[str, AccountDevice]]
    """What each lease's account says of each of its devices."""
    process: ProcessKey
    """This server."""
    exact: bool = False
    """Whether the accounts tell all that is in use, as those of simulated devices do."""
    owners: Mapping[int, str | None] = field(default_factory=dict)
    in_use: Mapping[str, Taken] = field(default_factory=dict)

    @classmethod
    def of(cls, **parts: Any) -> Snapshot:
        """A snapshot with what follows from its parts worked out once."""
        snapshot = cls(**parts)
        roots = {lease.id: (lease.process,) if lease.process else () for lease in snapshot.held}
        accounted = {
            lease_id: {uuid: device.used for uuid, device in devices.items()}
            for lease_id, devices in snapshot.accounts.items()
        }
        return cls(
            **parts,
            owners=snapshot.survey.owners(roots),
            in_use=taken(snapshot.survey, roots, accounted),
        )

    @property
    def held(self) -> list[Lease]:
        """The leases that have been granted."""
        return [lease for lease in self.leases if lease.state is LeaseState.HELD]

    @property
    def waiting(self) -> list[Lease]:
        """The requests that wait, in order of arrival."""
        return [lease for lease in self.leases if lease.state is LeaseState.WAITING]

    def is_mine(self, lease: Lease) -> bool:
        """Whether this server answers for the lease."""
        return lease.asker == self.process


def take_snapshot(host: GPUHost, survey: Survey) -> Snapshot:
    """What the ledger and the accounts say to go with a survey. Blocks on files.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    leases = host.leases_now()
    accounts: dict[str, dict[str, AccountDevice]] = {}
    for lease in leases:
        try:
            with Account.open(host.accounts.path(lease.id)) as account:
                accounts[lease.id] = {device.uuid: device for device in account.read().devices}
        except AccountError:
            continue
    return Snapshot.of(
        time=time.time(),
        survey=survey,
        leases=leases,
        states=host.states_now(survey),
        caps=host.caps_of(leases),
        accounts=accounts,
        process=host.process,
        exact=host.simulated,
    )


def problems_model(inventory: Inventory | None) -> list[JSON]:
    """What keeps devices from being seen."""
    if inventory is None:
        return []
    return [{"code": p.code, "message": p.message, "advice": p.advice} for p in inventory.problems]


def devices_model(snapshot: Snapshot, *, simulated: bool) -> JSON:
    """All devices, what they do, who holds them and who else is on them."""
    inventory = snapshot.survey.inventory
    states = {state.device.uuid: state for state in snapshot.states}
    return {
        "time": snapshot.time,
        "simulated": simulated,
        "problems": problems_model(inventory),
        "devices": [_device_model(device, states[device.uuid], snapshot) for device in inventory.devices],
    }


def kernel_devices_model(lease: Lease | None, snapshot: Snapshot) -> list[JSON]:
    """What a lease holds and uses of each of its devices."""
    if lease is None:
        return []
    by_uuid = snapshot.survey.inventory.by_uuid()
    return [_kernel_device_model(lease, hold, by_uuid.get(hold.uuid), snapshot) for hold in lease.holds]


def queue_model(snapshot: Snapshot) -> JSON:
    """The requests that wait, in order of arrival."""
    return {
        "time": snapshot.time,
        "entries": [
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
                "mine": snapshot.is_mine(lease),
            }
            for number, lease in enumerate(snapshot.waiting, 1)
        ],
    }


def kernel_state(record: KernelRecord | None, lease: Lease | None, devices: Sequence[JSON]) -> str:
    """One word for a kernel: the worst that is the case."""
    if record is not None and record.state in ("starting", "waiting"):
        return record.state
    if any(device["lost"] for device in devices):
        return "lost"
    if any(_is_over(device["used_bytes"], device["cap_bytes"]) for device in devices):
        return "over-cap"
    if record is not None and record.state == "problem":
        return "problem"
    return "running" if lease is not None and lease.holds else "cpu"


def _device_model(device: Device, state: DeviceState, snapshot: Snapshot) -> JSON:
    usage = snapshot.survey.usage.get(device.uuid)
    capability = device.compute_capability
    missing = {"usage": "the driver did not tell"} if usage is None and device.leasable else {}
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
        "memory_used_bytes": usage.memory_used_bytes if usage else None,
        "memory_free_bytes": usage.memory_free_bytes if usage else None,
        "utilization_percent": usage.utilization_percent if usage else None,
        "temperature_celsius": usage.temperature_celsius if usage else None,
        "power_watts": usage.power_watts if usage else None,
        "power_limit_watts": usage.power_limit_watts if usage else None,
        "reasons": dict(usage.reasons) if usage else missing,
        "reserved_bytes": state.reserved_bytes,
        "available_bytes": state.reservable_bytes if device.memory_bytes is not None and device.leasable else None,
        "foreign_bytes": state.foreign_bytes,
        "leases": [
            _lease_model(lease, hold, snapshot)
            for lease in snapshot.held
            for hold in lease.holds
            if hold.uuid == device.uuid
        ],
        "foreign": [
            {"pid": process.pid, "name": own_process_name(process.pid), "memory_bytes": process.memory_bytes}
            for number, process in enumerate(snapshot.survey.processes)
            if process.uuid == device.uuid and snapshot.owners.get(number) is None
        ],
    }


def _lease_model(lease: Lease, hold: LeaseHold, snapshot: Snapshot) -> JSON:
    used, _ = _used(lease, hold.uuid, snapshot)
    return {
        "lease_id": lease.id,
        "kind": hold.hold.value,
        "memory_bytes": hold.bytes,
        "cap_bytes": snapshot.caps.get((lease.id, hold.uuid)),
        "used_bytes": used,
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
    used, source = _used(lease, hold.uuid, snapshot)
    account = snapshot.accounts.get(lease.id, {}).get(hold.uuid)
    usage = snapshot.survey.usage.get(hold.uuid)
    exact_peak = account.peak if account is not None and (snapshot.exact or account.peak) else None
    utilization = [
        process.utilization_percent
        for number, process in enumerate(snapshot.survey.processes)
        if process.uuid == hold.uuid
        and snapshot.owners.get(number) == lease.id
        and process.utilization_percent is not None
    ]
    reasons = {}
    if used is None:
        reasons["used_bytes"] = "the driver does not tell the memory of single processes here"
    if not utilization:
        reasons["utilization_percent"] = "the driver tells no utilisation of this kernel's processes"
    if exact_peak is None:
        reasons["peak_bytes"] = "no cap layer counts this kernel's allocations, and no peak was sampled"
    return {
        "uuid": hold.uuid,
        "index": device.index if device else None,
        "kind": hold.hold.value,
        "memory_bytes": hold.bytes,
        "cap_bytes": snapshot.caps.get((lease.id, hold.uuid)),
        "used_bytes": used,
        "peak_bytes": exact_peak,
        "peak_kind": None if exact_peak is None else "exact",
        "utilization_percent": round(min(100.0, sum(utilization)), 1) if utilization else None,
        "source": source,
        "lost": device is None or (usage is not None and usage.lost),
        "reasons": reasons,
    }


def _used(lease: Lease, uuid: str, snapshot: Snapshot) -> tuple[int | None, str | None]:
    """What a lease has in use on a device, in bytes, and who says so."""
    account = snapshot.accounts.get(lease.id, {}).get(uuid)
    if snapshot.exact and account is not None:
        return account.used, "account"
    usage = snapshot.survey.usage.get(uuid)
    own = [
        process.memory_bytes
        for number, process in enumerate(snapshot.survey.processes)
        if process.uuid == uuid and snapshot.owners.get(number) == lease.id
    ]
    if usage is not None and usage.processes is not None and None not in own:
        seen = sum(size or 0 for size in own)
        if account is None or account.used <= seen:
            return seen, "nvml"
    if account is not None and account.used:
        return account.used, "account"
    return None, None


def _is_over(used: int | None, cap: int | None) -> bool:
    return used is not None and cap is not None and used > cap


def own_process_name(pid: int) -> str | None:
    """The name of a process of this user; `None` for other users' processes, whose names are not ours to tell."""
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.getuid():  # noqa: PTH116 - no more than a number is wanted
            return None
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return None
