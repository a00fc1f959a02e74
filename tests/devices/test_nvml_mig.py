"""MIG instances are devices of their own; the GPU that is divided is only listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvml_stand_in import GIB, GPU_IS_LOST, NO_PERMISSION, UNKNOWN, NVMLStandIn

from jupyter_gpu.devices.device import DeviceProcess

if TYPE_CHECKING:
    from conftest import Clock

    from jupyter_gpu.devices.nvml import NVMLBackend


def indices(backend: NVMLBackend) -> list[str]:
    return [device.index for device in backend.inventory().devices]


def test_instances_follow_their_gpu_and_take_its_place_as_what_can_be_leased(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    first, second = stand_in.add_gpu(), stand_in.add_gpu()
    mig = stand_in.add_instance(first, "1g.5gb", 5 * GIB)
    stand_in.add_instance(first, "3g.20gb", 20 * GIB, slot=2)
    inventory = backend.inventory()
    assert [d.index for d in inventory.devices] == ["0", "0.0", "0.2", "1"]
    assert [d.index for d in inventory.leasable] == ["0.0", "0.2", "1"]
    gpu, instance = inventory.by_uuid()[first], inventory.by_uuid()[mig]
    assert gpu.mig_enabled
    assert (instance.parent_uuid, instance.is_mig, instance.memory_bytes) == (first, True, 5 * GIB)
    assert (instance.pci_address, instance.compute_capability) == (gpu.pci_address, gpu.compute_capability)
    assert not inventory.by_uuid()[second].mig_enabled


def test_an_instance_is_named_by_its_profile_even_where_the_driver_does_not(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    gpu = stand_in.add_gpu()
    stand_in.add_instance(gpu, "1g.5gb", 5 * GIB)
    stand_in.add_instance(gpu, "2g.10gb", 10 * GIB, named=False)
    stand_in.add_instance(gpu, "1c.3g.20gb", 20 * GIB, named=False)
    names = [device.name for device in backend.inventory().devices if device.is_mig]
    assert names == [f"NVIDIA A100-SXM4-40GB MIG {profile}" for profile in ("1g.5gb", "2g.10gb", "1c.3g.20gb")]


def test_an_instance_has_its_own_memory_and_processes(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    gpu = stand_in.add_gpu(reserved_bytes=GIB)
    one, two = stand_in.add_instance(gpu), stand_in.add_instance(gpu)
    stand_in.add_process(one, 11, 2 * GIB)
    stand_in.add_process(two, 12, GIB)
    usage = backend.usage()
    assert (usage[one].memory_used_bytes, usage[one].memory_free_bytes) == (2 * GIB, 3 * GIB)
    assert usage[one].processes == (DeviceProcess(11, 2 * GIB),)
    assert usage[two].processes == (DeviceProcess(12, GIB),)
    assert usage[gpu].memory_used_bytes == 3 * GIB


def test_a_divided_gpu_has_the_processes_of_all_its_instances_each_once(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    gpu = stand_in.add_gpu()
    one, two = stand_in.add_instance(gpu), stand_in.add_instance(gpu)
    stand_in.add_process(one, 11, 2 * GIB)
    stand_in.add_process(two, 11, GIB)
    stand_in.add_process(two, 12, None)
    stand_in.log_calls()
    expected = {11: 3 * GIB, 12: None}
    for asked in (None, [gpu]):
        processes = backend.usage(asked)[gpu].processes
        assert {p.pid: p.memory_bytes for p in processes or ()} == expected
    assert stand_in.calls()["nvmlDeviceGetComputeRunningProcesses_v3", gpu] == 0


def test_a_divided_gpu_does_not_claim_to_know_all_processes_when_an_instance_does_not_tell(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    gpu = stand_in.add_gpu()
    one, two = stand_in.add_instance(gpu), stand_in.add_instance(gpu)
    stand_in.add_process(one, 11)
    stand_in.fail("nvmlDeviceGetComputeRunningProcesses_v3", NO_PERMISSION, two)
    usage = backend.usage()[gpu]
    assert usage.processes is None
    assert "administrators only" in usage.reasons["processes"]


def test_figures_of_the_whole_gpu_are_not_asked_of_an_instance(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    gpu = stand_in.add_gpu(temperature=50)
    mig = stand_in.add_instance(gpu)
    backend.inventory()
    stand_in.log_calls()
    usage = backend.usage()
    assert usage[gpu].temperature_celsius == 50.0
    assert usage[mig].temperature_celsius is None
    assert "GPU as a whole" in usage[mig].reasons["temperature_celsius"]
    assert "divided into MIG instances" in usage[mig].reasons["utilization_percent"]
    assert "divided into MIG instances" in usage[gpu].reasons["utilization_percent"]
    asked = {function for (function, uuid) in stand_in.calls() if uuid == mig}
    assert not asked & {"nvmlDeviceGetTemperature", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetEnforcedPowerLimit"}


def test_dividing_a_gpu_anew_shows_at_the_next_look(stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock) -> None:
    gpu = stand_in.add_gpu(utilization=30, mig=False)
    assert backend.usage()[gpu].utilization_percent == 30.0
    one = stand_in.add_instance(gpu)
    two = stand_in.add_instance(gpu)
    clock.advance(backend.inventory_interval_s)
    assert indices(backend) == ["0", "0.0", "0.1"]
    assert backend.usage()[gpu].utilization_percent is None
    stand_in.remove(one)
    clock.advance(backend.inventory_interval_s)
    assert indices(backend) == ["0", "0.1"]
    assert list(backend.usage()) == [gpu, two]
    stand_in.remove(two)
    stand_in.set(gpu, mig=False)
    clock.advance(backend.inventory_interval_s)
    assert indices(backend) == ["0"]
    assert backend.usage()[gpu].utilization_percent == 30.0


def test_another_instance_in_the_same_place_is_not_taken_for_the_old_one(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    gpu = stand_in.add_gpu()
    mig = stand_in.add_instance(gpu, "1g.5gb", 5 * GIB, uuid="MIG-same")
    backend.inventory()
    stand_in.remove(mig)
    stand_in.add_instance(gpu, "2g.10gb", 10 * GIB, uuid="MIG-same")
    clock.advance(backend.inventory_interval_s)
    device = backend.inventory().by_uuid()["MIG-same"]
    assert (device.name, device.memory_bytes) == ("NVIDIA A100-SXM4-40GB MIG 2g.10gb", 10 * GIB)


def test_an_instance_that_vanished_is_left_out_of_usage_and_costs_the_others_nothing(
    stand_in: NVMLStandIn, backend: NVMLBackend
) -> None:
    gpu = stand_in.add_gpu()
    one, two = stand_in.add_instance(gpu), stand_in.add_instance(gpu)
    backend.usage()
    stand_in.remove(one)
    usage = backend.usage()
    assert list(usage) == [gpu, two]
    assert usage[two].memory_free_bytes == 5 * GIB
    assert indices(backend) == ["0", "0.1"]


def test_an_instance_created_since_is_found_when_asked_for(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    gpu = stand_in.add_gpu()
    stand_in.add_instance(gpu)
    backend.inventory()
    two = stand_in.add_instance(gpu)
    clock.advance(backend.inventory_interval_s)
    assert list(backend.usage([two])) == [two]


def test_an_instance_that_cannot_be_read_does_not_hide_the_others(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    gpu = stand_in.add_gpu()
    one = stand_in.add_instance(gpu)
    stand_in.add_instance(gpu)
    stand_in.fail("nvmlDeviceGetUUID", UNKNOWN, one)
    assert indices(backend) == ["0", "0.1"]


def test_the_instances_of_a_lost_gpu_are_lost_with_it(
    stand_in: NVMLStandIn, backend: NVMLBackend, clock: Clock
) -> None:
    gpu = stand_in.add_gpu()
    mig = stand_in.add_instance(gpu)
    backend.usage()
    stand_in.fail("*", GPU_IS_LOST, gpu)
    stand_in.fail("*", GPU_IS_LOST, mig)
    assert {uuid: usage.lost for uuid, usage in backend.usage().items()} == {gpu: True, mig: True}
    assert indices(backend) == ["0", "0.0"]
    stand_in.succeed("*", gpu)
    stand_in.succeed("*", mig)
    clock.advance(backend.retry_interval_s)
    assert {uuid: usage.lost for uuid, usage in backend.usage().items()} == {gpu: False, mig: False}
