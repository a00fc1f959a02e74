"""Nothing of what other processes were started with leaves the server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import live_server
from nvml_stand_in import NVMLStandIn
from stranger import Stranger, Victim, hands_of, is_root

_GIB = 1 << 30
_IN_COMMAND, _IN_ENVIRONMENT = "secret-of-the-command-line", "secret-of-the-environment"
_PROGRAM = """
import os, sys, time
if sys.argv[1] == "nobody":
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
print("ready", flush=True); sys.stdin.read()
"""


@pytest.fixture
def pids() -> Iterator[dict[str, int]]:
    """Foreign processes with secrets: of this user, and of another where we can be another."""
    processes = {}
    for who in ("own", "nobody") if is_root() else ("own",):
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, who, f"--password={_IN_COMMAND}"],
            env={"PASSWORD": _IN_ENVIRONMENT, "JUPYTER_GPU_LEASE": f"{_IN_ENVIRONMENT}-lease"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        processes[who] = process
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    yield {who: process.pid for who, process in processes.items()}
    for process in processes.values():
        process.communicate()


def test_command_lines_and_environments_of_others_never_leave(tmp_path: Path, pids: dict[str, int]) -> None:
    driver = NVMLStandIn(tmp_path / "state")
    uuid = driver.add_gpu(memory_bytes=80 * _GIB)
    for pid in pids.values():
        driver.add_process(uuid, pid, 3 * _GIB, utilization=20)
    with live_server(tmp_path / "root", environment=driver.environment()) as server:
        session = server.start_session("a.ipynb", "python3-gpu0")
        victim = Victim(server, Stranger(server.url), session["kernel"]["id"], tmp_path, uuid)
        said = []
        for method, path in victim.endpoints():
            body = b'{"request": "0:79GiB"}' if method == "PATCH" else None
            said.append(victim.stranger.ask(method, path, body=body, token=server.token).body.decode(errors="replace"))
        with hands_of(server, victim.kernel_id) as kernel:
            for line in ("%gpu", "%gpu list", "%gpu use 0:79GiB"):
                output = kernel.run(line)
                said.append(output.text + output.html + output.stderr + output.traceback)
        said.append(server.log.read_text())
        foreign = {each["pid"]: each for each in server.get("gpu/api/devices")["devices"][0]["foreign"]}
    everything = "\n".join(said)
    assert _IN_COMMAND not in everything
    assert _IN_ENVIRONMENT not in everything
    # They are there all the same: what they take of the GPU is everybody's concern.
    assert set(foreign) == set(pids.values())
    assert foreign[pids["own"]]["name"].startswith("python")
    if "nobody" in pids:
        assert foreign[pids["nobody"]] == {"pid": pids["nobody"], "name": None, "memory_bytes": 3 * _GIB}
