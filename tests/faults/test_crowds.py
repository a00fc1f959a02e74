"""Clients that never read, kernels that die at once, two hundred kernels: one server, which answers all the same."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from light_kernels import BARE, QUICK_RESTARTER, expect_unharmed, install_light_kernel, processes_of
from live_server import LiveServer, live_server
from until import until

GIB = 1 << 30
SILENT_CLIENTS = 10
REQUESTS_EACH = 150
KERNELS = 200
EVERYTHING = ("api", "api/kernels", "gpu/api/status", "gpu/api/devices", "gpu/api/kernels", "gpu/api/queue")


class Host:
    """A server on four simulated GPUs, and a kernel that has to live through everything."""

    def __init__(self, server: LiveServer, runtime: Path) -> None:
        self.server, self.runtime = server, runtime
        session = server.start_session("first.ipynb", "first")
        self.first = self.kernel(session["kernel"]["id"])

    def kernel(self, kernel_id: str) -> dict[str, Any]:
        return dict(self.server.get(f"gpu/api/kernels/{kernel_id}"))

    def leases(self) -> list[str]:
        """The names of those who hold a GPU."""
        devices = self.server.get("gpu/api/devices")["devices"]
        return [lease["owner"]["label"] for device in devices for lease in device["leases"]]

    def expect_well(self) -> None:
        """The server answers, and nobody holds anything but the first kernel, which lives."""
        for path in EVERYTHING:
            self.server.get(path)
        until(lambda: self.leases() == ["first.ipynb"])
        expect_unharmed(self.server, self.first)


@pytest.fixture(scope="module")
def shared_host() -> Iterator[Host]:
    base = Path(tempfile.mkdtemp(prefix="jg-"))
    data = base / "data"
    for name, request in {"first": "0:8GiB", "shared": "auto", "small": "auto:128MiB", "whole": "3:all"}.items():
        install_light_kernel(data, name, request)
    dies = ["/bin/sh", "-c", f"while [ ! -e {base}/die ]; do sleep 0.05; done", "{connection_file}"]
    for name, request in {"dies": "0:8GiB", "dies-whole": "3:all"}.items():
        install_light_kernel(data, name, request, argv=dies)
    environment = {
        "JUPYTER_GPU_RUNTIME_DIR": str(base / "rt"),
        "JUPYTER_GPU_SIMULATE": "4xNVIDIA A100-SXM4-40GB:40GiB",
    }
    try:
        with live_server(base / "root", *QUICK_RESTARTER, *BARE, environment=environment) as server:
            yield Host(server, base / "rt")
    finally:
        shutil.rmtree(base, ignore_errors=True)


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextlib.contextmanager
def silent_clients(connect: Callable[[], socket.socket], request: bytes) -> Iterator[None]:
    """Clients that send requests, as many as the server takes, and never read an answer."""
    clients = []
    try:
        for _ in range(SILENT_CLIENTS):
            client = connect()
            clients.append(client)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.send(request * REQUESTS_EACH)
        yield
    finally:
        for client in clients:
            client.close()


def memory_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_clients_that_never_read(host: Host) -> None:
    server, before = host.server, open_files(host.server.process.pid)
    address = ("127.0.0.1", int(server.url.split(":")[2].rstrip("/")))

    def connect() -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(address)
        return client

    request = (
        f"GET /gpu/api/devices HTTP/1.1\r\nHost: localhost\r\nAuthorization: token {server.token}\r\n\r\n".encode()
    )
    expect_life_beside(host, before, silent_clients(connect, request))


def test_kernels_that_never_read_what_they_asked_for(host: Host) -> None:
    [path] = host.runtime.glob("server-*.sock")
    before = open_files(host.server.process.pid)

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        return client

    lease = host.first["lease_id"]
    request = f"GET /gpu/api/devices HTTP/1.1\r\nHost: localhost\r\nX-Jupyter-GPU-Lease: {lease}\r\n\r\n".encode()
    expect_life_beside(host, before, silent_clients(connect, request))


def expect_life_beside(host: Host, files_before: int, clients: contextlib.AbstractContextManager[None]) -> None:
    """Everybody else is served while the clients are there, and nothing is left of them after."""
    server = host.server
    memory = memory_bytes(server.process.pid)
    with clients:
        until(lambda: open_files(server.process.pid) >= files_before + SILENT_CLIENTS)
        for number in range(3):
            session = server.start_session(f"beside-{number}.ipynb", "shared")
            for each in EVERYTHING:
                server.get(each)
            server.end_session(session)
        assert memory_bytes(server.process.pid) - memory < 100 << 20
    until(lambda: open_files(server.process.pid) < files_before + SILENT_CLIENTS // 2)


def test_kernels_that_die_at_once(host: Host) -> None:
    """Jupyter starts each again a few times and gives up: what they held is free then, and was for nobody before."""
    server = host.server
    sessions = [server.start_session(f"dies-{number}.ipynb", "dies") for number in range(3)]
    sessions.append(server.start_session("dies-whole.ipynb", "dies-whole"))
    (host.runtime.parent / "die").touch()
    with ThreadPoolExecutor(1) as pool:
        after = pool.submit(server.start_session, "after.ipynb", "whole")
        until(lambda: host.leases() == ["first.ipynb", "after.ipynb"])
        session = after.result()
    assert host.kernel(session["kernel"]["id"])["notices"] == []
    server.end_session(session)
    text = server.log.read_text()
    assert text.count("restarting kernel (5/5)") >= len(sessions)
    known = [each["id"] for each in server.get("api/kernels")]
    assert known == [host.first["kernel_id"]]
    for each in sessions:
        status, answer = server.send("DELETE", f"api/sessions/{each['id']}")
        assert status in (204, 404), answer


def test_two_hundred_kernels(host: Host) -> None:
    server = host.server

    def start(number: int) -> dict[str, Any]:
        return server.start_session(f"crowd-{number}.ipynb", "shared" if number % 2 else "small")

    with ThreadPoolExecutor(8) as pool:
        sessions = list(pool.map(start, range(KERNELS)))
    table = server.get("gpu/api/kernels")
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    crowd = [row for row in rows if row["label"].startswith("crowd-")]
    assert {row["state"] for row in crowd} == {"running"}
    assert len({row["lease_id"] for row in crowd}) == len({row["pid"] for row in crowd}) == KERNELS
    assert all(row["notices"] == [] for row in crowd)
    assert len(host.leases()) == KERNELS + 1
    reserved = sum(device["reserved_bytes"] for device in server.get("gpu/api/devices")["devices"])
    assert reserved == 8 * GIB + KERNELS // 2 * (128 << 20)
    leases = {lease_id for _, lease_id, _ in processes_of(host.runtime)}
    assert leases == {row["lease_id"] for row in rows}
    for path in EVERYTHING:
        server.get(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(server.end_session, sessions))
    assert {lease_id for _, lease_id, _ in processes_of(host.runtime)} == {host.first["lease_id"]}
    until(lambda: len(list((host.runtime / "accounts").iterdir())) == 1)
