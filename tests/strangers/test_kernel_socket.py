"""The socket that kernels reach their server through: for this user's kernels alone, and each for itself."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from magic_kernel import MagicKernel
from stranger import Victim, as_nobody, hands_of, is_root

from jupyter_gpu.devices.processes import process_key
from jupyter_gpu.host import GPUHost

_ASK = """
connection = socket.socket(socket.AF_UNIX)
try:
    connection.connect(sys.argv[1])
except OSError as error:
    sys.exit(type(error).__name__)
connection.sendall(sys.argv[2].encode())
while received := connection.recv(65536):
    sys.stdout.write(received.decode())
"""
_OTHER_USER = "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
_PROGRAM = """
import http.client, json, os, socket, sys
sys.path.insert(0, {package!r})
from jupyter_gpu.kernel.channel import Channel, ChannelError
if {fork!r}:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        sys.exit()
    if {fork!r} == "session":
        os.setsid()
try:
    print("GOT", Channel({path!r}, {lease!r}, {kernel!r}).patch("kernels/self", {{"request": "cpu"}})["kernel_id"])
except ChannelError as error:
    print("REFUSED", error.status)
"""


@pytest.fixture(scope="module")
def path(victim: Victim) -> Path:
    [path] = victim.runtime.glob("server-*.sock")
    return path


@pytest.fixture(scope="module")
def thief(victim: Victim) -> Iterator[MagicKernel]:
    session = victim.server.start_session("thief.ipynb", "python3-gpu2")
    with hands_of(victim.server, session["kernel"]["id"]) as kernel:
        yield kernel
    victim.server.end_session(session)


def ask(path: Path, request: bytes) -> bytes:
    """What comes back for the bytes; nothing if the server closes without a word."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        try:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            return b""


@pytest.mark.skipif(not is_root(), reason="only root can be another user")
class TestAnotherUser:
    def test_cannot_reach_it(self, victim: Victim, path: Path) -> None:
        done = as_nobody(_ASK, str(path), "GET /gpu/api/devices HTTP/1.0\r\n\r\n")
        assert done.stderr.strip() == "PermissionError", done

    def test_is_nobody_to_it_even_with_the_lease_and_the_doors_open(self, victim: Victim, path: Path) -> None:
        lease_id = victim.kernel()["lease_id"]
        request = (
            f"GET /gpu/api/devices HTTP/1.0\r\nHost: localhost\r\nX-Jupyter-GPU-Lease: {lease_id}\r\n"
            f"X-Jupyter-GPU-Kernel: {victim.kernel_id}\r\nAuthorization: token {victim.server.token}\r\n\r\n"
        )
        directories = [path.parent, path.parent.parent]
        try:
            path.chmod(0o666)
            for directory in directories:
                directory.chmod(0o755)
            done = as_nobody(_ASK, str(path), request)
        finally:
            for directory in directories:
                directory.chmod(0o700)
            path.chmod(0o600)
        assert done.stdout.startswith("HTTP/1.1 403"), done
        assert victim.device_uuid not in done.stdout

    def test_is_nobody_to_it_even_below_a_kernel(self, victim: Victim, thief: MagicKernel, path: Path) -> None:
        program = _OTHER_USER + _ASK
        request = HEAD % (b"GET", 0)
        code = (
            "import os, subprocess, sys\n"
            f"request = {request.decode()!r}.replace('LEASE', os.environ['JUPYTER_GPU_LEASE'])\n"
            f"command = [sys.executable, '-c', {program!r}, {str(path)!r}, request]\n"
            "done = subprocess.run(command, capture_output=True, text=True)\nprint(done.stdout, done.stderr)"
        )
        directories = [path.parent, path.parent.parent]
        try:
            path.chmod(0o666)
            for directory in directories:
                directory.chmod(0o755)
            output = thief.ok(code)
        finally:
            for directory in directories:
                directory.chmod(0o700)
            path.chmod(0o600)
        assert output.stdout.startswith("HTTP/1.1 403"), output

    def test_cannot_read_what_is_beside_it(self, victim: Victim) -> None:
        code = "print(sorted(os.listdir(sys.argv[1])))"
        assert "PermissionError" in as_nobody(code, str(victim.runtime)).stderr


class TestAnotherKernel:
    """A kernel of the same user that names somebody else's lease, which it can see in the list of devices."""

    @pytest.mark.parametrize("pretend", ["it", "its environment", "the environment of its child's child"])
    def test_cannot_act_for_the_one_whose_lease_it_names(
        self, victim: Victim, thief: MagicKernel, path: Path, pretend: str
    ) -> None:
        kernel = victim.kernel()
        package = str(Path(__file__).parents[2])
        fork = "child" if "child" in pretend else ""
        program = _PROGRAM.format(package=package, fork=fork, path=str(path), lease=kernel["lease_id"], kernel="")
        variables = {"JUPYTER_GPU_LEASE": kernel["lease_id"]} if "environment" in pretend else {}
        output = thief.ok(
            "import os, subprocess, sys\n"
            f"done = subprocess.run([sys.executable, '-c', {program!r}], env={{**os.environ, **{variables!r}}}, "
            "capture_output=True, text=True)\nprint(done.stdout, done.stderr)"
        )
        assert "REFUSED 403" in output.stdout, output
        assert victim.kernel()["request"] == "1"

    def test_cannot_act_for_the_one_whose_id_it_names(self, victim: Victim, thief: MagicKernel, path: Path) -> None:
        package = str(Path(__file__).parents[2])
        program = _PROGRAM.format(package=package, fork="", path=str(path), lease="", kernel=victim.kernel_id)
        output = thief.ok(
            "import subprocess, sys\n"
            f"print(subprocess.run([sys.executable, '-c', {program!r}], capture_output=True, text=True))"
        )
        assert "REFUSED 403" in output.stdout, output
        assert victim.kernel()["request"] == "1"

    def test_its_own_children_act_for_it(self, victim: Victim, thief: MagicKernel, path: Path) -> None:
        lease_id = thief.value("os.environ['JUPYTER_GPU_LEASE']", "import os")
        package = str(Path(__file__).parents[2])
        program = _PROGRAM.format(package=package, fork="child", path=str(path), lease=lease_id, kernel="")
        program = program.replace('"cpu"', '"2"')
        output = thief.ok(
            "import subprocess, sys\n"
            f"print(subprocess.run([sys.executable, '-c', {program!r}], capture_output=True, text=True))"
        )
        assert "GOT" in output.stdout, output


