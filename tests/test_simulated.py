"""Memory and computing on simulated GPUs, from processes of their own as kernels are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from jupyter_gpu.devices.simulated import SimulatedBackend
from jupyter_gpu.devices.simulation import parse_specification
from jupyter_gpu.limits.account import Account
from jupyter_gpu.limits.account_file import read_account

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
FOUR_GPUS = "4xNVIDIA A100-SXM4-40GB:40GiB"
UUIDS = [device.uuid for device in parse_specification(FOUR_GPUS)]


class Kernel:
    """A Python process that does what it is told, line by line, and answers with what the line comes to."""

    LOOP = """
    import json, sys
    import jupyter_gpu.simulated as gpu
    names = {"gpu": gpu}
    for line in sys.stdin:
        try:
            answer = None
            try:
                code = compile(line, "line", "eval")
            except SyntaxError:
                exec(line, names)
            else:
                answer = eval(code, names)
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer, default=repr), flush=True)
    """

    def __init__(self, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(self.LOOP)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.pid = self._process.pid

    def __call__(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def kernels() -> Any:
    """Makes kernels; they end with the test."""
    made: list[Kernel] = []

    def make(**environment: str) -> Kernel:
        made.append(Kernel(**environment))
        return made[-1]

    yield make
    for kernel in made:
        kernel.kill()


@pytest.fixture
def account(runtime_directory: Path, simulated_gpus: str) -> Path:
    """The account of a lease of GPU 1, capped at 4 GiB."""
    directory = runtime_directory / "accounts"
    directory.mkdir(mode=0o700)
    Account.create(directory / "lease", "lease", [(UUIDS[1], 4 * GIB, 40 * GIB)]).close()
    return directory / "lease"


def used(path: Path) -> int:
    return read_account(path).devices[0].used


def test_memory_counts_against_the_lease_until_it_is_freed(kernels: Any, account: Path) -> None:
    kernel = kernels(JUPYTER_GPU_ACCOUNT=str(account))
    assert UUIDS[1] in kernel("(a := gpu.allocate('3GiB'))")
    assert used(account) == 3 * GIB
    kernel("a.free()")
    assert used(account) == 0
    kernel("a.free()")
    assert used(account) == 0


def test_an_allocation_beyond_the_cap_is_refused_with_a_sentence_that_names_the_cap(
    kernels: Any, account: Path
) -> None:
    kernel = kernels(JUPYTER_GPU_ACCOUNT=str(account))
    kernel("a = gpu.allocate('3GiB')")
    answer = kernel("gpu.allocate('1.5GiB')")
    assert answer.startswith("OutOfDeviceMemory: out of memory on GPU-")
    assert "1.5 GiB asked for, 3 GiB held" in answer
    assert "the cap of this kernel is 4 GiB" in answer
    assert used(account) == 3 * GIB


def test_memory_that_nothing_refers_to_comes_back(kernels: Any, account: Path) -> None:
    kernel = kernels(JUPYTER_GPU_ACCOUNT=str(account))
    kernel("[gpu.allocate('1GiB') for _ in range(3)] and None")
    assert used(account) == 0


def test_memory_is_freed_at_the_end_of_a_with(kernels: Any, account: Path) -> None:
    kernel = kernels(JUPYTER_GPU_ACCOUNT=str(account))
    kernel("a = gpu.allocate(GIB := 1 << 30)")
    kernel("a.__enter__() is a")
    assert used(account) == GIB
    kernel("a.__exit__(None, None, None)")
    assert used(account) == 0
    assert "freed" in kernel("a")


def test_what_a_killed_process_held_comes_back(kernels: Any, account: Path) -> None:
    first, second = kernels(JUPYTER_GPU_ACCOUNT=str(account)), kernels(JUPYTER_GPU_ACCOUNT=str(account))
    first("a = gpu.allocate('3GiB')")
    assert "OutOfDeviceMemory" in second("gpu.allocate('2GiB')")
    first.kill()
    assert used(account) == 0
    assert "held" in second("(a := gpu.allocate('4GiB'))")


def test_the_device_itself_is_a_limit_for_all_processes_together(kernels: Any, simulated_gpus: str) -> None:
    first, second = kernels(), kernels()
    first("a = gpu.allocate('30GiB')")
    answer = second("gpu.allocate('11GiB')")
    assert answer.startswith("OutOfDeviceMemory: out of memory on GPU-")
    assert "10 GiB of the device's 40 GiB is free; other processes hold the rest" in answer
    assert "held" in second("(a := gpu.allocate('10GiB'))")
    assert "held" in second("(b := gpu.allocate('11GiB', device=1))")


def test_leased_and_unleased_processes_share_the_device(kernels: Any, account: Path) -> None:
    without = kernels()
    without("a = gpu.allocate('38GiB', device=1)")
    leased = kernels(JUPYTER_GPU_ACCOUNT=str(account))
    answer = leased("gpu.allocate('3GiB')")
    assert "2 GiB of the device's 40 GiB is free" in answer


def test_an_account_that_lies_elsewhere_shuts_nobody_out_of_where_it_lies(
    kernels: Any, simulated_gpus: str, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "somewhere").mkdir()
    Account.create(tmp_path / "somewhere" / "lease", "lease", [(UUIDS[1], None, 40 * GIB)]).close()
    assert "freed" not in kernels(JUPYTER_GPU_ACCOUNT=str(tmp_path / "somewhere" / "lease"))("gpu.allocate('1GiB')")
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["somewhere"]


def test_what_a_process_without_a_lease_holds_is_seen_and_goes_with_it(
    kernels: Any, simulated_gpus: str, runtime_directory: Path
) -> None:
    kernel = kernels()
    kernel("a = gpu.allocate('5GiB', device=2)")
    backend = SimulatedBackend()
    usage = backend.usage()[UUIDS[2]]
    assert usage.memory_used_bytes == 5 * GIB
    assert [(process.pid, process.memory_bytes, process.lease_id) for process in usage.processes or ()] == [
        (kernel.pid, 5 * GIB, None)
    ]
    kernel.kill()
    assert backend.usage()[UUIDS[2]].memory_used_bytes == 0
    assert list((runtime_directory / "simulated").iterdir()) == []


def test_an_account_without_memory_in_it_yet_is_left_to_its_process(
    kernels: Any, simulated_gpus: str, runtime_directory: Path
) -> None:
    kernel = kernels()
    kernel("gpu._account().uuids")
    SimulatedBackend().usage()
    kernel("a = gpu.allocate('5GiB')")
    assert SimulatedBackend().usage()[UUIDS[0]].memory_used_bytes == 5 * GIB


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, [0, 1, 2, 3]),
        ("2", [2]),
        ("3,1", [3, 1]),
        (UUIDS[2], [2]),
        (UUIDS[2][:12], [2]),
        ("1,7,2", [1]),
        ("1,1", [1]),
    ],
)
def test_a_process_without_a_lease_sees_what_cuda_would_show_it(
    kernels: Any, simulated_gpus: str, visible: str | None, seen: list[int]
) -> None:
    kernel = kernels(**({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}))
    assert kernel("gpu._account().uuids") == [UUIDS[number] for number in seen]


@pytest.mark.parametrize("visible", ["", "-1"])
def test_a_process_on_the_cpu_is_told_so(kernels: Any, simulated_gpus: str, visible: str) -> None:
    kernel = kernels(CUDA_VISIBLE_DEVICES=visible)
    assert kernel("gpu.allocate('1GiB')").startswith("RuntimeError: this process runs on the CPU")


def test_without_simulated_gpus_the_error_says_how_to_have_some(kernels: Any) -> None:
    assert "JUPYTER_GPU_SIMULATE is not set" in kernels()("gpu.allocate('1GiB')")


def test_a_worker_that_was_left_one_of_the_devices_counts_from_that(kernels: Any, tmp_path: Path) -> None:
    path = tmp_path / "two"
    Account.create(path, "lease-2", [(uuid, None, 40 * GIB) for uuid in UUIDS[:2]]).close()
    worker = kernels(JUPYTER_GPU_ACCOUNT=str(path), CUDA_VISIBLE_DEVICES=UUIDS[1])
    assert worker("gpu.allocate('1GiB').uuid") == UUIDS[1]
    assert "it has devices 0 to 0" in worker("gpu.allocate('1GiB', device=1)")


def test_a_device_that_the_process_does_not_have_is_refused(kernels: Any, account: Path) -> None:
    kernel = kernels(JUPYTER_GPU_ACCOUNT=str(account))
    assert "no simulated device 1 in this process; it has devices 0 to 0" in kernel("gpu.allocate('1GiB', device=1)")
    assert "no simulated device -1" in kernel("gpu.allocate('1GiB', device=-1)")


@pytest.mark.parametrize("amount", ["'0GiB'", "0", "-5", "'much'", "'8'"])
def test_what_is_no_amount_is_refused(kernels: Any, account: Path, amount: str) -> None:
    assert kernels(JUPYTER_GPU_ACCOUNT=str(account))(f"gpu.allocate({amount})").startswith("ValueError")


def test_a_forked_child_does_not_free_what_its_parent_holds(kernels: Any, account: Path) -> None:
    kernel = kernels(JUPYTER_GPU_ACCOUNT=str(account))
    kernel("import os; a = gpu.allocate('1GiB')")
    assert kernel("os.waitpid(os.fork() or [a.free(), os._exit(7)], 0)[1]") == 7 << 8
    assert used(account) == GIB


def test_computing_counts_as_utilisation_of_the_devices_that_are_held(kernels: Any, simulated_gpus: str) -> None:
    kernel = kernels()
    kernel("a = gpu.allocate('1GiB', device=3)")
    kernel("c = gpu.computing(); c.__enter__()")
    kernel("d = gpu.computing(); d.__enter__()")
    kernel("d.__exit__(None, None, None)")  # the other still computes
    backend = SimulatedBackend()
    backend.usage()
    busy = backend.usage()[UUIDS[3]]
    assert busy.utilization_percent is not None
    assert busy.utilization_percent > 90
    assert busy.power_watts is not None
    assert busy.power_watts > 300
    kernel("c.__exit__(None, None, None)")
    backend.usage()
    idle = backend.usage()[UUIDS[3]]
    assert idle.utilization_percent == 0
    assert idle.temperature_celsius == 32
