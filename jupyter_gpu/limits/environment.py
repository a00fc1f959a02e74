"""The environment that holds a process tree to its lease."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..leases.survey import LEASE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ..devices.device import Device
    from ..leases.lease import Lease

ACCOUNT_VARIABLE = "JUPYTER_GPU_ACCOUNT"
SOCKET_VARIABLE = "JUPYTER_GPU_SOCKET"
NO_DEVICES = "-1"
"""What hides every device from CUDA. An empty value would do for CUDA, but programs take it for an unset one."""
OWN_VARIABLES = (LEASE_VARIABLE, ACCOUNT_VARIABLE, SOCKET_VARIABLE)


@dataclass(frozen=True)
class KernelEnvironment:
    """The environment to start a kernel with, and what a person should know about it."""

    variables: dict[str, str]
    notices: tuple[str, ...] = ()


def lease_variables(
    lease: Lease | None,
    devices: Sequence[Device],
    *,
    account: Path | None = None,
    socket: Path | None = None,
    by_index: bool = False,
) -> dict[str, str]:
    """The variables that show a process tree the devices of its lease, and no others.

    Args:
        lease: `None` is a kernel that has no lease, and so no device.
        devices: the devices there are.
        account: the lease's account file.
        socket: where the kernel reaches the server.
        by_index: name devices by NVML's index rather than by full UUID, for programs that know no UUIDs. MIG
            instances have no index for CUDA and are always named by UUID.
    """
    known = {device.uuid: device for device in devices}
    names = []
    for hold in lease.holds if lease else ():
        device = known.get(hold.uuid)
        names.append(device.index if by_index and device is not None and not device.is_mig else hold.uuid)
    variables = {
        "CUDA_VISIBLE_DEVICES": ",".join(names) or NO_DEVICES,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    if lease is not None:
        variables[LEASE_VARIABLE] = lease.id
        if account is not None:
            variables[ACCOUNT_VARIABLE] = str(account)
    if socket is not None:
        variables[SOCKET_VARIABLE] = str(socket)
    return variables


def kernel_environment(
    inherited: Mapping[str, str], ours: Mapping[str, str], own: Mapping[str, str]
) -> KernelEnvironment:
    """The inherited environment with our variables, except those that the kernelspec sets itself (`own`): they win."""
    variables = {name: value for name, value in inherited.items() if name not in OWN_VARIABLES}
    kept = [name for name in ours if name in own and own[name] != ours[name]]
    variables.update({name: value for name, value in ours.items() if name not in kept})
    notices = tuple(
        f"The kernelspec sets {name}={own[name]} itself; that was kept, and the GPU that was asked for may not be the "
        "one that is used."
        if name.startswith("CUDA_")
        else f"The kernelspec sets {name} itself; that was kept."
        for name in kept
    )
    return KernelEnvironment(variables, notices)
