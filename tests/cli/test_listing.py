"""`jupyter gpu list` and `jupyter gpu status`."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_gpu.host import GPUHost
    from jupyter_gpu.leases.lease import Lease

    from .conftest import Command

GIB = 1 << 30


def test_the_list_shows_each_device_with_memory_and_holders(
    gpu: Command, take: Callable[..., Lease], use: Callable[[Lease, int], None]
) -> None:
    use(take("1:8GiB", "train.ipynb"), 3 * GIB)
    take("1", "look.ipynb")
    take("2:all", "big.ipynb")
    first, header, *rows = gpu("list").stdout.splitlines()
    assert first == "Simulated GPUs: there is no hardware behind them."
    assert header.split() == ["GPU", "NAME", "MEMORY", "FREE", "UTIL", "TEMP", "POWER", "HELD", "BY"]
    assert len(rows) == 4
    assert rows[0].endswith("-")
    assert "3 GiB / 40 GiB" in rows[1]
    assert "32 GiB" in rows[1], "free to be reserved"
    assert rows[1].endswith("train.ipynb (8 GiB), look.ipynb (shared)")
    assert rows[2].endswith("big.ipynb (whole)")
    assert " 0 B   0 %" in rows[2]


def test_the_list_as_json_has_what_the_rest_api_has(
    gpu: Command, take: Callable[..., Lease], use: Callable[[Lease, int], None]
) -> None:
    lease = take("1:8GiB", "train.ipynb")
    use(lease, 3 * GIB)
    model = gpu.json("list")
    assert model["simulated"] is True
    assert model["problems"] == []
    assert [device["index"] for device in model["devices"]] == ["0", "1", "2", "3"]
    device = model["devices"][1]
    assert (device["memory_bytes"], device["memory_used_bytes"]) == (40 * GIB, 3 * GIB)
    assert (device["reserved_bytes"], device["available_bytes"], device["foreign_bytes"]) == (8 * GIB, 32 * GIB, 0)
    (held,) = device["leases"]
    assert (held["lease_id"], held["kind"], held["memory_bytes"], held["cap_bytes"]) == (
        lease.id, "reserved", 8 * GIB, 8 * GIB,
    )  # fmt: skip
    assert (held["used_bytes"], held["owner"]["label"], held["owner"]["mine"]) == (3 * GIB, "train.ipynb", False)


def test_memory_of_processes_without_a_lease_is_shown_as_theirs(gpu: Command) -> None:
    program = "import jupyter_gpu.simulated as g; a = g.allocate('5GiB', device=3); print('ready', flush=True); input()"
    stranger = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        device = gpu.json("list")["devices"][3]
        assert device["foreign_bytes"] == 5 * GIB
        assert [process["pid"] for process in device["foreign"]] == [stranger.pid]
        assert gpu("list").stdout.splitlines()[-1].endswith(f"pid {stranger.pid}")
    finally:
        stranger.kill()
        stranger.communicate()


def test_mig_instances_are_listed_under_their_gpu(gpu: Command) -> None:
    done = gpu("list", JUPYTER_GPU_SIMULATE="NVIDIA A100-SXM4-40GB:40GiB/2x3g.20gb:20GiB")
    rows = done.stdout.splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["0", "0.0", "0.1"]
    assert "  MIG  " in rows[0]
    assert "NVIDIA A100-SXM4-40GB MIG 3g.20gb" in rows[1]


def test_a_wrong_simulation_is_a_problem_that_says_what_to_correct(gpu: Command) -> None:
    done = gpu("list", JUPYTER_GPU_SIMULATE="nonsense")
    assert "does not describe simulated GPUs" in done.stdout
    assert "Correct JUPYTER_GPU_SIMULATE." in done.stdout
    assert "There is no GPU here." in done.stdout


def test_the_status_shows_leases_and_the_queue(gpu: Command, take: Callable[..., Lease]) -> None:
    assert "4 simulated GPUs; the default request is auto." in gpu("status").stdout
    assert "Nobody holds a lease." in gpu("status").stdout
    take("0:8GiB", "train.ipynb")
    take("0", "look.ipynb")
    take("cpu", "plain.ipynb")
    take("0:all", "waits.ipynb", wait=True)
    lines = gpu("status").stdout.splitlines()
    rows = [" ".join(line.split()) for line in lines[2:]]
    assert rows[0].endswith("train.ipynb 0:8GiB GPU 0 reserved up to 8 GiB")
    assert rows[1].endswith("look.ipynb 0 GPU 0 shared up to 32 GiB")
    assert rows[2].endswith("plain.ipynb cpu CPU")
    assert rows[3] == "1. waits.ipynb waits for GPU 0, held by train.ipynb, look.ipynb"


def test_the_status_as_json(gpu: Command, take: Callable[..., Lease], host: GPUHost) -> None:
    held = take("0:8GiB", "train.ipynb")
    waiting = take("0:all", "waits.ipynb", wait=True)
    model = gpu.json("status")
    assert (model["simulated"], model["device_count"], model["default_request"]) == (True, 4, "auto")
    assert model["ledger"] == str(host.ledger.store.path)
    (lease,) = model["leases"]
    assert (lease["lease_id"], lease["label"], lease["owner_kind"], lease["request"]) == (
        held.id, "train.ipynb", "kernel", "0:8GiB",
    )  # fmt: skip
    (device,) = lease["devices"]
    assert (device["index"], device["kind"], device["cap_bytes"]) == ("0", "reserved", 8 * GIB)
    (entry,) = model["queue"]
    assert (entry["id"], entry["position"], entry["label"]) == (waiting.id, 1, "waits.ipynb")


def test_names_cannot_write_to_the_terminal(gpu: Command, take: Callable[..., Lease]) -> None:
    evil = "\x1b[2J\x1b]0;gone\x07 a\nb\r\u202e.ipynb"
    take("0:all", evil)
    take("0", evil, wait=True)
    for arguments in (("list",), ("status",), ("run", "--gpu", "0", "--no-wait", "--", "true")):
        done = gpu(*arguments, status=None)
        written = done.stdout + done.stderr
        assert ".ipynb" in written
        for character in ("\x1b", "\x07", "\r", "\u202e", "a\nb"):
            assert character not in written
    # JSON has them escaped, for the program to deal with.
    assert gpu.json("status")["leases"][0]["label"] == evil


def test_an_unusable_ledger_is_one_sentence(gpu: Command, host: GPUHost) -> None:
    host.ledger.store.path.write_bytes(b"no database at all\n" * 100)
    for subcommand in ("list", "status"):
        done = gpu(subcommand, status=1)
        assert done.stderr.startswith(f"jupyter gpu {subcommand}: The ledger {host.ledger.store.path} cannot be used")
        assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_seen_enough_is_no_error(gpu: Command) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        ["jupyter", "gpu", "list"], env=gpu.environment, stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.stderr == ""
