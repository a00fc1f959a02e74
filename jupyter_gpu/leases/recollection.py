"""What this process has last seen in the ledger, for when the file cannot be used, or has been lost.

A ledger's file may be removed or emptied while kernels run. What they hold is then put back into the new one by the
processes that answer for them, so that nobody else is given it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .lease import Lease, LeaseState
from .request import Hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..devices.device import Device
    from ..devices.processes import ProcessKey
    from .placement import LeaseHold


class Recollection:
    """The leases as they were last seen, and those that were to end and could not."""

    def __init__(self) -> None:
        self._file: str | None = None
        self._leases: tuple[Lease, ...] = ()
        self._memory_bytes: dict[str, int] = {}
        self.unreleased: set[str] = set()
        """The ids of leases that have ended, and are to go as soon as the file can be used."""

    def saw(self, file: str, leases: Sequence[Lease]) -> None:
        """Note what a ledger's file holds."""
        self._file, self._leases = file, tuple(leases)

    def saw_devices(self, devices: Iterable[Device]) -> None:
        """Note how much memory the devices have."""
        self._memory_bytes.update({each.uuid: each.memory_bytes for each in devices if each.memory_bytes is not None})

    def is_of(self, file: str) -> bool:
        """Whether it is that file that was seen last, or none was seen before."""
        return self._file in (None, file)

    def alive(self, is_alive: Callable[[ProcessKey], bool]) -> list[Lease]:
        """The leases that were seen last and whose processes still run, in order of arrival."""
        return [
            lease
            for lease in self._leases
            if lease.id not in self.unreleased and is_alive(lease.process or lease.asker)
        ]

    def missing(
        self, there: Sequence[Lease], me: ProcessKey | None, is_alive: Callable[[ProcessKey], bool]
    ) -> list[Lease]:
        """The leases that are to be put back into a file that has only those that are `there`.

        These are the leases that `me` answers for, and those that nobody does whose process runs on. What others have
        been given meanwhile stays theirs: a lease that does not fit beside it is left out.
        """
        known, found = {lease.id for lease in there}, list(there)
        for lease in self._leases:
            if lease.id in known or lease.id in self.unreleased:
                continue
            answers = is_alive(lease.asker) if lease.asker == me else _is_orphan(lease, is_alive)
            if answers and all(self._fits(hold, found) for hold in lease.holds):
                found.append(lease)
        return found[len(there) :]

    def _fits(self, hold: LeaseHold, leases: Sequence[Lease]) -> bool:
        beside = [other for lease in leases for other in lease.holds if other.uuid == hold.uuid]
        if beside and any(Hold.WHOLE is each.hold for each in (hold, *beside)):
            return False
        memory = self._memory_bytes.get(hold.uuid)
        return memory is None or sum(each.bytes or 0 for each in (hold, *beside)) <= memory


def _is_orphan(lease: Lease, is_alive: Callable[[ProcessKey], bool]) -> bool:
    """Whether a kernel or command runs on though nobody answers for its lease any more."""
    if lease.state is not LeaseState.HELD or lease.process is None:
        return False
    return is_alive(lease.process) and (lease.asker == lease.process or not is_alive(lease.asker))