def kernels_request(thief: MagicKernel, path: Path, request: bytes) -> str:
    """What comes back for the bytes that a kernel sends for itself, its lease in the place of LEASE."""
    unfinished = b"\r\n\r\n" not in request
    code = f"""
import os, socket
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(60)
connection.connect({str(path)!r})
received = b""
try:
    connection.sendall({request!r}.replace(b"LEASE", os.environ["JUPYTER_GPU_LEASE"].encode()))
    if {unfinished!r}:
        connection.shutdown(socket.SHUT_WR)
    while part := connection.recv(65536):
        received += part
except ConnectionError:
    pass
print(received.decode(errors="replace"))
"""
    return thief.ok(code).stdout


OWN = b"Host: localhost\r\nConnection: close\r\nX-Jupyter-GPU-Lease: LEASE\r\n"
HEAD = b"%s /gpu/api/kernels/self HTTP/1.1\r\n" + OWN + b"Content-Length: %d\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe", b"[" * 60_000, b"", b"null", b'{"in_place": true}', b'{"in_place": true, "request": ["1"]}',
     b'{"request": "2", "in_place": true, "__class__": 1}', b'{"request": ' + b"9" * 50_000 + b"}"],
    ids=range(8),
)  # fmt: skip
def test_a_hostile_body_of_a_kernel_is_refused_with_one_sentence(
    victim: Victim, thief: MagicKernel, path: Path, body: bytes
) -> None:
    answer = kernels_request(thief, path, HEAD % (b"PATCH", len(body)) + body)
    assert answer.startswith("HTTP/1.1 400"), answer
    assert json.loads(answer.partition("\r\n\r\n")[2])["message"].endswith((".", "?"))
    assert "Traceback" not in victim.log()


@pytest.mark.parametrize(
    "request_",
    [
        HEAD % (b"PATCH", 70_000) + b"x" * 70_000,
        HEAD % (b"PATCH", 1 << 62) + b"{}",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"\x00" * 100_000,
        b"GET /gpu/api/../../api/contents HTTP/1.1\r\n" + OWN + b"\r\n",
        b"GET /api/contents HTTP/1.1\r\n" + OWN + b"\r\n",
        b"GET /gpu/api/kernels/%2e%2e HTTP/1.1\r\n" + OWN + b"\r\n",
        b"DELETE /gpu/api/queue/x HTTP/1.1\r\n" + OWN + b"\r\n",
    ],
    ids=range(9),
)
def test_what_is_no_request_of_a_kernel_does_nothing(
    victim: Victim, thief: MagicKernel, path: Path, request_: bytes
) -> None:
    answer = kernels_request(thief, path, request_)
    assert not answer.strip() or answer.startswith("HTTP/1.1 4"), answer
    assert "Traceback" not in victim.log()
    assert kernels_request(thief, path, HEAD % (b"GET", 0)).startswith("HTTP/1.1 200")


def test_a_process_of_no_kernel_is_nobody(victim: Victim, path: Path) -> None:
    lease_id = victim.kernel()["lease_id"].encode()
    for head in (
        b"",
        b"X-Jupyter-GPU-Lease: %s\r\n" % lease_id,
        b"X-Jupyter-GPU-Lease: \r\nX-Jupyter-GPU-Kernel: \r\n",
    ):
        answer = ask(path, b"GET /gpu/api/devices HTTP/1.0\r\nHost: localhost\r\n" + head + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 403"), answer


@pytest.mark.parametrize("what", ["fifo", "file", "directory", "link"])
async def test_what_lies_in_its_place_is_left_there_and_all_else_starts(
    what: str, runtime_directory: Path, jp_serverapp: Any, jp_fetch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    me = process_key()
    assert me is not None
    place = runtime_directory / f"server-{me.pid}-{me.start_time}.sock"
    target = runtime_directory / "ledger.backup"
    target.write_text("precious")
    make: dict[str, Any] = {
        "fifo": lambda: os.mkfifo(place),
        "file": place.touch,
        "directory": place.mkdir,
        "link": lambda: place.symlink_to(target),
    }
    make[what]()
    before = place.lstat()
    with caplog.at_level("WARNING"):
        jp_serverapp.log.propagate = True
        await asyncio.wait_for(jp_serverapp.extension_manager.start_all_extensions(), 60)
    assert "Kernels cannot reach this server for %gpu" in caplog.text
    assert "failed" not in caplog.text
    assert (await jp_fetch("gpu", "api", "status")).code == 200
    assert (place.lstat().st_ino, place.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert target.read_text() == "precious"


async def test_a_strange_name_beside_it_keeps_nobody_from_listening(runtime_directory: Path, jp_serverapp: Any) -> None:
    (runtime_directory / "server-²-1.sock").touch()
    await asyncio.wait_for(jp_serverapp.extension_manager.start_all_extensions(), 60)
    assert GPUHost.instance().socket_path is not None
