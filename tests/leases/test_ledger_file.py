"""The ledger's file: shared by processes, and refused with a sentence where it cannot be trusted or used."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from until import until

from jupyter_gpu.leases.lease import Lease, LeaseState
from jupyter_gpu.leases.ledger import Ledger, LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_gpu.leases.lease import Ask
    from jupyter_gpu.leases.survey import Survey

GIB = 1 << 30
NOBODY = 65534

OTHER_SERVER = """
import sys
from pathlib import Path
from jupyter_gpu.devices.device import Device, Inventory
from jupyter_gpu.devices.processes import process_key
from jupyter_gpu.leases.lease import Ask, Origin, Owner
from jupyter_gpu.leases.ledger import Ledger
from jupyter_gpu.leases.survey import Survey
survey = Survey(Inventory(tuple(Device(f"GPU-{n:08d}", str(n), "NVIDIA A100-SXM4-40GB", 40 << 30) for n in range(4))))
ledger = Ledger(Path(sys.argv[1]))
for line in sys.stdin:
    request, label, *release = line.split()
    if release:
        print(ledger.release(label), flush=True)
        continue
    ask = Ask(label, request, Origin.API, Owner("kernel", label), process_key())
    print(ledger.ask(ask, survey).state.value, flush=True)
"""


class OtherServer:
    """Another process with the same ledger."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", OTHER_SERVER, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: str, label: str, *release: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{request} {label} {' '.join(release)}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def other_server(runtime_directory: Path) -> object:
    server = OtherServer(runtime_directory)
    yield server
    server.kill()


def ask_once(ledger: Ledger, new_ask: Callable[..., Ask], survey: Survey) -> Lease:
    lease = ledger.ask(new_ask("0:8GiB"), survey)
    assert isinstance(lease, Lease)
    return lease


def test_two_servers_never_give_out_the_same_memory(
    ledger: Ledger, other_server: OtherServer, survey: Survey, new_ask: Callable[..., Ask]
) -> None:
    assert other_server.ask("0:30GiB", "theirs") == "held"
    mine = ledger.ask(new_ask("0:11GiB", "mine"), survey)
    assert isinstance(mine, Lease)
    assert mine.state is LeaseState.WAITING
    assert other_server.ask("0:10GiB", "third") == "waiting"
    assert other_server.ask("-", "theirs", "release") == "True"
    assert other_server.ask("0:30GiB", "third") == "waiting", "mine came before"
    served = ledger.ask(new_ask("0:11GiB", "mine"), survey)
    assert isinstance(served, Lease)
    assert served.state is LeaseState.HELD


def test_what_a_killed_server_held_is_there_for_others(
    ledger: Ledger, other_server: OtherServer, survey: Survey, new_ask: Callable[..., Ask]
) -> None:
    assert other_server.ask("0:all", "theirs") == "held"
    assert [lease.id for lease in ledger.leases()] == ["theirs"]
    other_server.kill()
    assert ledger.leases() == []
    # Not at once where a process of anybody's has just been forked, which may have been meant to use the lease.
    until(lambda: ask_once(ledger, new_ask, survey).state is LeaseState.HELD)


def test_directory_and_files_are_for_this_user_only(
    new_ledger: Callable[..., Ledger], runtime_directory: Path, survey: Survey, new_ask: Callable[..., Ask]
) -> None:
    runtime_directory.rmdir()
    before = os.umask(0)
    try:
        ask_once(new_ledger(), new_ask, survey)
    finally:
        os.umask(before)
    assert stat.S_IMODE(runtime_directory.stat().st_mode) == 0o700
    for path in runtime_directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_nothing_is_made_before_it_is_needed(new_ledger: Callable[..., Ledger], runtime_directory: Path) -> None:
    new_ledger()
    assert list(runtime_directory.iterdir()) == []


def test_another_boot_empties_it(ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask]) -> None:
    ask_once(ledger, new_ask, survey)
    ledger.close()
    assert len(ledger.leases()) == 1
    ledger.close()
    with sqlite3.connect(ledger.store.path) as connection:
        connection.execute("UPDATE meta SET value = 'the boot before' WHERE key = 'boot'")
    connection.close()
    assert ledger.leases() == []
    assert ledger.store.rows() == []
    ask_once(ledger, new_ask, survey)
    ledger.close()
    assert len(ledger.leases()) == 1, "only once"


