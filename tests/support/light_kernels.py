"""Servers whose kernels cost next to nothing, so that hundreds can be started and killed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zmq
from live_server import LiveServer

from jupyter_gpu.devices.processes import ProcessKey, environment_block, process_key, value_in

TINY_KERNEL = Path(__file__).with_name("tiny_kernel.py")
HEARTBEAT_TIMEOUT_S = 60
QUICK_RESTARTER = ("--KernelRestarter.time_to_dead=0.3",)
"""The server looks every 3 s whether its kernels live; with this it is every 0.3 s."""

_OTHERS = ("jupyterlab", "notebook", "notebook_shim", "jupyter_lsp", "jupyter_server_terminals")
BARE = (f"--ServerApp.jpserver_extensions={dict.fromkeys(_OTHERS, False)}",)
"""Without the other extensions a server starts in a third of the time."""


def install_light_kernel(
    data: Path, name: str, request: str, *, takes: str | None = None, argv: list[str] | None = None
) -> None:
    """Write a kernelspec.

    Args:
        data: a Jupyter data directory: `data` beside the root directory of a live server.
        name: of the kernelspec.
        request: what its kernels ask for.
        takes: how much simulated memory each takes at its start.
        argv: another program than the tiny kernel.
    """
    folder = data / "kernels" / name
    folder.mkdir(parents=True)
    command = argv or [sys.executable, str(TINY_KERNEL), "{connection_file}", *([takes] if takes else [])]
    spec = {
        "argv": command,
        "display_name": name,
        "language": "tiny",
        "env": {"JUPYTER_GPU": request},
    }
    (folder / "kernel.json").write_text(json.dumps(spec))


def processes_of(directory: Path) -> Iterator[tuple[ProcessKey, str, str]]:
    """The living processes with a lease of the ledger in a directory: each with its lease and its notebook's path."""
    prefix = f"{directory}/accounts/"
    for entry in os.listdir("/proc"):
        block = environment_block(int(entry)) if entry.isdigit() else None
        if not block or not (value_in(block, "JUPYTER_GPU_ACCOUNT") or "").startswith(prefix):
            continue
        lease_id, key = value_in(block, "JUPYTER_GPU_LEASE"), process_key(int(entry))
        if lease_id and key is not None:
            yield key, lease_id, value_in(block, "JPY_SESSION_NAME") or ""


def beats(connection_file: Path) -> bool:
    """Whether a kernel answers its heartbeat."""
    connection = json.loads(connection_file.read_text())
    context = zmq.Context()
    socket = context.socket(zmq.REQ)
    socket.linger = 0
    try:
        socket.connect(f"{connection['transport']}://{connection['ip']}:{connection['hb_port']}")
        socket.send(b"alive?")
        return bool(socket.poll(HEARTBEAT_TIMEOUT_S * 1000)) and socket.recv() == b"alive?"
    finally:
        socket.close()
        context.term()


def expect_unharmed(server: LiveServer, before: dict[str, Any]) -> None:
    """Fail unless a kernel runs on with the lease and the process of its model before, and nothing to complain of."""
    now = server.get(f"gpu/api/kernels/{before['kernel_id']}")
    assert [now[name] for name in ("pid", "lease_id", "state", "notices")] == [
        before["pid"], before["lease_id"], "running", [],
    ]  # fmt: skip
    assert beats(server.root.parent / "runtime" / f"kernel-{now['kernel_id']}.json")
