"""One server whose ledger is spoilt in every way, again and again: kernels start, people are told, nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from light_kernels import BARE, QUICK_RESTARTER, beats, install_light_kernel
from live_server import LiveServer, live_server
from own_mount import OwnMount

from jupyter_gpu.devices.processes import environment_value

GIB = 1 << 30
GPUS = {"JUPYTER_GPU_SIMULATE": "2xNVIDIA A100-SXM4-40GB:40GiB"}
LEDGER = "ledger.sqlite"
PATIENCE_S = 60.0


class Patient:
    """A server on a ledger that things are done to, with a kernel that has to live through them all."""

    def __init__(self, server: LiveServer, mount: OwnMount, environment: dict[str, str]) -> None:
        self.server, self.mount, self._environment = server, mount, environment
        self._count = 0
        self.first = self.kernel(self.start("eight")["kernel"]["id"])

    def start(self, spec: str) -> dict[str, Any]:
        self._count += 1
        return self.server.start_session(f"{spec}-{self._count}.ipynb", spec)

    def kernel(self, kernel_id: str) -> dict[str, Any]:
        return dict(self.server.get(f"gpu/api/kernels/{kernel_id}"))

    def devices(self) -> list[dict[str, Any]]:
        return list(self.server.get("gpu/api/devices")["devices"])

    def problem(self) -> str | None:
        ledger = self.server.get("gpu/api/status")["ledger"]
        assert ledger["ok"] is (ledger["problem"] is None)
        return None if ledger["problem"] is None else str(ledger["problem"])

    def beats(self) -> bool:
        return beats(self.server.root.parent / "runtime" / f"kernel-{self.first['kernel_id']}.json")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What `jupyter gpu` says beside the server."""
        return self.mount.run(str(Path(sys.executable).with_name("jupyter")), "gpu", *arguments, **self._environment)

    def expect_sick(self, sentence: str) -> None:
        """Kernels start without a GPU and say why; everything else goes on."""
        kernel = self.expect_kernel(sentence)
        assert kernel["state"] == "problem"
        assert sentence in (self.problem() or "")
        doctor = self.command("doctor", "--json")
        assert doctor.returncode == 1, doctor.stderr
        [found] = [each for each in json.loads(doctor.stdout)["findings"] if each["name"] == "Ledger"]
        assert found["state"] == "problem"
        assert sentence in found["found"]

    def expect_kernel(self, sentence: str) -> dict[str, Any]:
        """A kernel starts, with a GPU or without one and with the sentence; everything else goes on."""
        session = self.start("eight")
        kernel = self.kernel(session["kernel"]["id"])
        if kernel["state"] == "problem":
            assert (kernel["devices"], kernel["lease_id"]) == ([], None)
            assert kernel["notices"][0].startswith("The kernel runs without a GPU, because ")
            assert sentence in kernel["notices"][0]
            assert environment_value(kernel["pid"], "CUDA_VISIBLE_DEVICES") == "-1"
        else:
            assert (kernel["state"], len(kernel["devices"])) == ("running", 1)
        assert len(self.devices()) == 2
        assert self.server.get("gpu/api/queue")["entries"] == []
        assert self.beats()
        self.server.end_session(session)
        return kernel

    def expect_well(self) -> None:
        """Kernels get GPUs, the first one has kept its own, and nobody else holds anything."""
        assert self.problem() is None
        session = self.start("eight")
        kernel = self.kernel(session["kernel"]["id"])
        assert (kernel["state"], kernel["notices"]) == ("running", [])
        assert [device["reserved_bytes"] for device in self.devices()] == [16 * GIB, 0]
        assert environment_value(kernel["pid"], "CUDA_VISIBLE_DEVICES") == self.devices()[0]["uuid"]
        self.server.end_session(session)
        first = self.kernel(self.first["kernel_id"])
        assert first["pid"] == self.first["pid"], "it has not been started again"
        assert (first["lease_id"], first["state"], first["notices"]) == (self.first["lease_id"], "running", [])
        assert self.beats()
        assert [device["reserved_bytes"] for device in self.devices()] == [8 * GIB, 0]
        assert self.server.get("gpu/api/queue")["entries"] == []


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    base = Path(tempfile.mkdtemp(prefix="jg-"))
    runtime = base / "rt"
    runtime.mkdir()
    mount = OwnMount(runtime)
    install_light_kernel(base / "data", "eight", "0:8GiB")
    install_light_kernel(base / "data", "whole", "1:all")
    environment = {**GPUS, "JUPYTER_GPU_RUNTIME_DIR": str(runtime)}
    options = (*QUICK_RESTARTER, *BARE)
    try:
        with live_server(base / "root", *options, environment=environment, python=str(mount.python)) as server:
            mount.enter(server.process.pid)
            yield Patient(server, mount, environment)
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def ledger(patient: Patient) -> Iterator[Path]:
    """The directory of a ledger that is well before, and has to be after."""
    patient.expect_well()
    yield patient.mount.path
    patient.expect_well()


def remove(directory: Path) -> None:
    """What people are advised to do."""
    for path in directory.glob(f"{LEDGER}*"):
        path.unlink()


def copied(patient: Patient) -> bytes:
    """All that the ledger holds, as one file."""
    copy = patient.mount.path / "copy"
    with patient.mount.sql(LEDGER, f"VACUUM INTO '{patient.mount.directory / 'copy'}'"):
        content = copy.read_bytes()
    copy.unlink()
    return content


