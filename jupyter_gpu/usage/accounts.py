"""The accounts of all leases, read again and again: kept mapped, and worked out anew only where something changed."""

from __future__ import annotations

import contextlib
import mmap
import os
from typing import TYPE_CHECKING, NamedTuple

from ..limits.account_file import HEADER_SIZE, AccountContent, AccountError, checked_size, open_file, read_account

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from ..devices.processes import ProcessKey
    from ..leases.lease import Lease
    from ..limits.account_file import AccountDevice, AccountReading

_MOST_MAPPED = 256
"""Each takes a file descriptor; more accounts than this are opened for every reading."""


class LeaseAccount(NamedTuple):
    """What a lease's account says."""

    devices: Mapping[str, AccountDevice]
    """By UUID."""
    counts: bool
    """Whether any process counts in it what it allocates."""
    processes: frozenset[ProcessKey] = frozenset()
    """Those that do."""


NO_ACCOUNT = LeaseAccount({}, False)


class AccountBook:
    """What the accounts of leases say. Not safe for several threads at once."""

    def __init__(
        self,
        path_of: Callable[[str], Path],
        alive: Callable[[ProcessKey], bool],
        *,
        most_mapped: int = _MOST_MAPPED,
        turns: int = 3,
    ) -> None:
        """Nothing is opened until it is needed.

        Args:
            path_of: where the account of a lease is.
            alive: whether a process still runs.
            most_mapped: how many accounts may be kept mapped.
            turns: an account in which nothing counts may begin to say something at any time; it is looked at every so
                many times.
        """
        self._path_of = path_of
        self._alive = alive
        self._most_mapped = most_mapped
        self._mapped: dict[str, _MappedAccount] = {}
        self._unmapped: list[Lease] = []
        """Those for which no more files could be mapped."""
        self._found: dict[str, LeaseAccount] = {}
        self._turns, self._turn = turns, 0

    def read(self, leases: Iterable[Lease], *, check: bool) -> dict[str, LeaseAccount]:
        """What the account of each lease that has devices says now; leases without a usable one are left out.

        Args:
            leases: the leases that have been granted.
            check: whether the files may have been replaced since the last call, as happens with decisions only.
        """
        if check:
            self._begin_anew(leases)
        else:
            self._turn = (self._turn + 1) % self._turns
            for place, (lease_id, mapped) in enumerate(self._mapped.items()):
                if mapped.counts or place % self._turns == self._turn:
                    self._found[lease_id] = mapped.read(self._alive)
            for lease in self._unmapped:
                self._read_once(lease)
        # Whoever gets it keeps it.
        return dict(self._found)

    def close(self) -> None:
        """Let go of all files. The next reading opens them again."""
        for mapped in self._mapped.values():
            mapped.close()
        self._mapped.clear()
        self._found.clear()

    def _begin_anew(self, leases: Iterable[Lease]) -> None:
        """Read the accounts of these leases, and unmap those of others and those that have been replaced."""
        holding = {lease.id: lease for lease in leases if lease.holds}
        for lease_id, mapped in list(self._mapped.items()):
            if lease_id not in holding or not mapped.is_current():
                self._mapped.pop(lease_id).close()
        self._found = {lease_id: mapped.read(self._alive) for lease_id, mapped in self._mapped.items()}
        self._unmapped = []
        for lease in holding.values():
            if lease.id not in self._mapped:
                self._map(lease)

    def _map(self, lease: Lease) -> None:
        if len(self._mapped) < self._most_mapped:
            try:
                mapped = self._mapped[lease.id] = _MappedAccount(self._path_of(lease.id))
            except AccountError:
                return
            self._found[lease.id] = mapped.read(self._alive)
        else:
            self._unmapped.append(lease)
            self._read_once(lease)

    def _read_once(self, lease: Lease) -> None:
        self._found.pop(lease.id, None)
        with contextlib.suppress(AccountError):
            self._found[lease.id] = _meaning(read_account(self._path_of(lease.id)))


def _meaning(reading: AccountReading) -> LeaseAccount:
    devices = {device.uuid: device for device in reading.devices}
    return LeaseAccount(devices, bool(reading.processes), frozenset(reading.processes))


class _MappedAccount:
    def __init__(self, path: Path) -> None:
        """Map the account at `path`.

        Raises:
            AccountError: there is none that can be used.
        """
        file = open_file(path)
        try:
            size = checked_size(path, file)
            status = os.fstat(file)
            self._map = mmap.mmap(file, size, prot=mmap.PROT_READ)
            self._content = AccountContent(path, self._map)
        except (OSError, ValueError) as error:
            raise AccountError(f"the account {path} cannot be mapped: {error}") from error
        finally:
            os.close(file)
        self._path = path
        self._identity = (status.st_dev, status.st_ino)
        self._size = HEADER_SIZE
        """How many bytes say something. Whoever uses more of the file notes it in the header first."""
        self._image = b""
        self._processes: tuple[ProcessKey, ...] = ()
        self._account = NO_ACCOUNT
        self.counts = False
        """Whether any process counted in it when it was last read."""

    def is_current(self) -> bool:
        """Whether the file that was mapped is still the one at its path."""
        try:
            status = self._path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def read(self, alive: Callable[[ProcessKey], bool]) -> LeaseAccount:
        """What it says now."""
        # Most accounts say the same as a second ago, and comparing is all that is done with those.
        image = self._map[: self._size]
        if image != self._image or (self._processes and not all(map(alive, self._processes))):
            self._size = self._content.size_in_use()
            self._image = self._map[: self._size]
            reading = AccountContent(self._path, self._image).read(alive)
            self._processes, self._account = tuple(reading.processes), _meaning(reading)
            self.counts = self._account.counts
        return self._account

    def close(self) -> None:
        """Unmap it."""
        self._content.release()
        self._map.close()
