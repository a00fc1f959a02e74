"""Keeping the accounts in step with the ledger: one account per lease, with the cap that its holds mean now.

A reserved hold is capped at its amount, a whole one at nothing but the device, and a shared one at what nobody has
reserved, which moves as reservations come and go.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

from ..leases.lease import Lease, LeaseState
from ..leases.request import Hold
from ..paths import private_directory
from .account import Account
from .account_file import AccountError, account_limits, has_caps, read_account, write_account

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from ..devices.device import Device
    from ..leases.placement import LeaseHold


class AccountKeeper:
    """The accounts of all leases in a runtime directory. Its methods read and write small local files."""

    def __init__(self, directory: Path, log: logging.Logger | None = None) -> None:
        self.directory = directory / "accounts"
        self._log = log or logging.getLogger(__name__)
        self._totals: dict[str, int | None] = {}
        self._paths: dict[str, Path] = {}

    def know(self, devices: Iterable[Device]) -> None:
        """Note how much memory the devices have."""
        self._totals.update({device.uuid: device.memory_bytes for device in devices})

    def path(self, lease_id: str) -> Path:
        """Where the account of a lease is, or would be."""
        if lease_id not in self._paths:
            self._paths[lease_id] = self.directory / lease_id
        return self._paths[lease_id]

    def apply(self, leases: Sequence[Lease]) -> Callable[[], None]:
        """Make the accounts fit the leases: create them and set caps. Called inside the ledger's decision.

        What cannot be written is logged, and is no reason to refuse a lease: the other layers still hold.

        Returns:
            What is left to do once the decision has been made: removing the accounts of leases that have ended. Nobody
            waits for that, and a lease that has ended never comes back.
        """
        held = [lease for lease in leases if lease.state is LeaseState.HELD]
        self._learn(held)
        reserved: dict[str, int] = {}
        for hold in (hold for lease in held for hold in lease.holds):
            reserved[hold.uuid] = reserved.get(hold.uuid, 0) + (hold.bytes or 0)
        for lease in held:
            caps = {hold.uuid: self._cap(hold, reserved[hold.uuid]) for hold in lease.holds}
            try:
                if not has_caps(self.path(lease.id), caps):
                    self._write(lease, caps)
            except Exception:  # noqa: BLE001 - a lease without an account is worth more than no lease
                self._log.warning("The memory account of %s cannot be kept.", lease.owner.label, exc_info=True)
        ids = {lease.id for lease in held}
        ended = self._names() - ids
        self._paths = {lease_id: path for lease_id, path in self._paths.items() if lease_id in ids}
        return lambda: self._remove(ended)

    def accounted(self, leases: Sequence[Lease]) -> dict[str, dict[str, int]]:
        """The bytes in use on each device by each lease, as its account says; leases without one are left out."""
        result = {}
        for lease in leases:
            with contextlib.suppress(AccountError):
                result[lease.id] = {device.uuid: device.used for device in read_account(self.path(lease.id)).devices}
        return result

    def begin_peaks(self, lease_id: str) -> None:
        """Begin the peaks of a lease's account anew: the process that uses it has just been started.

        What the driver took for itself went with the process before.
        """
        with contextlib.suppress(AccountError), Account.open(self.path(lease_id)) as account:
            for uuid in account.uuids:
                account.reset_peak(uuid)
                account.set_overhead(uuid, 0)

    def cap(self, lease: Lease, hold: LeaseHold, held: Sequence[Lease]) -> int | None:
        """The most that a lease may have of a device, in bytes; `None` is no cap but the device itself."""
        reserved = sum(
            other_hold.bytes or 0
            for other in held
            if other.id != lease.id
            for other_hold in other.holds
            if other_hold.uuid == hold.uuid
        )
        return self._cap(hold, reserved)

    def _cap(self, hold: LeaseHold, reserved: int) -> int | None:
        if hold.hold is Hold.RESERVED:
            return hold.bytes
        total = self._totals.get(hold.uuid)
        return total if hold.hold is Hold.WHOLE or total is None else max(0, total - reserved)

    def _learn(self, held: Sequence[Lease]) -> None:
        """Take the memory of devices that this process has not looked at yet from the accounts of those that have."""
        for lease in held:
            if all(self._totals.get(hold.uuid) is not None for hold in lease.holds):
                continue
            with contextlib.suppress(AccountError):
                for uuid, (_, total) in account_limits(self.path(lease.id)).items():
                    self._totals[uuid] = self._totals.get(uuid) or total

    def _write(self, lease: Lease, caps: Mapping[str, int | None]) -> None:
        path = self.path(lease.id)
        with contextlib.suppress(AccountError), Account.open(path) as account:
            if account.uuids == tuple(caps):
                for uuid, cap in caps.items():
                    account.set_cap(uuid, cap)
                return
        private_directory(self.directory.parent)
        private_directory(self.directory)
        write_account(path, lease.id, [(uuid, cap, self._totals.get(uuid)) for uuid, cap in caps.items()])

    def _names(self) -> set[str]:
        """The files that there are now, drafts of processes that were killed at writing one among them."""
        try:
            return set(os.listdir(self.directory))
        except OSError:
            return set()

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            path = self.directory / name
            # Processes that outlive their lease still hold memory: their account tells of it until they end.
            with contextlib.suppress(AccountError):
                if read_account(path).processes:
                    continue
            with contextlib.suppress(OSError):
                path.unlink()
