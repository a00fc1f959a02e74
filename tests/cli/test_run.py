"""`jupyter gpu run`: a lease for the life of a command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_gpu.devices.simulation import parse_specification

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_gpu.host import GPUHost
    from jupyter_gpu.leases.lease import Lease
    from jupyter_gpu.leases.ledger import Ledger

    from .conftest import Command

GIB = 1 << 30
SHOW = "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:], os.getpid()]), flush=True)"


def uuids() -> list[str]:
    return [device.uuid for device in parse_specification("4xNVIDIA A100-SXM4-40GB:40GiB")]


def shown(gpu: Command, request: str, *arguments: str, **environment: str) -> Any:
    done = gpu("run", "--gpu", request, "--", sys.executable, "-c", SHOW, *arguments, **environment)
    return json.loads(done.stdout)


def test_the_command_sees_the_devices_of_its_lease_and_no_others(gpu: Command, host: GPUHost) -> None:
    environment, _, _ = shown(gpu, "2,0:4GiB")
    assert environment["CUDA_VISIBLE_DEVICES"] == f"{uuids()[2]},{uuids()[0]}"
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert environment["JUPYTER_GPU_ACCOUNT"] == str(host.accounts.path(environment["JUPYTER_GPU_LEASE"]))


def test_the_command_on_the_cpu_sees_no_device(gpu: Command) -> None:
    assert shown(gpu, "cpu")[0]["CUDA_VISIBLE_DEVICES"] == "-1"


def test_what_another_lease_left_in_the_environment_does_not_reach_the_command(gpu: Command) -> None:
    environment, _, _ = shown(gpu, "1", JUPYTER_GPU_LEASE="another", JUPYTER_GPU_SOCKET="/another")
    assert environment["JUPYTER_GPU_LEASE"] != "another"
    assert "JUPYTER_GPU_SOCKET" not in environment


def test_arguments_reach_the_command_as_they_are(gpu: Command) -> None:
    arguments = ["--gpu", "7", "--help", "-c", "a b", "", "--", "$HOME", "--no-wait"]
    assert shown(gpu, "cpu", *arguments)[1] == arguments


@pytest.mark.parametrize("status", [0, 1, 3, 255])
def test_the_exit_status_is_the_commands(gpu: Command, status: int) -> None:
    gpu("run", "--", "/bin/sh", "-c", f"exit {status}", status=status)


def test_input_output_and_errors_are_the_commands(gpu: Command) -> None:
    process = gpu.start("run", "--", "/bin/sh", "-c", "cat; echo problem >&2")
    assert process.communicate("through\n", timeout=30) == ("through\n", "problem\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_the_commands(gpu: Command, number: signal.Signals) -> None:
    program = (
        "import signal, sys\n"
        f"signal.signal({int(number)}, lambda *_: (print('caught', flush=True), sys.exit(42)))\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    process = gpu.start("run", "--", sys.executable, "-c", program)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(30) == 42
    assert process.stdout.readline() == "caught\n"


@pytest.mark.parametrize("name", ["PIPE", "XFSZ"])
def test_signals_that_python_ignores_are_not_ignored_by_the_command(gpu: Command, name: str) -> None:
    gpu("run", "--", "/bin/sh", "-c", f"kill -{name} $$; exit 3", status=-getattr(signal, f"SIG{name}"))


def test_the_lease_lives_with_the_command_and_names_it(gpu: Command, ledger: Ledger) -> None:
    process = gpu.start("run", "--gpu", "1:8GiB", "--", "/bin/sh", "-c", "echo $$; read line")
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    (lease,) = ledger.leases()
    assert pid == process.pid, "the command takes this process's place"
    assert lease.process is not None
    assert lease.process.pid == pid
    assert (lease.owner.kind, lease.owner.label) == ("command", "/bin/sh -c 'echo $$; read line'")
    assert [(hold.uuid, hold.bytes) for hold in lease.holds] == [(uuids()[1], 8 * GIB)]
    process.communicate("\n", timeout=30)
    assert ledger.leases() == []


def test_a_long_command_is_shortened_in_its_label(gpu: Command, ledger: Ledger) -> None:
    process = gpu.start("run", "--", "/bin/sh", "-c", "echo ready; read line; " + "x" * 200)
    assert process.stdout is not None
    process.stdout.readline()
    label = ledger.leases()[0].owner.label
    assert len(label) == 60
    assert label.endswith("…")
    process.kill()


def test_the_lease_is_gone_after_sigkill_and_its_memory_too(
    gpu: Command, ledger: Ledger, host: GPUHost, take: Callable[..., Lease]
) -> None:
    program = "import jupyter_gpu.simulated as g; a = g.allocate('30GiB'); print('ready', flush=True); input()"
    process = gpu.start("run", "--gpu", "1:all", "--", sys.executable, "-c", program)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert gpu.json("list")["devices"][1]["memory_used_bytes"] == 30 * GIB
    process.kill()
    process.wait()
    assert ledger.leases() == []
    assert take("1:40GiB").holds[0].bytes == 40 * GIB
    assert gpu.json("list")["devices"][1]["memory_used_bytes"] == 0


def test_a_child_that_outlives_the_command_is_not_given_its_memory_back_silently(gpu: Command, host: GPUHost) -> None:
    """The lease has ended, and what a worker still holds counts as taken."""
    worker = "import jupyter_gpu.simulated as g; a = g.allocate('30GiB'); print('ready', flush=True); input()"
    parent = (
        "import subprocess, sys, os\n"
        f"child = subprocess.Popen([sys.executable, '-c', {worker!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); input(); os._exit(0)\n"
    )
    process = gpu.start("run", "--gpu", "1:30GiB", "--", sys.executable, "-c", parent)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        device = gpu.json("list")["devices"][1]
        if device["memory_used_bytes"]:  # it ends too, once it reads that its input is closed
            assert device["foreign_bytes"] == 30 * GIB
            assert device["available_bytes"] == 10 * GIB
    finally:
        subprocess.run(["kill", "-9", str(child)], stderr=subprocess.DEVNULL, check=False)


def test_it_waits_for_a_device_that_is_held_and_gets_it(
    gpu: Command, take: Callable[..., Lease], host: GPUHost, until: Callable[..., None]
) -> None:
    held = take("1:all", "train.ipynb")
    process = gpu.start("run", "--gpu", "1:all", "--", "/bin/sh", "-c", "echo started")
    assert process.stderr is not None
    assert process.stderr.readline() == "jupyter gpu run: waits for GPU 1, held by train.ipynb\n"
    assert [entry["label"] for entry in gpu.json("status")["queue"]] == ["/bin/sh -c 'echo started'"]
    assert process.poll() is None
    host.ledger.release(held.id)
    assert process.communicate(timeout=30) == ("started\n", "")
    assert process.returncode == 0


def test_commands_are_served_in_order_of_arrival(gpu: Command, take: Callable[..., Lease], host: GPUHost) -> None:
    held = take("1:all", "train.ipynb")
    first = gpu.start("run", "--gpu", "1:all", "--", "/bin/sh", "-c", "echo first; read line")
    assert first.stderr is not None
    first.stderr.readline()
    second = gpu.start("run", "--gpu", "1:all", "--", "/bin/sh", "-c", "echo second")
    assert second.stderr is not None
    second.stderr.readline()
    host.ledger.release(held.id)
    assert first.stdout is not None
    assert first.stdout.readline() == "first\n"
    assert second.poll() is None
    first.communicate("\n", timeout=30)
    assert second.communicate(timeout=30)[0] == "second\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_whoever_stops_waiting_leaves_the_queue(
    gpu: Command, take: Callable[..., Lease], ledger: Ledger, number: signal.Signals, status: int
) -> None:
    take("1:all")
    process = gpu.start("run", "--gpu", "1", "--", "true")
    assert process.stderr is not None
    process.stderr.readline()
    assert len(ledger.leases()) == 2
    process.send_signal(number)
    assert process.wait(30) == status
    assert len(ledger.leases()) == 1
    assert "Traceback" not in process.stderr.read()


def test_a_wait_that_was_cancelled_ends_with_status_75(
    gpu: Command, take: Callable[..., Lease], ledger: Ledger
) -> None:
    take("1:all")
    process = gpu.start("run", "--gpu", "1", "--", "true")
    assert process.stderr is not None
    process.stderr.readline()
    ledger.cancel(ledger.leases()[1].id)
    assert process.wait(30) == 75
    assert process.stderr.read() == "jupyter gpu run: The request 1 for true was cancelled.\n"


def test_without_waiting_it_ends_with_status_75_and_says_who_holds_it(
    gpu: Command, take: Callable[..., Lease], ledger: Ledger
) -> None:
    take("1:all", "train.ipynb")
    done = gpu("run", "--gpu", "1", "--no-wait", "--", "true", status=75)
    assert done.stderr == "jupyter gpu run: true waits for GPU 1, held by train.ipynb.\n"
    assert len(ledger.leases()) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--gpu", "9", "--", "true"), 1, "There is no GPU 9; there is 0 (NVIDIA A100-SXM4-40GB), 1"),
        (("--gpu", "1:8", "--", "true"), 1, "'8' has no unit; write 8GiB or 8MiB"),
        (("--gpu", "auto:80GiB", "--", "true"), 1, "80GiB is more memory than there is: the largest GPU has 40 GiB"),
        (("--gpu", "", "--", "true"), 1, "The GPU request is empty"),
        (("--gpu", "1", "--"), 2, "There is no command; write jupyter gpu run --gpu REQUEST -- COMMAND"),
        (("1", "--", "true"), 2, "'1' stands before the --"),
        (("--", "no-such-program-anywhere"), 127, "There is no program 'no-such-program-anywhere' to run"),
    ],
)
def test_what_cannot_be_run_is_refused_with_one_sentence(
    gpu: Command, ledger: Ledger, arguments: tuple[str, ...], status: int, says: str
) -> None:
    done = gpu("run", *arguments, status=status)
    (line,) = done.stderr.splitlines()
    assert line.startswith("jupyter gpu run: ")
    assert says in line
    assert ledger.leases() == []


def test_a_program_that_cannot_be_executed_ends_its_lease(gpu: Command, ledger: Ledger, tmp_path: Any) -> None:
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o700)
    done = gpu("run", "--", str(program), status=126)
    assert "cannot be run: No such file or directory" in done.stderr
    assert ledger.leases() == []


def test_inside_a_lease_only_its_devices_are_to_be_had(gpu: Command) -> None:
    jupyter = "jupyter gpu run --gpu {} --no-wait -- sh -c 'echo $CUDA_VISIBLE_DEVICES'"
    done = gpu("run", "--gpu", "2:20GiB", "--", "/bin/sh", "-c", jupyter.format("auto:10GiB"))
    assert done.stdout.strip() == uuids()[2]
    refused = gpu("run", "--gpu", "2", "--", "/bin/sh", "-c", jupyter.format("1"), status=1)
    assert "There is no GPU 1" in refused.stderr


def test_two_commands_never_get_the_same_reservation(gpu: Command, ledger: Ledger) -> None:
    processes = [
        gpu.start("run", "--gpu", "auto:21GiB", "--no-wait", "--", "/bin/sh", "-c", "echo ready; read line")
        for _ in range(5)
    ]
    answers = [process.stdout.readline() for process in processes if process.stdout is not None]
    assert sorted(answers) == ["", *["ready\n"] * 4]
    held = [hold.uuid for lease in ledger.leases() for hold in lease.holds]
    assert sorted(held) == sorted(uuids())


def test_the_default_request_is_any_device(gpu: Command) -> None:
    done = gpu("run", "--", sys.executable, "-c", SHOW)
    assert json.loads(done.stdout)[0]["CUDA_VISIBLE_DEVICES"] in uuids()