def test_a_newer_versions_file_is_refused_and_left_alone(
    ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask]
) -> None:
    ask_once(ledger, new_ask, survey)
    ledger.close()
    with sqlite3.connect(ledger.store.path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(LedgerError, match="has version 7, and this software reads version 1; use the same version"):
        ledger.leases()
    with sqlite3.connect(ledger.store.path) as connection:
        assert connection.execute("SELECT count(*) FROM leases").fetchone() == (1,)
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    assert len(ledger.leases()) == 1


@pytest.mark.parametrize("content", [b"no database at all\n" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_corrupt_file_is_refused_with_what_to_do(
    ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask], content: bytes
) -> None:
    ledger.store.path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"cannot be used \(.*\); free space .* remove the file"):
        ask_once(ledger, new_ask, survey)
    ledger.store.path.unlink()
    assert ask_once(ledger, new_ask, survey).state is LeaseState.HELD, "and it works again once that was done"


def test_a_corruption_while_it_is_open_is_refused_too(
    ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask]
) -> None:
    ask_once(ledger, new_ask, survey)
    for suffix in ("", "-wal"):
        path = Path(f"{ledger.store.path}{suffix}")
        with path.open("r+b") as file:
            file.write(b"\xff" * path.stat().st_size)
    ledger.close()
    with pytest.raises(LedgerError, match="cannot be used"):
        ledger.leases()


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_replaced_file_is_taken_up_anew(
    ledger: Ledger, other_server: OtherServer, survey: Survey, new_ask: Callable[..., Ask], what: str
) -> None:
    ask_once(ledger, new_ask, survey)
    if what == "directory":
        shutil.rmtree(ledger.store.directory)
    else:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{ledger.store.path}{suffix}").unlink()
    assert other_server.ask("0:all", "theirs") == "held"
    assert [lease.id for lease in ledger.leases()] == ["theirs"]
    mine = ledger.ask(new_ask("0"), survey)
    assert isinstance(mine, Lease)
    assert mine.state is LeaseState.WAITING


def test_a_file_that_is_replaced_in_the_middle_of_a_decision_gets_nothing_of_it(
    new_ledger: Callable[..., Ledger], survey: Survey, new_ask: Callable[..., Ask]
) -> None:
    def replace(_: object) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{ledger.store.path}{suffix}").unlink()
        sqlite3.connect(ledger.store.path).close()

    ledger = new_ledger(on_change=replace)
    ask_once(ledger, new_ask, survey)
    assert ledger.leases() == []


@pytest.mark.parametrize("name", ["ledger.sqlite", "ledger.lock", "ledger.queue"])
def test_a_link_in_place_of_a_file_is_refused(
    ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask], name: str, tmp_path: Path
) -> None:
    (ledger.store.directory / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="symbolic link"):
        ask_once(ledger, new_ask, survey)
    assert not (tmp_path / "elsewhere").exists()


def test_a_link_in_place_of_the_directory_is_refused(
    survey: Survey, new_ask: Callable[..., Ask], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="is not a directory; remove it, or set JUPYTER_GPU_RUNTIME_DIR"):
        ask_once(Ledger(tmp_path / "link"), new_ask, survey)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give directories away")
def test_another_users_directory_is_refused(
    ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask], runtime_directory: Path
) -> None:
    os.chown(runtime_directory, NOBODY, NOBODY)
    with pytest.raises(LedgerError, match=f"belongs to the user with uid {NOBODY}, not to this one"):
        ask_once(ledger, new_ask, survey)
    assert list(runtime_directory.iterdir()) == []


def test_a_directory_that_others_could_enter_is_closed_to_them(
    ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask], runtime_directory: Path
) -> None:
    runtime_directory.chmod(0o777)
    ask_once(ledger, new_ask, survey)
    assert stat.S_IMODE(runtime_directory.stat().st_mode) == 0o700


