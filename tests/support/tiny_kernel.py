"""A kernel that starts in a tenth of a second: heartbeat, kernel_info, execute and shutdown of Jupyter's protocol 5.3.

Run as `python tiny_kernel.py CONNECTION_FILE [AMOUNT]`. With an amount it takes that much simulated device memory at
its start. What it executes is Python, without history, display or interrupts.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import json
import os
import signal
import sys
import uuid
from datetime import datetime, timezone
from typing import Any

import zmq

_DELIMITER = b"<IDS|MSG>"
_LOOK_FOR_PARENT_MS = 1000


class Wire:
    """Signs and sends messages."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self._session = uuid.uuid4().hex

    def send(
        self, socket: zmq.Socket[bytes], idents: list[bytes], kind: str, parent: bytes, content: dict[str, Any]
    ) -> None:
        header = {
            "msg_id": uuid.uuid4().hex,
            "session": self._session,
            "username": "tiny",
            "date": datetime.now(timezone.utc).isoformat(),
            "msg_type": kind,
            "version": "5.3",
        }
        parts = [json.dumps(header).encode(), parent, b"{}", json.dumps(content).encode()]
        socket.send_multipart([*idents, _DELIMITER, self._sign(parts), *parts])

    def _sign(self, parts: list[bytes]) -> bytes:
        if not self._key:
            return b""
        digest = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in parts:
            digest.update(part)
        return digest.hexdigest().encode()


class TinyKernel:
    """The sockets of a connection file, and what comes in through them."""

    def __init__(self, connection: dict[str, Any]) -> None:
        self._context = zmq.Context()
        self._wire = Wire(connection["key"])
        self._names: dict[str, Any] = {}
        self._count = 0
        self._address = f"{connection['transport']}://{connection['ip']}:"
        self._shell, self._control, self._stdin, self._iopub, self._heartbeat = (
            self._bind(kind, connection[f"{name}_port"])
            for kind, name in (
                (zmq.ROUTER, "shell"),
                (zmq.ROUTER, "control"),
                (zmq.ROUTER, "stdin"),
                (zmq.PUB, "iopub"),
                (zmq.REP, "hb"),
            )
        )

    def run(self) -> None:
        """Answer until asked to shut down, or until the process that started this one has ended."""
        parent = os.getppid()
        poller = zmq.Poller()
        for socket in (self._shell, self._control, self._heartbeat):
            poller.register(socket, zmq.POLLIN)
        while True:
            for socket, _ in poller.poll(_LOOK_FOR_PARENT_MS):
                if socket is self._heartbeat:
                    socket.send(socket.recv())
                elif not self._answer(socket):
                    return
            if os.getppid() != parent and not os.environ.get("TINY_KERNEL_OUTLIVES"):
                return

    def _bind(self, kind: int, port: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.linger = 200
        socket.bind(f"{self._address}{port}")
        return socket

    def _answer(self, socket: zmq.Socket[bytes]) -> bool:
        """Answer one message; whether to go on."""
        parts = socket.recv_multipart()
        begin = parts.index(_DELIMITER)
        idents, header, content = parts[:begin], parts[begin + 2], json.loads(parts[begin + 5])
        kind = json.loads(header)["msg_type"]

        def tell(state: dict[str, Any], what: str = "status") -> None:
            self._wire.send(self._iopub, [what.encode()], what, header, state)

        tell({"execution_state": "busy"})
        reply = {"status": "ok"}
        if kind == "kernel_info_request":
            reply |= {
                "protocol_version": "5.3",
                "implementation": "tiny",
                "implementation_version": "1",
                "language_info": {"name": "tiny", "version": "1", "mimetype": "text/plain", "file_extension": ".txt"},
                "banner": "",
            }  # type: ignore[dict-item]
        elif kind == "execute_request":
            text, reply = self._execute(content["code"])
            if text:
                tell({"name": "stdout", "text": text}, "stream")
        elif kind == "shutdown_request":
            reply |= {"restart": content.get("restart", False)}
        self._wire.send(socket, idents, kind.replace("_request", "_reply"), header, reply)
        tell({"execution_state": "idle"})
        return kind != "shutdown_request"

    def _execute(self, code: str) -> tuple[str, dict[str, Any]]:
        self._count += 1
        text = io.StringIO()
        try:
            with contextlib.redirect_stdout(text):
                exec(code, self._names)
        except Exception as error:  # noqa: BLE001 - it is the user's code
            reply = {"status": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": []}
            return text.getvalue(), {**reply, "execution_count": self._count}
        return text.getvalue(), {"status": "ok", "execution_count": self._count, "user_expressions": {}}


def main() -> None:
    # A shutdown begins with an interrupt, and nothing here can be interrupted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123 - pathlib is slow to import
        connection = json.load(file)
    kernel = TinyKernel(connection)
    if len(sys.argv) > 2 and os.environ.get("CUDA_VISIBLE_DEVICES", "-1") != "-1":
        from jupyter_gpu import simulated

        kernel.block = simulated.allocate(sys.argv[2])  # type: ignore[attr-defined]
    kernel.run()


if __name__ == "__main__":
    main()
