"""The runtime directory in /tmp, where everybody can write: what others put there is neither used nor touched."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import live_server
from stranger import NOBODY, as_nobody, is_root

from jupyter_gpu.host import GPUHost
from jupyter_gpu.leases.lease import Ask, Lease, Origin, Owner
from jupyter_gpu.leases.ledger import LedgerError
from jupyter_gpu.limits.account_file import AccountError, has_caps, read_account
from jupyter_gpu.paths import UnsafeDirectory, private_directory, runtime_directory

_GIB = 1 << 30
needs_root = pytest.mark.skipif(not is_root(), reason="only root can be another user")


@pytest.fixture
def sticky() -> Iterator[Path]:
    """A directory such as /tmp is."""
    path = Path(tempfile.mkdtemp(prefix="jg-"))
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def tree(directory: Path) -> dict[str, tuple[int, int, bytes | str]]:
    """All that is in a directory, itself included: mode, owner, and content or target."""
    found: dict[str, tuple[int, int, bytes | str]] = {}
    for path in (directory, *sorted(directory.rglob("*"))):
        status = path.lstat()
        content: bytes | str = b""
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        found[str(path)] = (status.st_mode, status.st_uid, content)
    return found


def status_of(directory: Path) -> subprocess.CompletedProcess[str]:
    """What `jupyter gpu status` says with the directory in the place of the runtime directory."""
    environment = {**os.environ, "JUPYTER_GPU_RUNTIME_DIR": str(directory), "JUPYTER_GPU_SIMULATE": "1xA100:40GiB"}
    return subprocess.run(
        [sys.executable, "-m", "jupyter", "gpu", "status"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


PLANTS = {
    "a directory": "path.mkdir(mode=0o777)",
    "a directory with a ledger in it": (
        "path.mkdir(mode=0o777); sqlite3.connect(path / 'ledger.sqlite').execute('CREATE TABLE t (x)')"
    ),
    "a link to a directory of the victim": "path.symlink_to(sys.argv[2])",
    "a link to nowhere": "path.symlink_to('/nowhere/at/all')",
    "a pipe": "os.mkfifo(path, 0o666)",
    "a file": "path.write_text('mine')",
    "a socket": "socket.socket(socket.AF_UNIX).bind(str(path))",
}


@needs_root
class TestMadeByAnotherFirst:
    """Somebody else knows the name `/tmp/jupyter-gpu-<uid>` and is quicker."""

    @pytest.mark.parametrize("plant", PLANTS)
    def test_it_is_refused_with_a_sentence_and_left_as_it_is(self, sticky: Path, tmp_path: Path, plant: str) -> None:
        place = sticky / "jupyter-gpu-0"
        precious = tmp_path / "precious"
        precious.mkdir(mode=0o755)
        (precious / "ledger.sqlite").write_text("precious")
        (precious / "ledger.sqlite").chmod(0o644)
        code = f"os.umask(0); path = pathlib.Path(sys.argv[1]); {PLANTS[plant]}"
        done = as_nobody(code, str(place), str(precious))
        assert done.returncode == 0, done.stderr
        before = tree(sticky), tree(precious)
        with pytest.raises(UnsafeDirectory, match="set JUPYTER_GPU_RUNTIME_DIR"):
            private_directory(place)
        said = status_of(place)
        assert said.returncode == 1
        assert len(said.stderr.strip().splitlines()) == 1
        assert "set JUPYTER_GPU_RUNTIME_DIR" in said.stderr
        assert (tree(sticky), tree(precious)) == before

    def test_kernels_start_without_a_gpu_and_their_owner_is_told(self, sticky: Path) -> None:
        place = sticky / "jupyter-gpu-0"
        assert as_nobody("os.umask(0); pathlib.Path(sys.argv[1]).mkdir(mode=0o777)", str(place)).returncode == 0
        environment = {"JUPYTER_GPU_RUNTIME_DIR": str(place), "JUPYTER_GPU_SIMULATE": "1xA100:40GiB"}
        with live_server(sticky / "root", environment=environment) as server:
            ledger = server.get("gpu/api/status")["ledger"]
            assert ledger["ok"] is False
            assert f"belongs to the user with uid {NOBODY}" in ledger["problem"]
            session = server.start_session("a.ipynb", "python3-gpu0")
            kernels = server.get("api/kernels")
            assert [kernel["id"] for kernel in kernels] == [session["kernel"]["id"]]
            assert "Kernels cannot reach this server" in server.log.read_text()
            assert "belongs to the user with uid" in server.log.read_text()
        assert list(place.iterdir()) == []

    def test_what_another_put_into_an_open_one_is_not_taken_over(self, sticky: Path) -> None:
        place = sticky / "jupyter-gpu-0"
        place.mkdir()
        place.chmod(0o777)
        code = "sqlite3.connect(pathlib.Path(sys.argv[1]) / 'ledger.sqlite').execute('CREATE TABLE t (x)')"
        assert as_nobody(code, str(place)).returncode == 0
        before = tree(place)
        with pytest.raises(
            UnsafeDirectory, match=r"'ledger.sqlite' in it belongs to one of them; remove the directory"
        ):
            private_directory(place)
        assert tree(place) == before

    def test_anothers_session_directory_is_not_used(self, monkeypatch: pytest.MonkeyPatch, sticky: Path) -> None:
        session = sticky / "user"
        session.mkdir(mode=0o700)
        os.chown(session, NOBODY, NOBODY)
        monkeypatch.delenv("JUPYTER_GPU_RUNTIME_DIR")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
        assert runtime_directory() == Path("/tmp/jupyter-gpu-0")

    def test_a_ledger_that_another_owns_is_not_read(self, host: GPUHost, runtime_directory: Path) -> None:
        ledger = runtime_directory / "ledger.sqlite"
        ledger.touch(mode=0o666)
        os.chown(ledger, NOBODY, NOBODY)
        with pytest.raises(LedgerError, match="no file of this user; remove it"):
            host.leases_now()
        assert (ledger.stat().st_size, ledger.stat().st_uid) == (0, NOBODY)

    def test_others_can_neither_enter_nor_list_what_is_ours(self, host: GPUHost, runtime_directory: Path) -> None:
        lease = take(host)
        parent = runtime_directory.parent
        assert parent == Path(tempfile.gettempdir())
        for path in (runtime_directory / "ledger.sqlite", host.accounts.path(lease.id)):
            assert path.exists()
            done = as_nobody("pathlib.Path(sys.argv[1]).open('rb')", str(path))
            assert "PermissionError" in done.stderr, done
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "PermissionError" in as_nobody("os.listdir(sys.argv[1])", str(runtime_directory)).stderr


def take(host: GPUHost, request: str = "0:8GiB") -> Lease:
    ask = Ask("a-lease", request, Origin.API, Owner("command", "train.py"), host.process, wait=False)
    lease = host.ask_now(ask)
    assert isinstance(lease, Lease), lease
    return lease


IN_ITS_PLACE: dict[str, Callable[[Path, Path], Any]] = {
    "a pipe": lambda place, _: os.mkfifo(place),
    "a link": lambda place, target: place.symlink_to(target),
    "a link to a device": lambda place, _: place.symlink_to("/dev/zero"),
    "a link to itself": lambda place, _: place.symlink_to(place),
    "a directory": lambda place, _: place.mkdir(),
}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "precious"
    path.write_bytes(b"precious" * 1000)
    path.chmod(0o644)
    return path


def is_untouched(target: Path) -> bool:
    return target.read_bytes() == b"precious" * 1000 and stat.S_IMODE(target.stat().st_mode) == 0o644


@pytest.mark.parametrize("what", IN_ITS_PLACE)
@pytest.mark.parametrize("name", ["ledger.sqlite", "ledger.queue", "ledger.lock", "accounts"])
def test_what_is_in_the_place_of_the_ledger_hangs_and_harms_nobody(
    host: GPUHost, runtime_directory: Path, target: Path, name: str, what: str
) -> None:
    IN_ITS_PLACE[what](runtime_directory / name, target)
    if name == "accounts":  # of that the ledger has no need
        assert host.leases_now() == []
    else:
        with pytest.raises(LedgerError):
            host.leases_now()
    assert is_untouched(target)


@pytest.mark.parametrize("what", IN_ITS_PLACE)
def test_what_is_in_the_place_of_an_account_is_no_account(host: GPUHost, target: Path, what: str) -> None:
    lease = take(host)
    path = host.accounts.path(lease.id)
    [device] = read_account(path).devices
    path.unlink()
    IN_ITS_PLACE[what](path, target)
    with pytest.raises(AccountError):
        read_account(path)
    assert not has_caps(path, {device.uuid: device.cap})
    host.ledger.release(lease.id)
    again = take(host, "0:4GiB")
    if what == "a directory":
        assert host.accounts.accounted([again]) == {}
    else:
        assert [device.cap for device in read_account(path).devices] == [4 * _GIB]
    assert is_untouched(target)


@pytest.mark.parametrize("what", IN_ITS_PLACE)
def test_where_accounts_cannot_be_kept_leases_still_are(
    host: GPUHost, runtime_directory: Path, target: Path, what: str
) -> None:
    IN_ITS_PLACE[what](runtime_directory / "accounts", target)
    lease = take(host)
    assert lease.holds[0].bytes == 8 * _GIB
    assert is_untouched(target)
