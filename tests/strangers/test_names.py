"""Names that others chose (notebooks, kernels, processes) are text wherever they are shown, and command no terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import LiveServer, live_server
from nvml_stand_in import NVMLStandIn
from stranger import hands_of

from jupyter_gpu.kernel.report import Report
from jupyter_gpu.kernel.views import list_blocks
from jupyter_gpu.plain import plain

_GIB = 1 << 30
HOSTILE = "<img src=x onerror=alert(1)>\"'&\x1b[2J\x1b]0;gone\x07\r\u202egnp\u2028[I 2026-01-01 ServerApp] all is well"
HOSTILE_PROCESS = "<b>\x1b[2J\x07\r"
COMMANDS = "\x1b\x07\r\u202e\u2028"


def is_text(output: str) -> bool:
    """Whether there is nothing in it that a terminal would do or that would look like what it is not."""
    return not set(output) & set(COMMANDS)


@pytest.fixture
def named_process() -> Iterator[int]:
    """A process of this user that has given itself a name with markup and commands in it."""
    code = (
        "import ctypes, sys, time\n"
        f"ctypes.CDLL(None).prctl(15, {HOSTILE_PROCESS.encode()!r}, 0, 0, 0)\n"
        "print('named', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"named\n"
        yield process.pid


@pytest.fixture
def server(tmp_path: Path, runtime_directory: Path, named_process: int) -> Iterator[LiveServer]:
    driver = NVMLStandIn(tmp_path / "state")
    uuid = driver.add_gpu(name="NVIDIA <script>alert(2)</script> H100", memory_bytes=80 * _GIB)
    driver.add_process(uuid, named_process, 3 * _GIB)
    kernels = tmp_path / "data" / "kernels" / "evil"
    kernels.mkdir(parents=True)
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": HOSTILE,
        "language": "python",
    }
    (kernels / "kernel.json").write_text(json.dumps(spec))
    with live_server(tmp_path / "root", environment=driver.environment()) as server:
        server.get("gpu/api/status")
        yield server


def command(*arguments: str, environment: dict[str, str]) -> str:
    """What `jupyter gpu …` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "jupyter", "gpu", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_hostile_names_are_text_everywhere(server: LiveServer, tmp_path: Path) -> None:
    notebook = f"{HOSTILE}.ipynb".replace("/", "")
    session = server.start_session(notebook, "evil-gpu0")
    status, nameless = server.send("POST", "api/kernels", {"name": "evil"})
    assert status == 201, nameless
    environment = NVMLStandIn(tmp_path / "state-unused").environment()
    environment["NVML_STAND_IN_STATE"] = str(tmp_path / "state")

    # The command: in a terminal, which must not obey.
    for arguments in (("list",), ("status",)):
        output = command(*arguments, environment=environment)
        assert "<img src=x onerror=alert(1)>" in output
        assert is_text(output), output
        assert not any(line.startswith("[I 2026") for line in output.splitlines())

    # The magic, in the notebook of that name and in the one that looks at it: HTML and plain text.
    with hands_of(server, session["kernel"]["id"]) as kernel:
        for line in ("%gpu", "%gpu list"):
            shown = kernel.ok(line)
            for tag in ("<img", "<script", "<b>\ufffd"):
                assert tag not in shown.html, shown.html
            assert is_text(shown.html)
            assert is_text(shown.text)
        refusal = kernel.run("%gpu use 7")
        assert is_text(refusal.text + refusal.stderr)

    # REST: data, as it is, for clients to show as text; messages are for people.
    model = server.get("gpu/api/devices")
    [process] = model["devices"][0]["foreign"]
    assert process["name"].startswith("<b>\x1b[2J\x07")
    report = Report({}, list_blocks(model, set()))
    assert "<b>" not in report.html().replace("<b>GPU", "")
    assert "&lt;b&gt;" in report.html()
    assert is_text(report.html() + report.text())
    for kernel_id in (session["kernel"]["id"], nameless["id"]):
        path = f"gpu/api/kernels/{kernel_id}"
        for request in ("0", "0:8GiB", "cpu"):
            code, answer = server.send("PATCH", path, {"request": request})
            assert code == 200, answer
            assert plain(answer["message"]) == answer["message"]
            assert all(plain(notice) == notice for notice in answer["notices"])

    # What we log. That the server logs a notebook's path as it is is its own doing.
    ours = [line for line in server.log.read_text().split("\n") if "GPU" in line]
    assert all(is_text(line) for line in ours), ours


def test_a_notebook_with_anything_for_a_request_starts_and_is_quoted_as_text(server: LiveServer) -> None:
    wishes = (HOSTILE, ["0"], {"a": 1}, 1, None, True, "", " ", "\x00", "0" * 5000, "\ud800")
    for number, request in enumerate(wishes):
        metadata = {"jupyter_gpu": {"request": request}, "kernelspec": {"name": request}}
        content = {"cells": [], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
        (server.root / f"{number}.ipynb").write_text(json.dumps(content))
        session = server.start_session(f"{number}.ipynb")
        kernel = server.get(f"gpu/api/kernels/{session['kernel']['id']}")
        assert kernel["state"] in ("running", "problem"), (request, kernel)
        assert is_text("".join(kernel["notices"]))
        if request == HOSTILE:
            [notice] = kernel["notices"]
            assert notice.startswith("The kernel runs on the CPU, because ")
            assert "onerror" in notice
        server.end_session(session)
    assert is_text(server.log.read_text())


def test_names_keep_what_scripts_need() -> None:
    for name in ("پژوهش\u200cها.ipynb", "👩\u200d🔬.ipynb", "日本語 ノート.ipynb", "Ünïcödé.ipynb", "עברית.ipynb"):
        assert plain(name) == name
    assert plain("a\x1b[2J\n\u202eb\ud800") == "a\ufffd[2J\ufffd\ufffdb\ufffd"
    assert plain("x" * 20, 10) == "x" * 9 + "…"
