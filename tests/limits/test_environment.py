"""The environment that holds a process tree to its lease."""

from __future__ import annotations

from pathlib import Path

from jupyter_gpu.devices.device import Device
from jupyter_gpu.devices.processes import ProcessKey
from jupyter_gpu.leases.lease import Lease, LeaseState, Origin, Owner
from jupyter_gpu.leases.placement import LeaseHold
from jupyter_gpu.leases.request import Hold
from jupyter_gpu.limits.environment import kernel_environment, lease_variables

GPU, OTHER = "GPU-5ab3c7f1-12ab-4c3d-8e9f-00112233aabb", "GPU-77777777-12ab-4c3d-8e9f-00112233aabb"
INSTANCE = "MIG-5ab3c7f1-12ab-4c3d-8e9f-00112233aabb"
DEVICES = (
    Device(GPU, "3", "NVIDIA A100", None),
    Device(OTHER, "1", "NVIDIA A100", None),
    Device(INSTANCE, "1.0", "NVIDIA A100 MIG 3g.20gb", None, parent_uuid=OTHER),
)


def lease(*uuids: str) -> Lease:
    holds = tuple(LeaseHold(uuid, Hold.SHARED) for uuid in uuids)
    me = ProcessKey(1, 2)
    return Lease("the-id", 1, LeaseState.HELD, "auto", Origin.API, Owner("kernel", "A"), me, None, holds, 0.0, 0.0)


def test_devices_are_named_by_full_uuid_in_the_order_of_the_lease() -> None:
    variables = lease_variables(lease(OTHER, GPU), DEVICES, account=Path("/run/a"), socket=Path("/run/s"))
    assert variables == {
        "CUDA_VISIBLE_DEVICES": f"{OTHER},{GPU}",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "JUPYTER_GPU_LEASE": "the-id",
        "JUPYTER_GPU_ACCOUNT": "/run/a",
        "JUPYTER_GPU_SOCKET": "/run/s",
    }


def test_devices_can_be_named_by_index_but_mig_instances_have_none() -> None:
    assert lease_variables(lease(GPU, OTHER), DEVICES, by_index=True)["CUDA_VISIBLE_DEVICES"] == "3,1"
    assert lease_variables(lease(INSTANCE), DEVICES, by_index=True)["CUDA_VISIBLE_DEVICES"] == INSTANCE


def test_a_device_that_is_not_seen_any_more_is_still_named() -> None:
    assert lease_variables(lease("GPU-gone"), DEVICES, by_index=True)["CUDA_VISIBLE_DEVICES"] == "GPU-gone"


def test_without_devices_every_device_is_hidden() -> None:
    assert lease_variables(lease(), DEVICES)["CUDA_VISIBLE_DEVICES"] == "-1"
    assert lease_variables(None, DEVICES) == {"CUDA_VISIBLE_DEVICES": "-1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_our_variables_replace_those_that_were_inherited() -> None:
    environment = kernel_environment(
        {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0", "JUPYTER_GPU_LEASE": "of the server itself"},
        {"CUDA_VISIBLE_DEVICES": GPU, "JUPYTER_GPU_LEASE": "the-id"},
        own={},
    )
    assert environment.variables == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": GPU, "JUPYTER_GPU_LEASE": "the-id"}
    assert environment.notices == ()


def test_what_is_inherited_of_another_lease_does_not_reach_a_kernel_without_one() -> None:
    inherited = {"JUPYTER_GPU_LEASE": "x", "JUPYTER_GPU_ACCOUNT": "x", "JUPYTER_GPU_SOCKET": "x"}
    environment = kernel_environment(inherited, {"CUDA_VISIBLE_DEVICES": "-1"}, own={})
    assert environment.variables == {"CUDA_VISIBLE_DEVICES": "-1"}


def test_what_the_kernelspec_sets_itself_wins_and_is_noted() -> None:
    environment = kernel_environment(
        {"CUDA_VISIBLE_DEVICES": "2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        {"CUDA_VISIBLE_DEVICES": GPU, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        own={"CUDA_VISIBLE_DEVICES": "2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "MINE": "1"},
    )
    assert environment.variables["CUDA_VISIBLE_DEVICES"] == "2"
    (notice,) = environment.notices
    assert "The kernelspec sets CUDA_VISIBLE_DEVICES=2 itself; that was kept" in notice
    assert "may not be the one that is used" in notice
