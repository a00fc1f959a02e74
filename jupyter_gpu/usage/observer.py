"""Putting together what the driver, the ledger and the accounts say, again and again, for little.

What has not changed since the last time is not read or worked out anew: the ledger is asked for its revision first,
the accounts stay mapped, and caps follow from the leases.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ..leases.holdings import Holdings
from ..leases.lease import Lease, LeaseState
from ..leases.ledger import LedgerError
from .accounts import AccountBook
from .attribution import attribute
from .marks import Marks
from .snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..devices.device import Device
    from ..devices.processes import ProcessKey
    from ..host import GPUHost
    from ..leases.survey import Survey

IDLE_PERCENT = 1.0
_LEAST_STEP_S = 0.001
_OTHERS_AGE_S = 1.5
"""So old may be what is known of the leases of other servers and commands; one's own are known at once."""


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
        # On simulated devices nothing is known but from accounts.
        self._accounts = AccountBook(host.accounts.path, host.kinship.is_alive, turns=1 if host.simulated else 3)
        self._marks = Marks()
        self._number = 0
        self._time = 0.0
        self._survey: Survey | None = None
        self._revision = 0
        self._revision_at = float("-inf")
        self._read: tuple[int, int, tuple[Device, ...]] | None = None
        self._leases: list[Lease] = []
        self._caps: Mapping[tuple[str, str], int | None] = {}
        self._held: list[Lease] = []
        self._holds: list[tuple[str, str]] = []
        self._holdings: Mapping[str, Holdings] = {}
        self._processes: dict[str, ProcessKey | None] = {}
        self._roots: dict[str, tuple[ProcessKey, ...]] = {}
        self._ended: int | None = None
        """How many processes had ended when all of those lived."""
        self._alive: list[ProcessKey] = []
        """The processes that have to live for nothing to have changed."""
        self._lease_of: dict[str, Lease] = {}

    def observe(self, survey: Survey) -> Snapshot:
        """What there is, with the devices as in `survey`. Blocks on files.

        Where the ledger cannot be used, the leases are those that were seen last and are still alive.
        """
        with self._lock:
            changes = self._host.changes
            problem = None
            try:
                read = self._read_ledger(changes, survey)
            except LedgerError as error:
                problem, read, self._read = str(error), True, None
                self._take_leases(self._host.ledger.last_seen())
            accounts = self._accounts.read(self._held, check=read)
            seen = survey.by_device(self._roots)
            uses = attribute(survey, seen, self._holds, accounts, exact=self._host.simulated)
            self._number += 1
            if survey is not self._survey:
                # Clients ask for what is later than what they have: the clock may be set back, this may not.
                self._survey, self._time = survey, round(max(self._clock(), self._time + _LEAST_STEP_S), 3)
            marks, busy_at = self._marks.update(self._time, self._processes, uses, self._idle_percent)
            return Snapshot(
                number=self._number,
                time=self._time,
                survey=survey,
                leases=self._leases,
                caps=self._caps,
                uses=uses,
                marks=marks,
                busy_at=busy_at,
                process=self._host.process,
                changes=changes,
                lease_of=self._lease_of,
                seen=seen,
                holdings=self._holdings,
                accounts=accounts,
                name_of=self._host.kinship.name_of,
                ledger_problem=problem,
            )

    def _all_live(self) -> bool:
        """Whether nobody has died who could end a lease without a word."""
        ended = self._host.kinship.ended
        if ended is not None and ended == self._ended:
            return True
        if not self._host.kinship.all_alive(self._alive):
            return False
        self._ended = ended
        return True

    def close(self) -> None:
        """Let go of all files."""
        with self._lock:
            self._accounts.close()

    def _read_ledger(self, changes: int, survey: Survey) -> bool:
        """Read the leases if they, or the caps that follow from them, may have changed; whether that was so."""
        now = time.monotonic()
        if now - self._revision_at > _OTHERS_AGE_S or self._read is None or changes != self._read[0]:
            self._revision, self._revision_at = self._host.ledger.store.revision(), now
        state = (changes, self._revision, survey.inventory.devices)
        if state == self._read and self._all_live():
            return False
        self._take_leases(self._host.leases_now())
        self._read = state
        return True

    def _take_leases(self, leases: list[Lease]) -> None:
        self._leases = leases
        self._caps = self._host.caps_of(self._leases)
        self._held = [lease for lease in self._leases if lease.state is LeaseState.HELD]
        self._holds = [(lease.id, hold.uuid) for lease in self._held for hold in lease.holds]
        self._holdings = Holdings.of(self._held)
        self._processes = {lease.id: lease.process for lease in self._held}
        self._roots = {lease.id: (lease.process,) if lease.process else () for lease in self._held}
        self._alive = [lease.process or lease.asker for lease in self._leases]
        self._ended = None
        self._lease_of = {lease.id: lease for lease in self._leases}


def take_snapshot(host: GPUHost, survey: Survey) -> Snapshot:
    """One snapshot, for whoever needs no more. Blocks on files.

    Raises:
        LedgerError: the ledger cannot be used.
    """
    observer = Observer(host)
    try:
        snapshot = observer.observe(survey)
    finally:
        observer.close()
    if snapshot.ledger_problem is not None:
        raise LedgerError(snapshot.ledger_problem)
    return snapshot
