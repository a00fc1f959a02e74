"""The ledger's file: one SQLite database in the runtime directory, opened by every process that uses the ledger.

It is in WAL mode, on a directory local to the host. Nobody relies on SQLite's own waiting: whoever wants to write
waits for a turn first, where SQLite would sleep longer and longer.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
import uuid
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ..devices.processes import ProcessKey, boot_id
from ..paths import UnsafeDirectory, private_directory
from .lease import Ask, Lease, LeaseState, Origin, Owner
from .placement import LeaseHold
from .request import Hold
from .turn import StoppedHolder, Turn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SCHEMA_VERSION = 1
_BUSY_TIMEOUT_S = 3.0
_MOST_REPLACEMENTS = 10

_inherited: list[sqlite3.Connection] = []
"""Connections that came along with a fork. They are the parent's: to close one here could disturb it."""

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE leases (
    ticket INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    request TEXT NOT NULL,
    origin TEXT NOT NULL,
    owner_kind TEXT NOT NULL,
    label TEXT NOT NULL,
    kernel_id TEXT,
    path TEXT,
    asker_pid INTEGER NOT NULL,
    asker_start INTEGER NOT NULL,
    pid INTEGER,
    start INTEGER,
    created REAL NOT NULL,
    granted REAL,
    orphaned REAL,
    succeeds TEXT,
    message TEXT NOT NULL DEFAULT ''
);
CREATE TABLE holds (
    lease_id TEXT NOT NULL REFERENCES leases(id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    uuid TEXT NOT NULL,
    hold TEXT NOT NULL,
    bytes INTEGER,
    PRIMARY KEY (lease_id, place)
) WITHOUT ROWID;
"""
_SELECT = """
SELECT id, ticket, state, request, origin, owner_kind, label, kernel_id, path, asker_pid, asker_start, pid, start,
    created, granted, succeeds, message, orphaned, uuid, hold, bytes
FROM leases LEFT JOIN holds ON lease_id = id
"""
_FIRST_OF_HOLD = 18
_TICKET = 1


class LedgerError(Exception):
    """The ledger cannot be used. The message says why and what to do."""


class LeaseGone(Exception):  # noqa: N818 - it names what is the case
    """A lease or a waiting request that is no longer in the ledger: it was cancelled, or it was dropped."""


class LedgerStore:
    """The leases as rows. What they mean is for the `Ledger` to say. One connection per process, used in turn."""

    def __init__(self, directory: Path) -> None:
        """Nothing is opened until it is needed."""
        self.directory = directory
        self.path = directory / "ledger.sqlite"
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int, int] | None = None
        self._turn: Turn | None = None
        self._deciding = False
        self._file_id = ""
        self.failed = False
        """Whether the last decision that had something to write failed. The file may still be good to read."""
        self._read: dict[tuple[Any, ...], tuple[Lease, float | None]] = {}

    def close(self) -> None:
        """Close the file. The next call opens it again."""
        with self._lock:
            if self._connection is not None and self._opened is not None and self._opened[0] != os.getpid():
                _inherited.append(self._connection)
            elif self._connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.close()
            if self._turn is not None:
                self._turn.close()
            self._connection = self._turn = self._opened = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Alone on this host until the end of the `with`; an exception undoes all that was written in it.

        Raises:
            LedgerError: the file cannot be used.
        """
        with self._lock, self._errors(), self._noted_failure():
            connection = self._begin()
            changes = connection.total_changes
            self._deciding = True
            try:
                yield
                connection.execute("COMMIT")
                self.failed = self.failed and connection.total_changes == changes
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._deciding = False
                if self._turn is not None:
                    self._turn.pass_on()

    def verify(self) -> None:
        """Nothing, if the file can be written.

        Raises:
            LedgerError: it cannot.
        """
        with self.transaction():
            self._write("INSERT OR REPLACE INTO meta VALUES ('verified', ?)", str(time.time()))

    def revision(self) -> int:
        """A number that changes when another process has changed the file; cheap enough to ask often."""
        with self._lock, self._errors():
            return int(self._open().execute("PRAGMA data_version").fetchone()[0])

    def file_id(self) -> str:
        """What tells this file from every other, one that takes its place included."""
        with self._lock, self._errors():
            connection = self._open()
            if not self._deciding:
                self._require_version(connection)
            return self._file_id

    @property
    def writes(self) -> int:
        """A number that changes when this process has written."""
        return 0 if self._connection is None else self._connection.total_changes

    def rows(self) -> list[tuple[Lease, float | None]]:
        """Every lease in the file in order of arrival, and since when its process is gone (seconds since boot)."""
        with self._lock, self._errors():
            found = self._open().execute(_SELECT + "ORDER BY ticket, place").fetchall()
            # Most rows are those of the last reading: what they mean is not worked out again.
            grouped = [tuple(rows) for _, rows in groupby(found, lambda row: row[_TICKET])]
            self._read = {rows: self._read.get(rows) or _entry(rows) for rows in grouped}
            return list(self._read.values())

    def one(self, lease_id: str) -> Lease:
        """The lease with this id.

        Raises:
            LeaseGone: there is none.
        """
        with self._lock, self._errors():
            rows = self._open().execute(_SELECT + "WHERE id = ? ORDER BY place", (lease_id,)).fetchall()
        if not rows:
            raise LeaseGone("the lease is in the ledger no more: it was cancelled, or its process ended")
        return _entry(tuple(rows))[0]

    def insert(self, ask: Ask, state: LeaseState) -> None:
        """Add a lease without holds."""
        self._write(
            "INSERT INTO leases (id, state, request, origin, owner_kind, label, kernel_id, path, asker_pid, "
            "asker_start, created, succeeds) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ask.id, state.value, ask.request, ask.origin.value, ask.owner.kind, ask.owner.label, ask.owner.kernel_id,
            ask.owner.path, ask.asker.pid, ask.asker.start_time, time.time(), ask.succeeds,
        )  # fmt: skip

    def put_back(self, lease: Lease) -> None:
        """Add a lease that another file had, behind those that are here."""
        process = lease.process or (None, None)
        self._write(
            "INSERT INTO leases (id, state, request, origin, owner_kind, label, kernel_id, path, asker_pid, "
            "asker_start, pid, start, created, granted, succeeds, message) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            lease.id, lease.state.value, lease.request, lease.origin.value, lease.owner.kind, lease.owner.label,
            lease.owner.kernel_id, lease.owner.path, *lease.asker, *process, lease.created, lease.granted,
            lease.succeeds, lease.message,
        )  # fmt: skip
        self._hold(lease.id, lease.holds)

    def grant(self, lease_id: str, holds: Sequence[LeaseHold]) -> None:
        """Give a lease its holds, in place of those it had."""
        self._write("DELETE FROM holds WHERE lease_id = ?", lease_id)
        self._hold(lease_id, holds)
        self._write(
            "UPDATE leases SET state = 'held', granted = coalesce(granted, ?), message = '' WHERE id = ?",
            time.time(), lease_id,
        )  # fmt: skip

    def delete(self, lease_id: str, state: LeaseState | None = None) -> bool:
        """Remove a lease (of that state only, if one is given); whether there was one."""
        if state is None:
            return self._write("DELETE FROM leases WHERE id = ?", lease_id) > 0
        return self._write("DELETE FROM leases WHERE id = ? AND state = ?", lease_id, state.value) > 0

    def set_process(self, lease_id: str, process: ProcessKey) -> None:
        """Note the process that uses a lease."""
        self._write(
            "UPDATE leases SET pid = ?, start = ?, orphaned = NULL WHERE id = ?",
            process.pid, process.start_time, lease_id,
        )  # fmt: skip

    def set_orphaned(self, lease_id: str, since: float | None) -> None:
        """Note since when (seconds since boot) the process of a lease is gone."""
        self._write("UPDATE leases SET orphaned = ? WHERE id = ?", since, lease_id)

    def set_message(self, lease_id: str, message: str) -> None:
        """Note what a request waits for."""
        self._write("UPDATE leases SET message = ? WHERE id = ?", message, lease_id)

    def set_request(self, lease_id: str, request: str) -> None:
        """Note another request for a lease."""
        self._write("UPDATE leases SET request = ? WHERE id = ?", request, lease_id)

    def set_owner(self, lease_id: str, owner: Owner) -> None:
        """Note another name or notebook for a lease's owner."""
        self._write("UPDATE leases SET label = ?, path = ? WHERE id = ?", owner.label, owner.path, lease_id)

    def _hold(self, lease_id: str, holds: Sequence[LeaseHold]) -> None:
        for number, hold in enumerate(holds):
            self._write(
                "INSERT INTO holds (lease_id, place, uuid, hold, bytes) VALUES (?, ?, ?, ?, ?)",
                lease_id, number, hold.uuid, hold.hold.value, hold.bytes,
            )  # fmt: skip

    def _write(self, statement: str, *values: Any) -> int:
        with self._lock, self._errors():
            return self._open().execute(statement, values).rowcount

    @contextlib.contextmanager
    def _noted_failure(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, LedgerError, UnsafeDirectory, StoppedHolder):
            self.failed = True
            raise

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (UnsafeDirectory, StoppedHolder) as error:
            if not self._deciding:
                self.close()
            raise LedgerError(str(error)) from error
        except LedgerError:
            if not self._deciding:
                self.close()
            raise
        except (sqlite3.Error, OSError) as error:
            if not self._deciding:
                self.close()
            raise LedgerError(
                f"the ledger {self.path} cannot be used ({error}); free space or repair permissions there, or, with no "
                "Jupyter server running, remove the file"
            ) from error

    def _begin(self) -> sqlite3.Connection:
        """The connection, in a transaction that nobody else is in."""
        for _ in range(_MOST_REPLACEMENTS):
            connection = self._open()
            assert self._turn is not None
            self._turn.take()
            if self._opened == self._identity():
                connection.execute("BEGIN IMMEDIATE")
                self._require_version(connection)
                return connection
            # The file was replaced while this process waited for its turn.
            self._turn.pass_on()
        raise LedgerError(f"the ledger {self.path} is replaced again and again; find out by whom")

    def _open(self) -> sqlite3.Connection:
        """The connection, opened anew when the file has been replaced or this is a forked child."""
        if self._connection is not None and (self._deciding or self._opened == self._identity()):
            return self._connection
        self.close()
        private_directory(self.directory)
        turn = Turn(self.directory)
        try:
            turn.take()
            connection = self._connect()
            turn.pass_on()
        except BaseException:
            turn.close()
            raise
        self._connection, self._turn, self._opened = connection, turn, self._identity()
        return connection

    def _identity(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.lstat()
        except OSError:
            return None
        return os.getpid(), status.st_dev, status.st_ino

    def _connect(self) -> sqlite3.Connection:
        with contextlib.suppress(FileNotFoundError):
            status = self.path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
                raise LedgerError(f"the ledger {self.path} is a symbolic link or no file of this user; remove it")
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            self.path.chmod(0o600)
            connection.execute("PRAGMA journal_mode = WAL")
            # The file does not outlive the boot, so it need not survive a loss of power, only of processes.
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA foreign_keys = ON")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the tables, or empty those that an earlier boot left."""
        version = self._require_version(connection, 0)
        connection.execute("BEGIN IMMEDIATE")
        try:
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute("INSERT INTO meta VALUES ('boot', ?)", (boot_id(),))
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif connection.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone() != (boot_id(),):
                connection.execute("DELETE FROM leases")
                connection.execute("UPDATE meta SET value = ? WHERE key = 'boot'", (boot_id(),))
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('file', ?)", (uuid.uuid4().hex,))
            self._file_id = connection.execute("SELECT value FROM meta WHERE key = 'file'").fetchone()[0]
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def _require_version(self, connection: sqlite3.Connection, *others: int) -> int:
        """The version of the tables, which another program may have brought to its own while the file was open."""
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version not in (SCHEMA_VERSION, *others):
            raise LedgerError(
                f"the ledger {self.path} has version {version}, and this software reads version {SCHEMA_VERSION}; "
                "use the same version of jupyter_gpu in every server, or remove the file once none runs"
            )
        return version


def _entry(rows: tuple[Sequence[Any], ...]) -> tuple[Lease, float | None]:
    """The lease that joined rows describe, one row for each of its holds, and since when its process is gone."""
    (
        lease_id, ticket, state, request, origin, kind, label, kernel_id, path, asker_pid, asker_start, pid, start,
        created, granted, succeeds, message, orphaned,
    ) = rows[0][:_FIRST_OF_HOLD]  # fmt: skip
    holds = tuple(LeaseHold(row[-3], Hold(row[-2]), row[-1]) for row in rows if row[-3] is not None)
    lease = Lease(
        id=lease_id,
        ticket=ticket,
        state=LeaseState(state),
        request=request,
        origin=Origin(origin),
        owner=Owner(kind, label, kernel_id, path),
        asker=ProcessKey(asker_pid, asker_start),
        process=None if pid is None else ProcessKey(pid, start),
        holds=holds,
        created=created,
        granted=granted,
        succeeds=succeeds,
        message=message,
    )
    return lease, orphaned
