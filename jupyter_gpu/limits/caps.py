"""Keeping the accounts in step with the ledger: one account per lease, with the cap that its holds mean now.

A reserved hold is capped at its amount, a whole one at nothing but the device, and a shared one at what nobody has
reserved, which moves as reservations come and go.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from ..devices.processes import is_alive
from ..leases.lease import Lease, LeaseState
from ..leases.request import Hold
from ..paths import private_directory
from .account import Account, AccountError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ..devices.device import Device
    from ..leases.placement import LeaseHold


class AccountKeeper:
    """The accounts of all leases in a runtime directory. Its methods read and write small local files."""

    def __init__(self, directory: Path, log: logging.Logger | None = None) -> None:
        self.directory = directory / "accounts"
        self._log = log or logging.getLogger(__name__)
        self._totals: dict[str, int | None] = {}

    def know(self, devices: Iterable[Device]) -> None:
        """Note how much memory the devices have."""
        self._totals.update({device.uuid: device.memory_bytes for device in devices})

    def path(self, lease_id: str) -> Path:
        """Where the account of a lease is, or would be."""
        return self.directory / lease_id

    def apply(self, leases: Sequence[Lease]) -> None:
        """Make the accounts fit the leases: create, set caps, remove. Called inside the ledger's decision.

        What cannot be written is logged, and is no reason to refuse a lease: the other layers still hold.
        """
        held = [lease for lease in leases if lease.state is LeaseState.HELD]
        try:
            private_directory(self.directory.parent)
            private_directory(self.directory)
            for lease in held:
                self._apply_one(lease, held)
            self._remove_others({lease.id for lease in held})
        except Exception:  # noqa: BLE001 - a lease without an account is worth more than no lease
            self._log.warning("The memory accounts in %s cannot be kept.", self.directory, exc_info=True)

    def accounted(self, leases: Sequence[Lease]) -> dict[str, dict[str, int]]:
        """The bytes in use on each device by each lease, as its account says; leases without one are left out."""
        result = {}
        for lease in leases:
            with contextlib.suppress(AccountError), Account.open(self.path(lease.id)) as account:
                result[lease.id] = {device.uuid: device.used for device in account.read().devices}
        return result

    def cap(self, lease: Lease, hold: LeaseHold, held: Sequence[Lease]) -> int | None:
        """The most that a lease may have of a device, in bytes; `None` is no cap but the device itself."""
        if hold.hold is Hold.RESERVED:
            return hold.bytes
        total = self._totals.get(hold.uuid)
        if hold.hold is Hold.WHOLE or total is None:
            return total
        reserved = sum(
            other_hold.bytes or 0
            for other in held
            if other.id != lease.id
            for other_hold in other.holds
            if other_hold.uuid == hold.uuid
        )
        return max(0, total - reserved)

    def _apply_one(self, lease: Lease, held: Sequence[Lease]) -> None:
        caps = {hold.uuid: self.cap(lease, hold, held) for hold in lease.holds}
        path = self.path(lease.id)
        try:
            with Account.open(path) as account:
                if set(account.uuids) == set(caps):
                    for uuid, cap in caps.items():
                        account.set_cap(uuid, cap)
                    return
        except AccountError:
            pass
        Account.create(path, lease.id, [(uuid, cap, self._totals.get(uuid)) for uuid, cap in caps.items()]).close()

    def _remove_others(self, lease_ids: set[str]) -> None:
        for path in self.directory.iterdir():
            if path.name in lease_ids or path.name.startswith("."):
                continue
            # Processes that outlive their lease still hold memory: their account tells of it until they end.
            with contextlib.suppress(AccountError), Account.open(path) as account:
                if any(is_alive(process) for process in account.read().processes):
                    continue
            path.unlink(missing_ok=True)
