"""Moving a running kernel to other devices, which works as long as CUDA is not up in it.

Only the kernel knows whether that is so: it asks for this, and takes on the environment that it gets as the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..background import in_thread
from ..devices.processes import process_key
from ..host import DriverSilent
from ..leases.lease import Origin
from ..leases.ledger import LeaseGone, LedgerError
from ..leases.request import GPURequest, RequestError
from ..provisioner import GPUProvisioner
from ..waiting import NotGranted
from .manager import BadRequest, Conflict, Unavailable

if TYPE_CHECKING:
    from jupyter_server.services.kernels.kernelmanager import MappingKernelManager

    from ..kernels import KernelRecord
    from ..leases.lease import Lease
    from .manager import GPUManager
    from .models import JSON


async def change_in_place(manager: GPUManager, kernel_manager: MappingKernelManager, kernel_id: str, text: str) -> JSON:
    """Give a running kernel the lease that the request asks for, and the environment that goes with it.

    Nothing waits: what cannot be had now is refused, and the kernel keeps what it has.

    Returns:
        The kernel's model, with `applied`, `message`, and, where its devices changed, `environment`: the variables
        for the kernel to set.

    Raises:
        BadRequest: the request is none, or can never be granted here.
        Conflict: it cannot be had now, or the kernel is not one that we started.
        Unavailable: the ledger or the driver cannot be asked.
    """
    host = manager.host
    record = host.kernels.get(kernel_id)
    if record is None:
        raise Conflict("this kernel was not started by the GPU provisioner, so its GPU cannot be changed")
    try:
        request = GPURequest.parse(text)
        held = await host.lease(record.lease_id)
        if held is not None and await host.stays_on_devices(held, request):
            return await manager.change_kernel(kernel_id, text, restart=False)
        await in_thread(host.check_now, request)
        provisioner = _provisioner(kernel_manager, kernel_id)
        lease = await _moved(manager, provisioner, record, request, held)
    except RequestError as error:
        raise BadRequest(str(error)) from None
    except (NotGranted, LeaseGone) as error:
        raise Conflict(str(error)) from None
    except (LedgerError, DriverSilent) as error:
        raise Unavailable(str(error)) from error
    message = f"{record.label} has {request.in_words} now."
    environment = host.variables_for(lease)
    return {**await manager.kernel(kernel_id), "applied": "now", "message": message, "environment": environment}


def _provisioner(kernel_manager: MappingKernelManager, kernel_id: str) -> GPUProvisioner:
    manager = kernel_manager.get_kernel(kernel_id) if kernel_id in kernel_manager else None
    provisioner = getattr(manager, "provisioner", None)
    if not isinstance(provisioner, GPUProvisioner):
        raise Conflict("this kernel was not started by the GPU provisioner, so its GPU cannot be changed")
    return provisioner


async def _moved(
    manager: GPUManager, provisioner: GPUProvisioner, record: KernelRecord, request: GPURequest, held: Lease | None
) -> Lease:
    host = manager.host
    process = process_key(record.pid) if record.pid else None
    if process is None:
        raise Conflict("the kernel has no process that its lease could live with")
    lease = await host.acquire(host.ask_for(record, request, Origin.API, before=held, wait=False))
    try:
        await host.started(lease.id, process)
    except BaseException:
        await host.release(lease.id)
        raise
    provisioner.moved_to(lease.id)
    record.lease_id, record.request, record.wanted = lease.id, str(request), str(request)
    record.origin, record.state = Origin.API, "running"
    host.kernels.tell(record, "changed")
    if held is not None:
        await host.release(held.id)
    return lease
