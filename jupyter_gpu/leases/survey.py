"""What is on the devices at one moment, and which of it belongs to which lease.

Looking (the driver, /proc) and deciding are apart, so that the ledger's lock is never held while a driver is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .kinship import LEASE_VARIABLE, UNKNOWN, Kinship

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from ..devices.device import DeviceBackend, DeviceUsage, Inventory
    from ..devices.processes import ProcessKey

__all__ = ["LEASE_VARIABLE", "SeenProcess", "Survey", "Taken", "look", "taken"]


@dataclass(frozen=True)
class SeenProcess:
    """One process that was on a device, with what tells whose it is."""

    pid: int
    uuid: str
    memory_bytes: int | None
    utilization_percent: float | None = None
    lineage: tuple[ProcessKey, ...] = ()
    """The process itself, its parent, and so on; empty where the pid cannot be found (another pid namespace)."""
    lease_id: str | None = None
    """From its environment, or from the device's own book-keeping."""


@dataclass(frozen=True)
class Survey:
    """The devices, what they do, and the processes on them."""

    inventory: Inventory
    usage: Mapping[str, DeviceUsage] = field(default_factory=dict)
    processes: tuple[SeenProcess, ...] = ()

    def owners(self, leases: Mapping[str, Collection[ProcessKey]]) -> dict[int, str | None]:
        """The lease that each seen process belongs to, by its place in `processes`; `None` is a foreign process.

        Args:
            leases: for each lease, the processes whose descendants are its own.
        """
        by_root = {key: lease_id for lease_id, roots in leases.items() for key in roots}
        return {number: _owner(process, by_root, leases) for number, process in enumerate(self.processes)}


@dataclass(frozen=True)
class Taken:
    """Who has how much of one device in use, in bytes."""

    foreign_bytes: int = 0
    by_lease: Mapping[str, int] = field(default_factory=dict)


def look(
    backend: DeviceBackend,
    visible: Callable[[Inventory], Inventory] = lambda inventory: inventory,
    kinship: Kinship | None = None,
) -> Survey:
    """The devices now, of those that `visible` leaves. Blocks for as long as the driver takes.

    Args:
        backend: where the devices are.
        visible: leaves the devices that are to be seen.
        kinship: what is known of processes from earlier looks.
    """
    kinship = kinship or Kinship(most_pidfds=0)
    inventory = visible(backend.inventory())
    usage = backend.usage([device.uuid for device in inventory.leasable]) if inventory.devices else {}
    kinship.refresh()
    descents = {process.pid: kinship.of(process.pid) for each in usage.values() for process in each.processes or ()}
    if kinship.other_namespace and not backend.simulated and UNKNOWN in descents.values():
        # The driver counts pids in another namespace, where a number that is known here may be another process.
        descents = {pid: descent if kinship.uses_gpu(pid) else UNKNOWN for pid, descent in descents.items()}
    processes = [
        SeenProcess(
            process.pid,
            uuid,
            process.memory_bytes,
            process.utilization_percent,
            (descent := descents[process.pid]).lineage,
            process.lease_id or descent.lease_id,
        )
        for uuid, of_device in usage.items()
        for process in of_device.processes or ()
    ]
    return Survey(inventory, usage, tuple(processes))


def taken(
    survey: Survey,
    leases: Mapping[str, Collection[ProcessKey]],
    accounted: Mapping[str, Mapping[str, int]],
) -> dict[str, Taken]:
    """For each device, what foreign processes and what each lease has in use.

    Args:
        survey: what was seen.
        leases: for each lease, the processes whose descendants are its own.
        accounted: for each lease, the bytes on each device that its account says are in use. It counts where it is
            more than what was seen, because an allocation may be younger than the survey.
    """
    owners = survey.owners(leases)
    result = {}
    for uuid, usage in survey.usage.items():
        by_lease: dict[str, int] = {}
        foreign = hidden = 0
        unknown = False
        for number, process in enumerate(survey.processes):
            if process.uuid != uuid:
                continue
            unknown = unknown or process.memory_bytes is None
            owner = owners[number]
            if owner is not None:
                by_lease[owner] = by_lease.get(owner, 0) + (process.memory_bytes or 0)
            elif process.lineage:
                foreign += process.memory_bytes or 0
            else:
                hidden += process.memory_bytes or 0
        for lease_id, on_device in accounted.items():
            by_lease[lease_id] = max(by_lease.get(lease_id, 0), on_device.get(uuid, 0))
        own = sum(by_lease.values())
        # A process that /proc does not know may be ours, seen from inside a container: what our accounts say is in
        # use is taken off it, and the rest is foreign.
        foreign += max(0, hidden - own) if hidden else 0
        if (unknown or usage.processes is None) and usage.memory_used_bytes is not None:
            foreign = max(foreign, usage.memory_used_bytes - own)
        result[uuid] = Taken(foreign, {lease: size for lease, size in by_lease.items() if size})
    return result


def _owner(process: SeenProcess, by_root: Mapping[ProcessKey, str], leases: Iterable[str]) -> str | None:
    for key in process.lineage:
        if key in by_root:
            return by_root[key]
    return process.lease_id if process.lease_id is not None and process.lease_id in leases else None
