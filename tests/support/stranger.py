"""Somebody at a server's door: requests as they are written, with whatever headers, bodies and user id."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from live_server import LiveServer
from magic_kernel import MagicKernel

import jupyter_gpu

NOBODY = 65534
_BECOME_NOBODY = f"import os; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
_TIMEOUT_S = 60
NOTEBOOK = "private-research.ipynb"
DOCUMENT = Path(jupyter_gpu.__file__).parent / "server" / "openapi.yaml"


@dataclass(frozen=True)
class Answer:
    """What a server answers."""

    status: int
    headers: Mapping[str, str]
    cookies: tuple[str, ...]
    body: bytes

    @property
    def message(self) -> str:
        """The sentence of an error."""
        return str(json.loads(self.body)["message"])


class Stranger:
    """Sends what it is told to."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        token: str | None = None,
    ) -> Answer:
        """The answer to a request that has these headers, and no others but what HTTP needs."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"token {token}"
        try:
            connection.putrequest(method, path, skip_host="Host" in sent, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            if body is not None:
                # A server that refuses a body need not read it.
                with contextlib.suppress(ConnectionError):
                    connection.send(body)
            answer = connection.getresponse()
            cookies = tuple(answer.headers.get_all("Set-Cookie") or ())
            return Answer(answer.status, dict(answer.headers), cookies, answer.read())
        finally:
            connection.close()

    def logged_in(self, token: str) -> dict[str, str]:
        """The cookies of a browser in which somebody has logged in."""
        jar: SimpleCookie = SimpleCookie()
        # The form comes first: who has logged in is sent on from it, without its cookie against forgery.
        for answer in (self.ask("GET", "/login"), self.ask("GET", "/api/me", token=token)):
            for cookie in answer.cookies:
                jar.load(cookie)
        return {name: morsel.value for name, morsel in jar.items()}


@dataclass
class Victim:
    """A server, a stranger at its door, and a kernel of its owner."""

    server: LiveServer
    stranger: Stranger
    kernel_id: str
    runtime: Path
    device_uuid: str

    def kernel(self) -> dict[str, Any]:
        """The kernel, as its owner sees it."""
        return dict(self.server.get(f"gpu/api/kernels/{self.kernel_id}"))

    def log(self) -> str:
        """What the server has logged so far."""
        return self.server.log.read_text(errors="surrogateescape")

    def endpoints(self) -> list[tuple[str, str]]:
        """Every method and path of ours, those in the documented API first, and those of the server that we change."""
        found = []
        for path, operations in yaml.safe_load(DOCUMENT.read_text())["paths"].items():
            concrete = path.format(kernel_id=self.kernel_id, entry_id="some-entry")
            found += [(method.upper(), concrete) for method in operations if method != "parameters"]
        assert len(found) >= 9
        return [
            *found,
            ("GET", "/metrics"),
            ("GET", "/api/kernelspecs"),
            ("GET", "/api/kernelspecs/python3-gpu1"),
            ("GET", "/kernelspecs/python3-gpu1/logo-64x64.png"),
            ("GET", "/api/kernels"),
            ("POST", "/api/kernels"),
            ("POST", "/api/sessions"),
        ]


def cookie_header(cookies: Mapping[str, str]) -> str:
    """Cookies as a browser sends them."""
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def as_nobody(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a Python program does in the hands of the user `nobody`; only root can become that."""
    # The modules are imported first: nobody may not be able to read this Python.
    program = "import http.client, json, os, pathlib, socket, sqlite3, sys\n" + _BECOME_NOBODY + code
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )


def is_root() -> bool:
    """Whether this is root, who can be others."""
    return os.getuid() == 0


def json_of(answer: Answer) -> Any:
    """The JSON of an answer that has to be there."""
    assert answer.status == 200, answer
    return json.loads(answer.body)


@contextlib.contextmanager
def hands_of(server: LiveServer, kernel_id: str) -> Iterator[MagicKernel]:
    """Whoever runs cells in a kernel of the server."""
    client = BlockingKernelClient(connection_file=str(server.root.parent / "runtime" / f"kernel-{kernel_id}.json"))
    client.load_connection_file()
    client.start_channels()
    try:
        end = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                client.wait_for_ready(timeout=_TIMEOUT_S)
                break
            except RuntimeError:  # on a busy machine a kernel that begins is taken for one that died
                if time.monotonic() > end:
                    raise
        yield MagicKernel(client, KernelManager())
    finally:
        client.stop_channels()
