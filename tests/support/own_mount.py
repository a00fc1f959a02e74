"""A server that sees a small file system of its own at its runtime directory, to be filled or made read-only.

It is mounted in a mount namespace: nobody but the server and its kernels sees it, and it goes with them.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

_SIZE = "1m"
_SQL = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement)
print("done", flush=True)
sys.stdin.read()
"""


class OwnMount:
    """The file system at `directory`, from the moment on that `python` has been started as a server."""

    def __init__(self, directory: Path, *, read_only: bool = False) -> None:
        self.directory = directory
        self._user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
        self._pid = 0
        if subprocess.run(["unshare", *self._user, "--mount", "true"], check=False, capture_output=True).returncode:
            pytest.skip("no mount namespace can be made here")
        mount = f"mount -t tmpfs -o size={_SIZE},mode=700{',ro' if read_only else ''} faults '{directory}'"
        then = f'{mount} && exec "$@"'
        self.python = directory.parent / f"{directory.name}.python"
        command = ["unshare", *self._user, "--mount", "sh", "-c", then, "sh", sys.executable]
        self.python.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        self.python.chmod(0o700)

    def enter(self, pid: int) -> None:
        """Note a process that sees the file system."""
        self._pid = pid

    @property
    def path(self) -> Path:
        """Where the file system's files can be read and changed from outside."""
        return Path(f"/proc/{self._pid}/root{self.directory}")

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command where the file system is."""
        variables = {**os.environ, **environment}
        return subprocess.run(
            self._inside(command), check=False, capture_output=True, text=True, env=variables, timeout=120
        )

    @contextlib.contextmanager
    def sql(self, database: str, *statements: str) -> Iterator[None]:
        """Have another program with a database in the directory open, which has executed the statements.

        It closes it, and so ends its transaction, with the `with`.
        """
        program = [sys.executable, "-c", _SQL, str(self.directory / database), *statements]
        with subprocess.Popen(self._inside(program), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == b"done\n"
            yield
            process.stdin.close()

    def _inside(self, command: Sequence[str]) -> list[str]:
        user = ["--user", "--preserve-credentials"] if self._user else []
        return ["nsenter", "--target", str(self._pid), *user, "--mount", "--", *command]

    def fill(self) -> None:
        """Leave no space."""
        with (self.path / "ballast").open("ab", buffering=0) as ballast:
            size = 65536
            while size:
                try:
                    ballast.write(b"x" * size)
                except OSError:
                    size //= 2

    def empty(self) -> None:
        """Undo `fill`."""
        (self.path / "ballast").unlink()

    def make_read_only(self) -> None:
        """Let nothing new be written, while what is open for writing stays so."""
        where = str(self.directory)
        self._must("mount", "--bind", where, where)
        self._must("mount", "-o", "remount,bind,ro", where)

    def make_writable(self) -> None:
        """Undo `make_read_only`."""
        self._must("umount", str(self.directory))

    def remount(self, option: str) -> None:
        """Remount the whole file system `rw`; what was mounted read-only from the start can be written then."""
        self._must("mount", "-o", f"remount,{option}", str(self.directory))

    def _must(self, *command: str) -> None:
        done = self.run(*command)
        assert done.returncode == 0, done.stderr
