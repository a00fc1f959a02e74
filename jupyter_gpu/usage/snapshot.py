"""Everything that is known of devices, leases and their use at one moment: what clients are shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from ..leases.holdings import NOTHING_HELD, NOTHING_TAKEN
from ..leases.lease import Lease, LeaseState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..devices.processes import ProcessKey
    from ..leases.holdings import Holdings
    from ..leases.placement import DeviceState
    from ..leases.survey import OnDevice, Survey, Taken
    from .accounts import LeaseAccount
    from .attribution import LeaseUse
    from .marks import Mark


class ForeignProcess(NamedTuple):
    """A process on a device that no lease covers."""

    pid: int
    name: str | None
    """Of this user's own processes only."""
    memory_bytes: int | None


@dataclass(frozen=True)
class Snapshot:
    """One moment. Taken by an `Observer`."""

    number: int
    """Counts up. What was seen once has a lower one than what was seen later."""
    time: float
    """When the devices were looked at, in seconds since the epoch; always later than that of an earlier look."""
    survey: Survey
    leases: Sequence[Lease]
    caps: Mapping[tuple[str, str], int | None]
    """By lease id and UUID."""
    uses: Mapping[tuple[str, str], LeaseUse]
    """By lease id and UUID."""
    marks: Mapping[tuple[str, str], Mark]
    """By lease id and UUID."""
    busy_at: Mapping[tuple[str, str], float]
    """The time of the last sample in which a lease kept a device busy, by lease id and UUID."""
    process: ProcessKey
    """This server."""
    seen: Mapping[str, OnDevice] = field(default_factory=dict)
    """The processes on each device, by UUID."""
    holdings: Mapping[str, Holdings] = field(default_factory=dict)
    """What leases hold of each device, by UUID."""
    accounts: Mapping[str, LeaseAccount] = field(default_factory=dict)
    """What the account of each lease says, by lease id."""
    name_of: Callable[[int], str | None] = lambda _: None
    """The name of a process of this user, by pid."""
    changes: int = 0
    """`GPUHost.changes` when the ledger was read."""
    lease_of: Mapping[str, Lease] = field(default_factory=dict)
    """The leases by id."""
    stale: str | None = None
    """Why the devices were not looked at since, one sentence; `None` where they were."""
    ledger_problem: str | None = None
    """Why the ledger cannot be used, one sentence; the leases are then those that were seen last. `None` if it can."""

    # What follows from the rest is worked out when it is asked for: most samples nobody asks.

    @cached_property
    def taken(self) -> Mapping[str, Taken]:
        """Who has how much of each device in use, by UUID."""
        accounted = {
            lease_id: {uuid: device.used for uuid, device in account.devices.items()}
            for lease_id, account in self.accounts.items()
            if account.counts
        }
        return {uuid: there.taken(self.survey.usage[uuid], accounted) for uuid, there in self.seen.items()}

    @cached_property
    def states(self) -> Mapping[str, DeviceState]:
        """What is reserved, foreign and in use on each device, by UUID."""
        return {
            device.uuid: self.holdings.get(device.uuid, NOTHING_HELD).state(
                device, self.survey.usage.get(device.uuid), self.taken.get(device.uuid, NOTHING_TAKEN)
            )
            for device in self.survey.inventory.devices
        }

    def foreign_on(self, uuid: str) -> list[ForeignProcess]:
        """The processes on a device that no lease covers.

        Those that cannot be found here may well be a lease's. They are listed only if it has to be somebody else's
        memory that they hold.
        """
        there = self.seen.get(uuid)
        if there is None or not there.foreign:
            return []
        others_hold = self.taken[uuid].foreign_bytes > 0
        return [
            ForeignProcess(process.pid, self.name_of(process.pid) if process.lineage else None, process.memory_bytes)
            for process in there.foreign
            if process.lineage or others_hold
        ]

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

    def passes_cap(self, lease: Lease) -> bool:
        """Whether a lease uses more than its cap of any of its devices."""
        keys = [(lease.id, hold.uuid) for hold in lease.holds]
        return any(key in self.uses and self.uses[key].passes(self.caps.get(key)) for key in keys)

    def is_lost(self, uuid: str) -> bool:
        """Whether a device does not answer any more, or has gone while the driver still shows others."""
        usage = self.survey.usage.get(uuid)
        if usage is not None:
            return usage.lost
        inventory = self.survey.inventory
        # Without a driver nothing is known of any device, which is another matter.
        return bool(inventory.devices) and uuid not in inventory.by_uuid()
