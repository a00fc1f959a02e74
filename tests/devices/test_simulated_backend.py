"""Simulated GPUs as a source of devices: what accounts say, and nothing else."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from traitlets.config import Config

from jupyter_gpu.devices.processes import process_key
from jupyter_gpu.devices.simulated import SimulatedBackend
from jupyter_gpu.limits.account import Account

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GIB = 1 << 30
MIG = "2xNVIDIA T4:16GiB,NVIDIA A100-SXM4-40GB:40GiB/2x3g.20gb:20GiB"


@pytest.fixture
def backend(simulated_gpus: str) -> SimulatedBackend:
    return SimulatedBackend()


@pytest.fixture
def account(backend: SimulatedBackend, runtime_directory: Path) -> Iterator[Account]:
    """The account of a lease of GPU 0 and GPU 2, with this process as the one that uses it."""
    (runtime_directory / "accounts").mkdir(mode=0o700)
    first, _, third, _ = backend.inventory().devices
    devices = [(first.uuid, 4 * GIB, first.memory_bytes), (third.uuid, None, third.memory_bytes)]
    with Account.create(runtime_directory / "accounts" / "lease", "lease", devices) as account:
        yield account


def test_the_devices_are_those_of_the_environment_and_say_that_they_are_simulated(backend: SimulatedBackend) -> None:
    inventory = backend.inventory()
    assert backend.simulated
    assert [device.index for device in inventory.devices] == ["0", "1", "2", "3"]
    assert all(device.simulated and device.leasable and device.memory_bytes == 40 * GIB for device in inventory.devices)
    assert len({device.pci_address for device in inventory.devices}) == 4
    assert inventory.problems == ()


def test_the_specification_can_be_configured(backend: SimulatedBackend) -> None:
    config = Config(SimulatedBackend={"specification": "NVIDIA T4:16GiB"})
    assert [device.name for device in SimulatedBackend(config=config).inventory().devices] == ["NVIDIA T4"]


def test_a_divided_gpu_is_listed_with_its_instances_which_alone_can_be_leased() -> None:
    backend = SimulatedBackend(specification=MIG)
    inventory = backend.inventory()
    assert [device.index for device in inventory.devices] == ["0", "1", "2", "2.0", "2.1"]
    assert [device.index for device in inventory.leasable] == ["0", "1", "2.0", "2.1"]
    gpu, instance = inventory.devices[2], inventory.devices[3]
    assert gpu.mig_enabled
    assert instance.is_mig
    assert instance.parent_uuid == gpu.uuid


@pytest.mark.parametrize("specification", ["", "nonsense", "A100:40"])
def test_a_wrong_specification_is_a_problem_with_advice_and_no_devices(specification: str) -> None:
    backend = SimulatedBackend(specification=specification)
    (problem,) = backend.inventory().problems
    assert problem.code == "simulation-invalid"
    assert "JUPYTER_GPU_SIMULATE" in problem.advice
    assert backend.inventory().devices == ()
    assert backend.usage() == {}


def test_nothing_is_used_where_there_are_no_accounts(backend: SimulatedBackend) -> None:
    for usage in backend.usage().values():
        assert usage.memory_used_bytes == 0
        assert usage.memory_free_bytes == 40 * GIB
        assert usage.utilization_percent == 0
        assert usage.processes == ()
        assert not usage.lost


def test_memory_and_processes_are_what_the_accounts_say(backend: SimulatedBackend, account: Account) -> None:
    first, second = account.uuids
    account.allocate(first, 3 * GIB)
    account.allocate(second, GIB)
    usage = backend.usage()
    me = process_key()
    assert me is not None
    assert usage[first].memory_used_bytes == 3 * GIB
    assert usage[first].memory_free_bytes == 37 * GIB
    assert usage[second].memory_used_bytes == GIB
    assert [(p.pid, p.memory_bytes, p.lease_id) for p in usage[first].processes or ()] == [(me.pid, 3 * GIB, "lease")]
    assert sum(each.memory_used_bytes or 0 for each in usage.values()) == 4 * GIB


def test_only_the_devices_asked_for_are_told(backend: SimulatedBackend) -> None:
    uuid = backend.inventory().devices[1].uuid
    assert list(backend.usage([uuid, "GPU-not-there"])) == [uuid]


def test_a_divided_gpu_uses_what_its_instances_use(runtime_directory: Path) -> None:
    backend = SimulatedBackend(specification=MIG)
    gpu, instance = backend.inventory().devices[2:4]
    (runtime_directory / "accounts").mkdir(mode=0o700)
    with Account.create(runtime_directory / "accounts" / "x", "x", [(instance.uuid, None, 20 * GIB)]) as account:
        account.allocate(instance.uuid, GIB)
        usage = backend.usage()
    assert usage[instance.uuid].memory_used_bytes == usage[gpu.uuid].memory_used_bytes == GIB


def test_utilisation_is_the_share_of_the_time_since_the_look_before(
    backend: SimulatedBackend, account: Account
) -> None:
    first, second = account.uuids
    account.allocate(first, 1)
    account.begin_busy(1)
    assert backend.usage()[first].utilization_percent == 0, "nothing is known before the second look"
    usage = backend.usage()
    assert usage[first].utilization_percent == 100
    assert usage[second].utilization_percent == 0, "no process has memory there"
    assert [process.utilization_percent for process in usage[first].processes or ()] == [100.0]
    assert (usage[first].temperature_celsius or 0) > (usage[second].temperature_celsius or 0)
    assert (usage[first].power_watts or 0) == usage[first].power_limit_watts


def test_damaged_accounts_and_other_files_hide_no_others(
    backend: SimulatedBackend, account: Account, runtime_directory: Path
) -> None:
    account.allocate(account.uuids[0], GIB)
    (runtime_directory / "accounts" / "damaged").write_bytes(b"JGPUACCT" + b"\xff" * 500)
    (runtime_directory / "accounts" / "folder").mkdir()
    assert backend.usage()[account.uuids[0]].memory_used_bytes == GIB


def test_accounts_of_ended_processes_without_a_lease_are_cleared_away(
    backend: SimulatedBackend, runtime_directory: Path
) -> None:
    process = subprocess.Popen(["/bin/sh", "-c", "read line"], stdin=subprocess.PIPE)
    key = process_key(process.pid)
    assert key is not None
    directory = runtime_directory / "simulated"
    directory.mkdir(mode=0o700)
    Account.create(directory / f"{key.pid}-{key.start_time}", "", [("GPU-x", None, None)]).close()
    backend.usage()
    assert len(list(directory.iterdir())) == 1
    process.communicate(b"\n")
    backend.usage()
    assert list(directory.iterdir()) == []
