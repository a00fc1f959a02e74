"""Putting together what the driver, the ledger and the accounts say, again and again, for little.

What has not changed since the last time is not read or worked out anew: the ledger is asked for its revision first,
the accounts stay mapped, and caps follow from the leases.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ..leases.lease import Lease, LeaseState
from ..leases.ledger import device_states
from .accounts import AccountBook
from .attribution import attribute
from .marks import Marks
from .snapshot import ForeignProcess, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..devices.device import Device
    from ..devices.processes import ProcessKey
    from ..host import GPUHost
    from ..leases.survey import OnDevice, Survey, Taken

IDLE_PERCENT = 1.0
_LEAST_STEP_S = 0.001


class Observer:
    """Takes snapshots of one host. Safe for several threads; one snapshot is taken at a time."""

    def __init__(
        self, host: GPUHost, *, idle_percent: float = IDLE_PERCENT, clock: Callable[[], float] = time.time
    ) -> None:
        """Nothing is read until it is needed.

        Args:
            host: the devices, the ledger and the accounts.
            idle_percent: up to this utilisation a device counts as idle.
            clock: seconds since the epoch.
        """
        self._host = host
        self._idle_percent = idle_percent
        self._clock = clock
        self._lock = threading.Lock()
        self._accounts = AccountBook(host.accounts.path, host.kinship.is_alive)
        self._marks = Marks()
        self._number = 0
        self._time = 0.0
        self._survey: Survey | None = None
        self._read: tuple[int, int, tuple[Device, ...]] | None = None
        self._leases: list[Lease] = []
        self._caps: Mapping[tuple[str, str], int | None] = {}
        self._roots: dict[str, tuple[ProcessKey, ...]] = {}
        self._lease_of: dict[str, Lease] = {}

    def observe(self, survey: Survey) -> Snapshot:
        """What there is, with the devices as in `survey`. Blocks on files.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        with self._lock:
            changes = self._host.changes
            read = self._read_ledger(changes, survey)
            held = [lease for lease in self._leases if lease.state is LeaseState.HELD]
            accounts = self._accounts.read(held, check=read)
            seen = survey.by_device(survey.owners(self._roots))
            accounted = {
                lease_id: {uuid: device.used for uuid, device in account.devices.items()}
                for lease_id, account in accounts.items()
                if account.counts
            }
            in_use = {uuid: there.taken(survey.usage[uuid], accounted) for uuid, there in seen.items()}
            uses = attribute(survey, seen, held, accounts, exact=self._host.simulated)
            self._number += 1
            if survey is not self._survey:
                # Clients ask for what is later than what they have: the clock may be set back, this may not.
                self._survey, self._time = survey, round(max(self._clock(), self._time + _LEAST_STEP_S), 3)
            return Snapshot(
                number=self._number,
                time=self._time,
                survey=survey,
                leases=self._leases,
                states={state.device.uuid: state for state in device_states(held, survey, in_use)},
                caps=self._caps,
                uses=uses,
                marks=self._marks.update(self._time, self._lease_of, uses, self._idle_percent),
                foreign={uuid: self._foreign(there, in_use[uuid]) for uuid, there in seen.items() if there.foreign},
                process=self._host.process,
                changes=changes,
                lease_of=self._lease_of,
            )

    def _foreign(self, there: OnDevice, taken: Taken) -> list[ForeignProcess]:
        """The processes that no lease covers.

        Those that cannot be found here may well be a lease's. They are listed only if it has to be somebody else's
        memory that they hold.
        """
        name_of = self._host.kinship.name_of
        return [
            ForeignProcess(process.pid, name_of(process.pid) if process.lineage else None, process.memory_bytes)
            for process in there.foreign
            if process.lineage or taken.foreign_bytes
        ]

    def close(self) -> None:
        """Let go of all files."""
        with self._lock:
            self._accounts.close()

    def _read_ledger(self, changes: int, survey: Survey) -> bool:
        """Read the leases if they, or the caps that follow from them, may have changed; whether that was so."""
        state = (changes, self._host.ledger.store.revision(), survey.inventory.devices)
        # Whoever dies may end a lease without a word.
        if state == self._read and self._host.kinship.all_alive(lease.process or lease.asker for lease in self._leases):
            return False
        self._leases = self._host.leases_now()
        self._read = state
        self._caps = self._host.caps_of(self._leases)
        self._roots = {
            lease.id: (lease.process,) if lease.process else ()
            for lease in self._leases
            if lease.state is LeaseState.HELD
        }
        self._lease_of = {lease.id: lease for lease in self._leases}
        return True


def take_snapshot(host: GPUHost, survey: Survey) -> Snapshot:
    """One snapshot, for whoever needs no more. Blocks on files.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    observer = Observer(host)
    try:
        return observer.observe(survey)
    finally:
        observer.close()
