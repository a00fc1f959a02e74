"""The wall clock is set while a server runs, and pids are used again: neither ends, keeps or mixes up a lease."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from light_kernels import BARE, QUICK_RESTARTER, beats, install_light_kernel
from live_server import LiveServer, live_server
from until import PATIENCE_S, until

STEP = Path(__file__).parents[1] / "native" / "clock" / "step.c"
GPUS = {"JUPYTER_GPU_SIMULATE": "2xNVIDIA A100-SXM4-40GB:40GiB"}
GIB = 1 << 30
HOUR_S = 3600
YEAR_S = 365 * 24 * HOUR_S


class WallClock:
    """Preloaded into a server and its kernels."""

    def __init__(self, directory: Path) -> None:
        library, self._file = directory / "step.so", directory / "step"
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(STEP), "-ldl"], check=True)
        self._file.write_bytes(struct.pack("=q", 0))
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_STEP_FILE": str(self._file)}

    def set(self, seconds: int) -> None:
        """So far from what the system says."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", seconds))


@pytest.fixture
def base() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="jg-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def test_a_clock_that_is_set_forth_and_back(base: Path) -> None:
    clock = WallClock(base)
    for name, request in {"first": "0:8GiB", "whole": "1:all"}.items():
        install_light_kernel(base / "data", name, request)
    environment = {**GPUS, **clock.environment, "JUPYTER_GPU_RUNTIME_DIR": str(base / "rt")}
    options = (*QUICK_RESTARTER, *BARE, "--GPUSampler.interval_s=0.2")
    with live_server(base / "root", *options, environment=environment) as server:
        first = server.start_session("first.ipynb", "first")
        path = f"gpu/api/kernels/{first['kernel']['id']}"
        before = server.get(path)
        for step in (HOUR_S, -HOUR_S, YEAR_S, -YEAR_S, 0):
            holder = server.start_session("holder.ipynb", "whole")
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(server.start_session, "waits.ipynb", "whole")
                until(lambda: server.get("gpu/api/queue")["entries"])
                last = until(lambda: server.get("gpu/api/history")["time"])
                clock.set(step)
                assert abs(server.get("gpu/api/queue")["time"] - time.time() - step) < PATIENCE_S
                expect_history_after(server, last)
                server.end_session(holder)
                server.end_session(waiting.result())
            # Not by a kill: once the clock has gone back, tornado looks no more whether kernels live.
            assert server.send("POST", f"api/kernels/{first['kernel']['id']}/restart")[0] == 200
            after = server.get(path)
            for name in ("lease_id", "state", "notices", "request"):
                assert after[name] == before[name], name
            until(lambda: beats(base / "runtime" / f"kernel-{first['kernel']['id']}.json"))
            devices = server.get("gpu/api/devices")["devices"]
            assert [device["reserved_bytes"] for device in devices] == [8 * GIB, 0]
            assert server.get("gpu/api/queue")["entries"] == []


def expect_history_after(server: LiveServer, last: float) -> None:
    """Whoever asks for what is new goes on getting it, whatever the clock does."""
    new = until(lambda: (answer := server.get(f"gpu/api/history?since={last!r}"))["devices"] and answer)
    for series in new["devices"].values():
        assert all(moment > last for moment in series["t"])
        assert series["t"] == sorted(series["t"])


def test_pids_that_are_used_again(base: Path) -> None:
    # In a pid namespace of its own a process may say which pid Linux gives out next, and harms nobody.
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no pid namespace can be made here")
    install_light_kernel(base / "data", "whole", "1:all", takes="2GiB")
    environment = {
        **os.environ,
        **GPUS,
        "JUPYTER_GPU_RUNTIME_DIR": str(base / "rt"),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    program = [*command, sys.executable, "-c", _USES_PIDS_AGAIN, str(base)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


_USES_PIDS_AGAIN = """
import os, pathlib, signal, subprocess, sys, time
from light_kernels import BARE, processes_of
from live_server import live_server

base = pathlib.Path(sys.argv[1])
runtime = base / "rt"

def sleeper_with(pid):
    # Others start processes too: of a few tries one gets it.
    for _ in range(50):
        pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        process = subprocess.Popen(["sleep", "600"])
        if process.pid == pid:
            return process
        process.kill()
        process.wait()
    raise AssertionError(f"nobody could be given the pid {pid}")

def kill_and_reap(pid):
    os.kill(pid, signal.SIGKILL)
    # This is the namespace's first process: orphans are its children.
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                return
        except ChildProcessError:
            if not pathlib.Path(f"/proc/{pid}").exists():
                return
        time.sleep(0.01)
    raise AssertionError(f"{pid} does not end")

with live_server(base / "one", *BARE) as server:
    session = server.start_session("a.ipynb", "whole")
    kernel = server.get(f"gpu/api/kernels/{session['kernel']['id']}")
    end = time.monotonic() + 60
    while server.get("gpu/api/devices")["devices"][1]["memory_used_bytes"] != 2 << 30:
        assert time.monotonic() < end
        time.sleep(0.05)
    server_pid, kernel_pid = server.process.pid, kernel["pid"]
    server.process.kill()
    server.process.wait()
    kill_and_reap(kernel_pid)
    strangers = [sleeper_with(kernel_pid), sleeper_with(server_pid)]
    with live_server(base / "two", *BARE) as second:
        devices = second.get("gpu/api/devices")["devices"]
        assert [device["leases"] for device in devices] == [[], []], devices
        assert [device["memory_used_bytes"] for device in devices] == [0, 0], devices
        session = second.start_session("b.ipynb", "whole")
        after = second.get(f"gpu/api/kernels/{session['kernel']['id']}")
        assert (after["state"], after["notices"]) == ("running", []), after
        assert not (runtime / "accounts" / kernel["lease_id"]).exists()
        assert [path.name.split("-")[1] for path in runtime.glob("server-*.sock")] == [str(second.process.pid)]
        second.end_session(session)
    assert [process.poll() for process in strangers] == [None, None], "they were nobody's to end"
    for process in strangers:
        process.kill()
        process.wait()
"""