def replace(directory: Path, content: bytes) -> None:
    """Put another file in the ledger's place, as an editor or a restored backup does."""
    (directory / "draft").write_bytes(content)
    remove(directory)
    (directory / "draft").rename(directory / LEDGER)


def test_a_file_of_something_else(patient: Patient, ledger: Path) -> None:
    replace(ledger, os.urandom(8192))
    patient.expect_sick("file is not a database")
    remove(ledger)


def test_a_file_with_pages_of_something_else(patient: Patient, ledger: Path) -> None:
    content = bytearray(copied(patient))
    content[100:] = os.urandom(len(content) - 100)
    replace(ledger, bytes(content))
    patient.expect_sick("cannot be used")
    remove(ledger)


@pytest.mark.parametrize("size", [0, 1, 2048, 5000])
def test_a_truncated_file(patient: Patient, ledger: Path, size: int) -> None:
    content = copied(patient)
    assert len(content) > 5000
    replace(ledger, content[:size])
    if size > 1:  # SQLite takes less for a new file
        patient.expect_sick("cannot be used")
        remove(ledger)


@pytest.mark.parametrize("name", [LEDGER, f"{LEDGER}-wal"])
@pytest.mark.parametrize("damage", ["overwritten", "truncated"])
def test_a_file_that_is_changed_in_place(patient: Patient, ledger: Path, name: str, damage: str) -> None:
    """SQLite goes on with what it has in memory until it has to read the file, and may well mend it."""
    path = ledger / name
    if damage == "truncated":
        os.truncate(path, 0)
    else:
        path.write_bytes(os.urandom(max(4096, path.stat().st_size)))
    patient.expect_kernel("cannot be used")
    remove(ledger)


def test_a_newer_versions_file(patient: Patient, ledger: Path) -> None:
    remove(ledger)
    with patient.mount.sql(LEDGER, "CREATE TABLE leases (everything_is_different)", "PRAGMA user_version = 2"):
        pass
    patient.expect_sick("has version 2, and this software reads version 1")
    remove(ledger)


def test_a_file_that_a_newer_version_takes_over_while_it_is_in_use(patient: Patient, ledger: Path) -> None:
    with patient.mount.sql(LEDGER, "PRAGMA user_version = 2"):
        pass
    patient.expect_sick("has version 2, and this software reads version 1")
    remove(ledger)


def test_a_directory_in_its_place(patient: Patient, ledger: Path) -> None:
    remove(ledger)
    (ledger / LEDGER).mkdir()
    patient.expect_sick("no file of this user; remove it")
    (ledger / LEDGER).rmdir()


def test_a_deleted_file(patient: Patient, ledger: Path) -> None:
    remove(ledger)


def test_everything_in_its_directory_deleted(patient: Patient, ledger: Path) -> None:
    """The socket of the server goes too, and with it `%gpu` in kernels that run; what they hold stays theirs."""
    for path in ledger.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_full_disk(patient: Patient, ledger: Path) -> None:
    session = patient.start("whole")
    patient.mount.fill()
    patient.expect_sick("free space")
    patient.server.end_session(session)
    assert [device["reserved_bytes"] for device in patient.devices()] == [8 * GIB, 0], "it has ended"
    patient.mount.empty()


def test_a_directory_that_becomes_read_only(patient: Patient, ledger: Path) -> None:
    """The ledger stays open for writing and goes on, but no memory account can be made."""
    patient.mount.make_read_only()
    session = patient.start("eight")
    kernel = patient.kernel(session["kernel"]["id"])
    assert kernel["state"] == "running"
    assert any("memory cap" in notice and "account" in notice for notice in kernel["notices"])
    patient.server.end_session(session)
    patient.mount.make_writable()


def test_a_file_that_another_program_keeps_locked(patient: Patient, ledger: Path) -> None:
    with patient.mount.sql(LEDGER, "BEGIN IMMEDIATE"), ThreadPoolExecutor(1) as pool:
        starting = pool.submit(patient.start, "eight")
        while not starting.done():
            for path in ("api", "api/kernels", "gpu/api/status", "gpu/api/devices", "gpu/api/kernels"):
                patient.server.get(path)
            assert patient.beats()
            time.sleep(0.5)
        session = starting.result()
        kernel = patient.kernel(session["kernel"]["id"])
        assert kernel["state"] == "problem"
        assert "database is locked" in kernel["notices"][0]
    patient.server.end_session(session)


def test_a_directory_that_is_read_only_from_the_start(patient: Patient, tmp_path: Path) -> None:
    base = Path(tempfile.mkdtemp(prefix="jg-"))
    runtime = base / "rt"
    runtime.mkdir()
    mount = OwnMount(runtime, read_only=True)
    install_light_kernel(base / "data", "eight", "0:8GiB")
    environment = {**GPUS, "JUPYTER_GPU_RUNTIME_DIR": str(runtime)}
    try:
        with live_server(base / "root", *BARE, environment=environment, python=str(mount.python)) as server:
            mount.enter(server.process.pid)
            session = server.start_session("a.ipynb", "eight")
            kernel = server.get(f"gpu/api/kernels/{session['kernel']['id']}")
            assert kernel["state"] == "problem"
            assert "cannot be used" in kernel["notices"][0]
            assert "repair permissions" in (server.get("gpu/api/status")["ledger"]["problem"] or "")
            mount.remount("rw")
            session = server.start_session("b.ipynb", "eight")
            kernel = server.get(f"gpu/api/kernels/{session['kernel']['id']}")
            assert (kernel["state"], kernel["notices"]) == ("running", [])
    finally:
        shutil.rmtree(base, ignore_errors=True)
