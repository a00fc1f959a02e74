"""Whose turn it is to write to the ledger: one process at a time, in order of arrival, until it lets go or ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

from ..devices.processes import is_stopped

if TYPE_CHECKING:
    from pathlib import Path

_STOPPED_TRIES, _STOPPED_RETRY_S = 10, 0.2
_LONGEST_PID = 20


class StoppedHolder(Exception):  # noqa: N818 - it names what was found
    """The process whose turn it is was stopped. The message says which and what to do."""


class Turn:
    """The right to decide, of one process at a time, in order of arrival.

    Two locked files, since one would not keep the order: who has just let go of it and wants it again would get it
    before those whom Linux wakes for it. With two, they stand behind the one that waits for the second.
    """

    def __init__(self, directory: Path) -> None:
        self._files: list[int] = []
        try:
            for name in ("ledger.queue", "ledger.lock"):
                path = str(directory / name)
                self._files.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except BaseException:
            self.close()
            raise

    def take(self) -> None:
        """Wait for it.

        Raises:
            StoppedHolder: a process that was stopped (Ctrl+Z, a debugger) has it, and would for ever.
        """
        queue, turn = self._files
        _lock(queue)
        try:
            _lock(turn)
        finally:
            fcntl.flock(queue, fcntl.LOCK_UN)

    def pass_on(self) -> None:
        """Let go of it."""
        fcntl.flock(self._files[1], fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the files, and so let go of it, unless a process that was forked meanwhile has them open too."""
        while self._files:
            os.close(self._files.pop())


def _lock(file: int) -> None:
    holder = 0
    for _ in range(_STOPPED_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        holder = int(os.pread(file, _LONGEST_PID, 0) or 0)
        if not is_stopped(holder):
            fcntl.flock(file, fcntl.LOCK_EX)
            break
        time.sleep(_STOPPED_RETRY_S)
    else:
        raise StoppedHolder(
            f"the process {holder} was stopped (Ctrl+Z, a debugger) in the middle of a decision on leases; continue it "
            f"with kill -CONT {holder}, or end it"
        )
    os.pwrite(file, b"%-*d" % (_LONGEST_PID, os.getpid()), 0)
