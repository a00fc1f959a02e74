"""Everything that is known of devices, leases and their use at one moment: what clients are shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..leases.lease import Lease, LeaseState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..devices.processes import ProcessKey
    from ..leases.placement import DeviceState
    from ..leases.survey import Survey
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
    states: Mapping[str, DeviceState]
    """By UUID."""
    caps: Mapping[tuple[str, str], int | None]
    """By lease id and UUID."""
    uses: Mapping[tuple[str, str], LeaseUse]
    """By lease id and UUID."""
    marks: Mapping[tuple[str, str], Mark]
    """By lease id and UUID."""
    foreign: Mapping[str, Sequence[ForeignProcess]]
    """The processes on each device that no lease covers, by UUID."""
    process: ProcessKey
    """This server."""
    changes: int = 0
    """`GPUHost.changes` when the ledger was read."""
    lease_of: Mapping[str, Lease] = field(default_factory=dict)
    """The leases by id."""
    stale: str | None = None
    """Why the devices were not looked at since, one sentence; `None` where they were."""

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

    def is_lost(self, uuid: str) -> bool:
        """Whether a device does not answer any more, or has gone while the driver still shows others."""
        usage = self.survey.usage.get(uuid)
        if usage is not None:
            return usage.lost
        inventory = self.survey.inventory
        # Without a driver nothing is known of any device, which is another matter.
        return bool(inventory.devices) and uuid not in inventory.by_uuid()
