"""Caps in account files follow the ledger."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jupyter_gpu.devices.device import Device, DeviceUsage, Inventory
from jupyter_gpu.devices.processes import process_key
from jupyter_gpu.leases.lease import Ask, Lease, LeaseState, Origin, Owner
from jupyter_gpu.leases.ledger import Ledger
from jupyter_gpu.leases.request import GPURequest
from jupyter_gpu.leases.survey import Survey
from jupyter_gpu.limits.account import Account
from jupyter_gpu.limits.account_file import account_limits
from jupyter_gpu.limits.caps import AccountKeeper

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GIB = 1 << 30
DEVICES = (Device("GPU-0", "0", "NVIDIA A100", 40 * GIB), Device("GPU-1", "1", "NVIDIA A100", 40 * GIB))
SURVEY = Survey(Inventory(DEVICES))


class Server:
    """A ledger whose changes keep the accounts, as in every server."""

    def __init__(self, directory: Path, *, looked: bool = True) -> None:
        self.keeper = AccountKeeper(directory)
        if looked:
            self.keeper.know(DEVICES)
        self.ledger = Ledger(directory, on_change=self.keeper.apply, accounted=self.keeper.accounted)

    def ask(self, request: str, label: str) -> Lease:
        me = process_key()
        assert me is not None
        lease = self.ledger.ask(Ask(label, request, Origin.API, Owner("kernel", label), me), SURVEY)
        assert isinstance(lease, Lease)
        return lease

    def cap(self, label: str, uuid: str = "GPU-0") -> int | None:
        return account_limits(self.keeper.path(label))[uuid][0]


@pytest.fixture
def server(runtime_directory: Path) -> Iterator[Server]:
    server = Server(runtime_directory)
    yield server
    server.ledger.close()


def test_a_reserved_lease_is_capped_at_its_amount_and_a_whole_one_at_the_device(server: Server) -> None:
    server.ask("0:8GiB,1:all", "A")
    assert account_limits(server.keeper.path("A")) == {"GPU-0": (8 * GIB, 40 * GIB), "GPU-1": (40 * GIB, 40 * GIB)}


def test_the_account_is_private_and_names_the_devices_in_the_order_of_the_lease(server: Server) -> None:
    server.ask("1,0", "A")
    path = server.keeper.path("A")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with Account.open(path) as account:
        assert account.uuids == ("GPU-1", "GPU-0")
        assert account.lease_id == "A"


def test_shared_caps_move_as_reservations_come_and_go(server: Server) -> None:
    server.ask("0", "A")
    server.ask("0", "B")
    assert (server.cap("A"), server.cap("B")) == (40 * GIB, 40 * GIB)
    server.ask("0:10GiB", "C")
    assert (server.cap("A"), server.cap("B"), server.cap("C")) == (30 * GIB, 30 * GIB, 10 * GIB)
    server.ledger.change("C", GPURequest.parse("auto:16GiB"), SURVEY)
    assert (server.cap("A"), server.cap("B"), server.cap("C")) == (24 * GIB, 24 * GIB, 16 * GIB)
    server.ask("1:30GiB", "D")
    assert server.cap("A") == 24 * GIB, "that is another device"
    server.ledger.release("C")
    assert (server.cap("A"), server.cap("B")) == (40 * GIB, 40 * GIB)


def test_a_kernel_feels_its_cap_move_while_it_runs(server: Server) -> None:
    server.ask("0", "A")
    with Account.open(server.keeper.path("A")) as in_kernel:
        in_kernel.allocate("GPU-0", 25 * GIB)
        in_kernel.free("GPU-0", 5 * GIB)
        server.ask("0:18GiB", "B")
        with pytest.raises(MemoryError, match="the cap of this kernel is 22 GiB"):
            in_kernel.allocate("GPU-0", 3 * GIB)
        server.ledger.release("B")
        in_kernel.allocate("GPU-0", 3 * GIB)


def test_a_dead_leases_reservation_is_given_back_to_those_that_share(server: Server) -> None:
    server.ask("0", "A")
    process = subprocess.Popen(["/bin/sh", "-c", "read line"], stdin=subprocess.PIPE)
    server.ask("0:10GiB", "B")
    key = process_key(process.pid)
    assert key is not None
    server.ledger.start("B", key)
    assert server.cap("A") == 30 * GIB
    process.communicate(b"\n")
    impatient = Ledger(server.ledger.store.directory, on_change=server.keeper.apply, orphan_grace_s=0)
    impatient.drop_dead()
    impatient.drop_dead()
    impatient.close()
    assert server.cap("A") == 40 * GIB


def test_another_server_that_has_not_looked_at_the_devices_keeps_the_caps_of_all(
    server: Server, runtime_directory: Path
) -> None:
    server.ask("0", "A")
    server.ask("0:10GiB", "B")
    blind = Server(runtime_directory, looked=False)
    blind.ask("cpu", "C")
    assert (server.cap("A"), server.cap("B")) == (30 * GIB, 10 * GIB)
    blind.ledger.release("B")
    assert server.cap("A") == 40 * GIB
    blind.ledger.close()


def test_an_account_ends_with_its_lease(server: Server) -> None:
    server.ask("0", "A")
    server.ask("0", "B")
    server.ledger.release("A")
    assert [path.name for path in server.keeper.directory.iterdir()] == ["B"]


def test_an_account_stays_while_processes_that_outlive_the_lease_hold_memory(
    server: Server, runtime_directory: Path
) -> None:
    server.ask("0:8GiB", "A")
    program = f"""