def test_a_directory_that_cannot_be_written_is_refused_with_what_to_do(runtime_directory: Path) -> None:
    runtime_directory.chmod(0o500)
    program = """
    import os, sys
    from pathlib import Path
    from jupyter_gpu.leases.ledger import Ledger, LedgerError
    if os.getuid() == 0:  # whom nothing is forbidden
        os.chown(sys.argv[1], 65534, 65534)
        os.setgid(65534)
        os.setuid(65534)
    try:
        Ledger(Path(sys.argv[1])).leases()
    except LedgerError as error:
        print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(runtime_directory)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be used ([Errno 13] Permission denied" in done.stdout
    assert "repair permissions there" in done.stdout


def test_a_directory_that_cannot_be_made_is_refused_with_what_to_do(
    survey: Survey, new_ask: Callable[..., Ask], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=r"cannot be made \(Not a directory\); set JUPYTER_GPU_RUNTIME_DIR"):
        ask_once(Ledger(tmp_path / "file" / "directory"), new_ask, survey)


def test_who_waits_behind_a_process_that_was_stopped_in_a_decision_is_told_which(
    ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask]
) -> None:
    program = """
    import os, signal, sys
    from pathlib import Path
    from jupyter_gpu.leases.ledger import Ledger
    ledger = Ledger(Path(sys.argv[1]))
    with ledger.store.transaction():
        os.kill(os.getpid(), signal.SIGSTOP)
    """
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), str(ledger.store.directory)])
    try:
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
        with pytest.raises(LedgerError, match=f"the process {holder.pid} was stopped .* kill -CONT {holder.pid}"):
            ask_once(ledger, new_ask, survey)
        holder.send_signal(signal.SIGCONT)
        assert holder.wait() == 0
        ask_once(ledger, new_ask, survey)
    finally:
        holder.kill()
        holder.wait()


def test_a_process_that_is_killed_in_a_decision_leaves_nothing_of_it(
    ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask]
) -> None:
    program = """
    import os, sys
    from pathlib import Path
    from jupyter_gpu.devices.processes import process_key
    from jupyter_gpu.leases.lease import Ask, LeaseState, Origin, Owner
    from jupyter_gpu.leases.ledger import Ledger
    store = Ledger(Path(sys.argv[1])).store
    with store.transaction():
        store.insert(Ask("B", "0:all", Origin.API, Owner("kernel", "B"), process_key(os.getppid())), LeaseState.HELD)
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(ledger.store.directory)], check=False)
    assert done.returncode == -signal.SIGKILL
    ask_once(ledger, new_ask, survey)
    assert [lease.id for lease in ledger.leases()] == ["A"]


def test_threads_of_a_server_take_turns(ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask]) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                assert isinstance(ledger.ask(new_ask("auto:10GiB", f"{number}"), survey), Lease)
                assert sum(len(lease.holds) for lease in ledger.leases()) <= 16
                ledger.release(f"{number}")
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert ledger.leases() == []


def _ask_in_fork(ledger: Ledger, ask: Ask, survey: Survey, answers: multiprocessing.SimpleQueue[str]) -> None:
    answer = ledger.ask(ask, survey)
    answers.put(f"{answer.state.value} {len(ledger.leases())}" if isinstance(answer, Lease) else answer.message)


def test_a_forked_child_uses_the_ledger_without_disturbing_its_parent(
    ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask]
) -> None:
    ask_once(ledger, new_ask, survey)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_ask_in_fork, args=(ledger, new_ask("1:8GiB", "B"), survey, answers))
    child.start()
    child.join()
    assert answers.get() == "held 2"
    assert [lease.id for lease in ledger.leases()] == ["A", "B"], "its asker is this process"
    ask_once(ledger, new_ask, survey)
    ledger.release("A")
    assert [lease.id for lease in ledger.leases()] == ["B"]


def test_a_kernel_that_is_being_born_while_its_server_dies_keeps_its_lease(
    ledger: Ledger, other_server: OtherServer, survey: Survey, new_ask: Callable[..., Ask]
) -> None:
    """A fork has its parent's environment until it becomes the kernel: a decision in between must not take it away."""
    assert other_server.ask("0:all", "theirs") == "held"
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"1")
        os.read(go[0], 1)
        os.execve("/bin/sleep", ["sleep", "600"], {"JUPYTER_GPU_LEASE": "theirs"})
    try:
        os.read(ready[0], 1)
        other_server.kill()
        mine = ledger.ask(new_ask("0:all"), survey)
        assert isinstance(mine, Lease)
        assert mine.state is LeaseState.WAITING
        os.write(go[1], b"1")
        while Path(f"/proc/{child}/comm").read_text() != "sleep\n":
            os.sched_yield()
        ledger.drop_dead()
        adopted = next(lease for lease in ledger.leases() if lease.id == "theirs")
        assert adopted.process is not None
        assert adopted.process.pid == child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for each in (*ready, *go):
            os.close(each)
    assert ledger.ask(new_ask("0:all"), survey, again=True).state is LeaseState.HELD  # type: ignore[union-attr]
