"""The command as people run it: `jupyter gpu …` in a process of its own, on simulated GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_gpu.devices.processes import process_key
from jupyter_gpu.leases.lease import Ask, Lease, Origin, Owner
from jupyter_gpu.leases.ledger import Ledger
from jupyter_gpu.limits.account import Account

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jupyter_gpu.host import GPUHost

JUPYTER = Path(sys.executable).parent / "jupyter"


class Command:
    """Runs `jupyter gpu`, away from this machine's configuration and kernelspecs."""

    def __init__(self, home: Path) -> None:
        self.environment = {
            **os.environ,
            "PATH": f"{JUPYTER.parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "COLUMNS": "120",
        }
        self._running: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str, status: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [JUPYTER, "gpu", *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if status is not None:
            assert done.returncode == status, done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, status: int = 0, **environment: str) -> Any:
        """What it prints with `--json`."""
        return json.loads(self(*arguments, "--json", status=status, **environment).stdout)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Run it beside the test; it ends with the test."""
        process = subprocess.Popen(
            [JUPYTER, "gpu", *arguments],
            env={**self.environment, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def gpu(simulated_gpus: str, tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path)
    yield command
    command.close()


@pytest.fixture
def take(host: GPUHost) -> Callable[..., Lease]:
    """Holds devices for this process, as a server would for a kernel."""

    def take(request: str, label: str = "A.ipynb", *, wait: bool = False) -> Lease:
        me = process_key()
        assert me is not None
        ask = Ask(
            f"id-{len(host.leases_now())}", request, Origin.API, Owner("kernel", label, "k", label), me, wait=wait
        )
        lease = host.ask_now(ask)
        assert isinstance(lease, Lease)
        return lease

    return take


@pytest.fixture
def use(host: GPUHost) -> Iterator[Callable[[Lease, int], None]]:
    """Uses memory of a lease's first device."""
    opened: list[Account] = []

    def use(lease: Lease, amount: int) -> None:
        opened.append(Account.open(host.accounts.path(lease.id)))
        opened[-1].allocate(opened[-1].uuids[0], amount)

    yield use
    for account in opened:
        account.close()


@pytest.fixture
def ledger(runtime_directory: Path) -> Iterator[Ledger]:
    ledger = Ledger(runtime_directory)
    yield ledger
    ledger.close()


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits for a condition, for so long at most."""

    def until(condition: Callable[[], object], limit_s: float = 30) -> None:
        end = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < end, "it did not come to be"
            time.sleep(0.02)

    return until
