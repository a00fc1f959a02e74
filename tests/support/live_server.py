"""A real Jupyter server in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_TIMEOUT_S = 60
ANSWER_TIMEOUT_S = 60


@dataclass
class LiveServer:
    """Where it is, and how to talk to it."""

    url: str
    token: str
    process: subprocess.Popen[bytes]
    root: Path
    log: Path

    def send(self, method: str, path: str, body: Any = None, *, token: str | None = "own") -> tuple[int, Any]:
        """The status and the JSON of an answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path.lstrip("/"), data=data, method=method)
        if token is not None:
            request.add_header("Authorization", f"token {self.token if token == 'own' else token}")
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _json(error.read())

    def get(self, path: str) -> Any:
        """The JSON at a path, which must be there."""
        status, content = self.send("GET", path)
        assert status == 200, (path, status, content)
        return content

    def start_session(self, path: str, kernel: str = "python3") -> dict[str, Any]:
        """A new notebook session, whose kernel has been started."""
        body = {"path": path, "name": Path(path).name, "type": "notebook", "kernel": {"name": kernel}}
        status, session = self.send("POST", "api/sessions", body)
        assert status == 201, session
        return dict(session)

    def end_session(self, session: dict[str, Any]) -> None:
        """Shut the session's kernel down."""
        status, answer = self.send("DELETE", f"api/sessions/{session['id']}")
        assert status == 204, answer


@contextlib.contextmanager
def live_server(
    root: Path, *arguments: str, environment: dict[str, str] | None = None, python: str = sys.executable
) -> Iterator[LiveServer]:
    """A server of `python`'s packages with its root directory at `root`, inside the `with`."""
    root.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    port = _free_port()
    log = root.parent / f"{root.name}.log"
    variables = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(root.parent / "config"),
        "JUPYTER_RUNTIME_DIR": str(root.parent / "runtime"),
        "JUPYTER_DATA_DIR": str(root.parent / "data"),
        "JUPYTER_PLATFORM_DIRS": "0",
        **(environment or {}),
    }
    command = [
        python, "-m", "jupyter", "server", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}", *arguments,
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)
    server = LiveServer(f"http://127.0.0.1:{port}/", token, process, root, log)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    """A port below those that Linux gives out by itself, one of which a kernel could get before the server does."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as free:
            free.bind(("127.0.0.1", 10_000 + secrets.randbelow(20_000)))
            return int(free.getsockname()[1])


def _wait_until_ready(server: LiveServer) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        assert server.process.poll() is None, server.log.read_text()
        try:
            if server.send("GET", "api/status")[0] == 200:
                return
        except OSError:
            time.sleep(0.01)
    raise AssertionError(f"the server did not start:\n{server.log.read_text()}")


def _json(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError:
        return content.decode(errors="replace")