import sys
from pathlib import Path
from jupyter_gpu.limits.account import Account
account = Account.open(Path({str(server.keeper.path("A"))!r}))
account.allocate("GPU-0", 123)
print("ready", flush=True)
sys.stdin.readline()
"""
    worker = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert worker.stdout is not None
        worker.stdout.readline()
        server.ledger.release("A")
        assert [path.name for path in server.keeper.directory.iterdir()] == ["A"]
    finally:
        worker.communicate(b"\n")
    server.ask("0", "B")
    assert [path.name for path in server.keeper.directory.iterdir()] == ["B"]


def test_drafts_of_processes_that_were_killed_at_writing_are_cleared_away(server: Server) -> None:
    server.ask("0", "A")
    (server.keeper.directory / ".B.1.2").write_bytes(b"JGPUACCT")
    server.ask("0", "C")
    assert sorted(path.name for path in server.keeper.directory.iterdir()) == ["A", "C"]


@pytest.mark.parametrize("damage", ["missing", "truncated", "slots cut off", "other devices", "no account"])
def test_an_account_that_does_not_fit_its_lease_is_made_anew(server: Server, damage: str) -> None:
    server.ask("0:8GiB", "A")
    path = server.keeper.path("A")
    if damage in ("truncated", "slots cut off"):
        os.truncate(path, 300 if damage == "truncated" else 2000)
    else:
        path.unlink()
    if damage == "no account":
        path.write_bytes(b"something else" * 100)
    if damage == "other devices":
        Account.create(path, "A", [("GPU-7", None, None)]).close()
    server.ask("0", "B")
    assert account_limits(path) == {"GPU-0": (8 * GIB, 40 * GIB)}


def test_a_kernel_without_devices_has_an_account_that_says_so(server: Server) -> None:
    server.ask("cpu", "A")
    assert account_limits(server.keeper.path("A")) == {}


def test_what_the_accounts_say_is_in_use_by_lease_and_device(server: Server) -> None:
    lease, other = server.ask("0,1", "A"), server.ask("0", "B")
    with Account.open(server.keeper.path("A")) as account:
        account.allocate("GPU-1", 5)
        server.keeper.path("B").unlink()
        assert server.keeper.accounted([lease, other]) == {"A": {"GPU-0": 0, "GPU-1": 5}}


def test_memory_in_use_beyond_what_is_reserved_cannot_be_reserved_by_others(server: Server) -> None:
    server.ask("0", "A")
    with Account.open(server.keeper.path("A")) as account:
        account.allocate("GPU-0", 25 * GIB)
        seen = Survey(Inventory(DEVICES), {d.uuid: DeviceUsage(d.uuid, processes=()) for d in DEVICES})
        first, second = server.ledger.states(seen)
        assert (first.reservable_bytes, second.reservable_bytes) == (15 * GIB, 40 * GIB)


def test_accounts_that_cannot_be_kept_are_no_reason_to_refuse_a_lease(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.ask("cpu", "A")
    shutil.rmtree(server.keeper.directory)
    server.keeper.directory.write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert server.ask("0:8GiB", "B").state is LeaseState.HELD
    assert "The memory account of B cannot be kept" in caplog.text


def test_one_that_cannot_be_kept_does_not_keep_the_others_from_their_caps(server: Server) -> None:
    server.ask("0", "A")
    server.ask("0", "Z")
    server.keeper.path("A").unlink()
    server.keeper.path("A").mkdir()
    server.ask("0:10GiB", "B")
    assert (server.cap("B"), server.cap("Z")) == (10 * GIB, 30 * GIB)
