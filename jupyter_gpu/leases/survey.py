"""What is on the devices at one moment, and which of it belongs to which lease.

Looking (the driver, /proc) and deciding are apart, so that the ledger's lock is never held while a driver is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from .kinship import LEASE_VARIABLE, UNKNOWN, Kinship

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from ..devices.device import DeviceBackend, DeviceUsage, Inventory
    from ..devices.processes import ProcessKey

__all__ = ["LEASE_VARIABLE", "OnDevice", "SeenProcess", "Survey", "Taken", "look", "taken"]


class SeenProcess(NamedTuple):
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

    @property
    def is_blind(self) -> bool:
        """Whether nothing is known of any device, because of a driver that may be back before long."""
        return not self.inventory.devices and bool(self.inventory.problems)

    def by_device(self, leases: Mapping[str, Collection[ProcessKey]]) -> dict[str, OnDevice]:
        """The processes on each device, by UUID.

        Args:
            leases: for each lease, the processes whose descendants are its own.
        """
        by_root = {key: lease_id for lease_id, roots in leases.items() for key in roots}
        found = {uuid: OnDevice(uuid) for uuid in self.usage}
        for process in self.processes:
            there = found[process.uuid]
            owner = _owner(process, by_root, leases)
            if owner is None:
                there.foreign.append(process)
                there.hidden = there.hidden or not process.lineage
            elif owner in there.own:
                there.own[owner].append(process)
            else:
                there.own[owner] = [process]
        return found


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
    # What was lost or found while it was asked is in the inventory of this look too; else this costs next to nothing.
    inventory = visible(backend.inventory())
    kinship.refresh()
    descents = kinship.of_all(process.pid for each in usage.values() for process in each.processes or ())
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
    seen = survey.by_device(leases)
    return {uuid: there.taken(survey.usage[uuid], accounted) for uuid, there in seen.items()}


@dataclass(slots=True)
class OnDevice:
    """The processes on one device, by whose they are."""

    uuid: str
    own: dict[str, list[SeenProcess]] = field(default_factory=dict)
    """Of each lease."""
    foreign: list[SeenProcess] = field(default_factory=list)
    hidden: bool = False
    """Whether any of the foreign ones cannot be found in `/proc`."""

    def taken(self, usage: DeviceUsage, accounted: Mapping[str, Mapping[str, int]]) -> Taken:
        """Who has how much, as `taken` tells it for all devices."""
        by_lease = {}
        own = foreign = hidden = 0
        unknown = usage.processes is None or usage.hides_processes
        for lease_id, processes in self.own.items():
            size = 0
            for process in processes:
                if process.memory_bytes is None:
                    unknown = True
                else:
                    size += process.memory_bytes
            by_lease[lease_id] = size
        for lease_id, on_device in accounted.items():
            size = on_device.get(self.uuid, 0)
            if size > by_lease.get(lease_id, 0):
                by_lease[lease_id] = size
        own = sum(by_lease.values())
        for process in self.foreign:
            if process.memory_bytes is None:
                unknown = True
            elif process.lineage:
                foreign += process.memory_bytes
            else:
                hidden += process.memory_bytes
        # A process that /proc does not know may be ours, seen from inside a container: what our accounts say is in
        # use is taken off it, and the rest is foreign.
        foreign += max(0, hidden - own)
        if unknown and usage.memory_used_bytes is not None:
            foreign = max(foreign, usage.memory_used_bytes - own)
        return Taken(foreign, {lease: size for lease, size in by_lease.items() if size})


def _owner(process: SeenProcess, by_root: Mapping[ProcessKey, str], leases: Iterable[str]) -> str | None:
    for key in process.lineage:
        if key in by_root:
            return by_root[key]
    return process.lease_id if process.lease_id is not None and process.lease_id in leases else None
