"""Servers that share a host share its ledger."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer, live_server

from jupyter_gpu.host import GPUHost

GIB = 1 << 30


def reserved(server: LiveServer) -> list[int]:
    return [device["reserved_bytes"] for device in server.get("gpu/api/devices")["devices"]]


@pytest.fixture
def refuse_rather_than_wait() -> tuple[str, ...]:
    return ("--GPUHost.explicit_policy=cpu",)


def test_two_servers_never_give_out_the_same_memory(
    tmp_path: Path, simulated_gpus: str, refuse_rather_than_wait: tuple[str, ...]
) -> None:
    with (
        live_server(tmp_path / "a", *refuse_rather_than_wait, environment={"JUPYTER_GPU": "0:15GiB"}) as first,
        live_server(tmp_path / "b", *refuse_rather_than_wait, environment={"JUPYTER_GPU": "0:15GiB"}) as second,
    ):

        def start(number: int) -> dict[str, Any]:
            server = (first, second)[number % 2]
            session = server.start_session(f"{number}.ipynb")
            return dict(server.get(f"gpu/api/kernels/{session['kernel']['id']}"))

        with ThreadPoolExecutor(4) as pool:
            kernels = list(pool.map(start, range(4)))
        granted = [kernel for kernel in kernels if kernel["devices"]]
        assert len(granted) == 2
        assert all("runs on the CPU" in kernel["notices"][0] for kernel in kernels if not kernel["devices"])
        assert reserved(first)[0] == reserved(second)[0] == 30 * GIB
        [shown] = [device for device in second.get("gpu/api/devices")["devices"] if device["leases"]]
        assert {lease["owner"]["label"] for lease in shown["leases"]} == {kernel["label"] for kernel in granted}
        mine = {lease["owner"]["label"] for lease in shown["leases"] if lease["owner"]["mine"]}
        assert mine <= {"1.ipynb", "3.ipynb"}


def test_what_one_server_holds_the_other_waits_for(tmp_path: Path, simulated_gpus: str) -> None:
    with (
        live_server(tmp_path / "a", environment={"JUPYTER_GPU": "1:all"}) as first,
        live_server(tmp_path / "b", environment={"JUPYTER_GPU": "1:all"}) as second,
        ThreadPoolExecutor(1) as pool,
    ):
        session = first.start_session("first.ipynb")
        start = pool.submit(second.start_session, "second.ipynb")
        while not (entries := first.get("gpu/api/queue")["entries"]):
            assert not start.done()
        assert [(entry["label"], entry["message"], entry["mine"]) for entry in entries] == [
            ("second.ipynb", "waits for GPU 1, held by first.ipynb", False)
        ]
        first.end_session(session)
        kernel_id = start.result(30)["kernel"]["id"]
        assert second.get(f"gpu/api/kernels/{kernel_id}")["devices"][0]["index"] == "1"


def test_a_killed_servers_leases_go_with_its_kernels(tmp_path: Path, simulated_gpus: str, host: GPUHost) -> None:
    with live_server(tmp_path / "a", environment={"JUPYTER_GPU": "1:all"}) as server:
        session = server.start_session("a.ipynb")
        pid = server.get(f"gpu/api/kernels/{session['kernel']['id']}")["pid"]
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        [lease] = host.leases_now()
        assert lease.process is not None
        assert lease.process.pid == pid
        os.kill(pid, signal.SIGKILL)
        while host.leases_now():
            pass
        host.ledger.drop_dead()
        assert list(host.accounts.directory.iterdir()) == []


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_server_ends_promptly_though_a_start_waited(tmp_path: Path, simulated_gpus: str, cancelled: bool) -> None:
    with (
        live_server(tmp_path / "a", environment={"JUPYTER_GPU": "1:all"}) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        server.start_session("first.ipynb")
        body = {"path": "b.ipynb", "name": "b.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
        start = pool.submit(server.send, "POST", "api/sessions", body)
        while not (entries := server.get("gpu/api/queue")["entries"]):
            assert not start.done()
        if cancelled:
            assert server.send("DELETE", f"gpu/api/queue/{entries[0]['id']}")[0] == 204
            assert start.result(30)[0] == 500
        server.process.terminate()
        server.process.wait(15)
        assert server.process.returncode == 0
        assert "Kernel does not exist" not in server.log.read_text()
