"""What clients can see and do: all the logic behind the REST API, without HTTP."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jupyter_server.utils import ensure_async
from traitlets import Instance
from traitlets.config import LoggingConfigurable

from .. import __version__
from ..host import DriverSilent, GPUHost, NotGranted, in_thread
from ..leases.lease import Ask, Lease, Origin, Owner, Refusal
from ..leases.ledger import LeaseGone, LedgerError
from ..leases.request import GPURequest, RequestError
from .models import (
    JSON,
    Snapshot,
    devices_model,
    kernel_devices_model,
    kernel_state,
    problems_model,
    queue_model,
    take_snapshot,
)

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

    from ..kernels import KernelRecord

_FRESH_S = 0.5
"""A survey that is younger than this serves another client as well."""


class BadRequest(Exception):  # noqa: N818 - HTTP's name
    """What the client sent cannot be done, by its own fault. The message says what was expected."""


class NotFound(Exception):  # noqa: N818 - HTTP's name
    """There is no such thing."""


class Conflict(Exception):  # noqa: N818 - HTTP's name
    """What the client wants cannot be had now."""


class Unavailable(Exception):  # noqa: N818 - HTTP's name
    """The devices or the ledger cannot be asked."""


class GPUManager(LoggingConfigurable):
    """Devices, kernels and queue of one server as JSON-safe models.

    Every method may raise `Unavailable`; each message is a sentence for people.
    """

    host = Instance(GPUHost)

    def __init__(self, serverapp: ServerApp, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._serverapp = serverapp
        self.provisioner_reason: str | None = None
        """Why kernels are not started by our provisioner; `None` if they are."""

    async def status(self) -> JSON:
        """Whether everything is in place, and what is not."""
        inventory = self.host.inventory
        if inventory is None:
            inventory = (await self._survey()).inventory
        problem = await self._ledger_problem()
        return {
            "version": __version__,
            "simulated": self.host.simulated,
            "backend": {
                "name": type(self.host.backend).__name__,
                "driver_version": inventory.driver_version,
                "cuda_version": inventory.cuda_version,
            },
            "problems": problems_model(inventory),
            "device_count": len(inventory.leasable),
            "default_request": self.host.default_request,
            "ledger": {"path": str(self.host.ledger.store.path), "ok": problem is None, "problem": problem},
            "limits": {"layers": self._layers()},
            "provisioner": {"active": self.provisioner_reason is None, "reason": self.provisioner_reason},
        }

    async def devices(self) -> JSON:
        """All devices, what they do, who holds them and who else is on them."""
        return devices_model(await self._snapshot(), simulated=self.host.simulated)

    async def queue(self) -> JSON:
        """The requests that wait, in order of arrival."""
        return queue_model(await self._snapshot())

    async def kernels(self) -> JSON:
        """All kernels of this server, with what each holds and uses."""
        snapshot = await self._snapshot()
        sessions = await self._sessions()
        ids = list(self._serverapp.kernel_manager.list_kernel_ids())
        ids += [record.kernel_id for record in self.host.kernels if record.kernel_id not in ids]
        models = [self._kernel_model(kernel_id, snapshot, sessions.get(kernel_id)) for kernel_id in ids]
        return {"time": snapshot.time, "kernels": models}

    async def kernel(self, kernel_id: str) -> JSON:
        """One kernel of this server.

        Raises:
            NotFound: there is none with this id.
        """
        self._require_kernel(kernel_id)
        return self._kernel_model(kernel_id, await self._snapshot(), (await self._sessions()).get(kernel_id))

    async def change_kernel(self, kernel_id: str, text: str, *, restart: bool) -> JSON:
        """Set another request for a kernel, and the kernel's model with what became of it.

        Only memory on the same devices changes at once. All else takes a restart, which is done here if `restart` is
        true: the new devices are taken first, so the kernel runs on until they are there.

        Raises:
            NotFound: there is no kernel with this id.
            BadRequest: the request is none, or can never be granted here.
            Conflict: it was cancelled, refused, or the kernel is not one that we started.
        """
        self._require_kernel(kernel_id)
        record = self.host.kernels.get(kernel_id)
        if record is None:
            raise Conflict("this kernel was not started by the GPU provisioner, so its GPU cannot be changed")
        if record.waiting_id is not None:
            raise Conflict(f"{record.label} waits for a GPU already; cancel that request first")
        try:
            request = GPURequest.parse(text)
            applied, message = await self._change(record, request, restart=restart)
        except RequestError as error:
            raise BadRequest(str(error)) from None
        except (NotGranted, LeaseGone) as error:
            raise Conflict(str(error)) from None
        except (LedgerError, DriverSilent) as error:
            raise Unavailable(str(error)) from error
        return {**await self.kernel(kernel_id), "applied": applied, "message": message}

    async def cancel(self, entry_id: str) -> None:
        """Take a request out of the queue.

        Raises:
            NotFound: none of that id waits.
        """
        try:
            cancelled = await in_thread(self.host.ledger.cancel, entry_id)
        except LedgerError as error:
            raise Unavailable(str(error)) from error
        if not cancelled:
            raise NotFound("no request with this id waits; it was granted or cancelled before")

    async def _change(self, record: KernelRecord, request: GPURequest, *, restart: bool) -> tuple[str, str]:
        held = await self._lease_of(record)
        if held is not None and await self.host.stays_on_devices(held, request):
            changed = await self.host.change(held.id, request)
            if isinstance(changed, Refusal):
                raise NotGranted(
                    f"{record.label} keeps {held.request}, because {request} cannot be had now: it {changed.message}."
                )
            record.request = record.wanted = str(request)
            return "now", f"{record.label} has {request} now."
        await in_thread(self.host.check_now, request)
        if not restart:
            record.wanted = str(request)
            return "on-restart", f"{record.label} gets {request} when its kernel is restarted."
        await self._prepare(record, request, held)
        await ensure_async(self._serverapp.kernel_manager.restart_kernel(record.kernel_id))
        return "restarted", f"{record.label} was restarted with {request}."

    async def _prepare(self, record: KernelRecord, request: GPURequest, held: Lease | None) -> None:
        """Take the lease of a kernel's next start while it still runs on the old one."""
        ask = Ask(
            id=str(uuid.uuid4()),
            request=str(request),
            origin=Origin.API,
            owner=Owner("kernel", record.label, record.kernel_id, record.path),
            asker=self.host.process,
            succeeds=held.id if held else None,
            wait=self.host.policy_for(Origin.API) == "wait",
        )

        def on_waiting(waiting: Lease) -> None:
            record.waiting_id = waiting.id
            self.host.kernels.tell(record, "waiting")

        try:
            lease = await self.host.acquire(ask, on_waiting)
        finally:
            record.waiting_id = None
        record.prepared, record.wanted = lease.id, str(request)

    async def _lease_of(self, record: KernelRecord) -> Lease | None:
        leases = await in_thread(self.host.leases_now)
        return next((lease for lease in leases if lease.id == record.lease_id), None)

    def _kernel_model(self, kernel_id: str, snapshot: Snapshot, session: JSON | None) -> JSON:
        record = self.host.kernels.get(kernel_id)
        lease = next((lease for lease in snapshot.leases if record and lease.id == record.lease_id), None)
        devices = kernel_devices_model(lease, snapshot)
        kernel_manager = self._serverapp.kernel_manager
        manager = kernel_manager.get_kernel(kernel_id) if kernel_id in kernel_manager else None
        path = session["path"] if session else (record.path if record else None)
        name = (record.kernel_name if record else None) or getattr(manager, "kernel_name", "")
        return {
            "kernel_id": kernel_id,
            "name": name,
            "label": (session and session["name"]) or (record.label if record else name),
            "path": path,
            "type": session["type"] if session else None,
            "execution_state": getattr(manager, "execution_state", None),
            "state": kernel_state(record, lease, devices),
            "lease_id": lease.id if lease else None,
            "request": record.request if record else None,
            "origin": record.origin.value if record and record.origin else None,
            "pending_request": record.wanted if record and record.wanted != record.request else None,
            "notices": list(record.notices) if record else ["This kernel was not started by the GPU provisioner."],
            "pid": record.pid if record else None,
            "idle_since": None,
            "layers": list(record.layers) if record else [],
            "devices": devices,
        }

    def _require_kernel(self, kernel_id: str) -> None:
        if kernel_id not in self._serverapp.kernel_manager and self.host.kernels.get(kernel_id) is None:
            raise NotFound(f"there is no kernel {kernel_id} on this server")

    async def _sessions(self) -> dict[str, JSON]:
        """The session of each kernel, by kernel id."""
        sessions = await ensure_async(self._serverapp.session_manager.list_sessions())
        return {session["kernel"]["id"]: session for session in sessions if session.get("kernel")}

    async def _survey(self) -> Any:
        try:
            return await self.host.survey(younger_than_s=_FRESH_S)
        except DriverSilent as error:
            raise Unavailable(str(error)) from error

    async def _snapshot(self) -> Snapshot:
        survey = await self._survey()
        try:
            return await in_thread(take_snapshot, self.host, survey)
        except LedgerError as error:
            raise Unavailable(str(error)) from error

    async def _ledger_problem(self) -> str | None:
        try:
            await in_thread(self.host.leases_now)
        except LedgerError as error:
            return str(error)
        return None

    def _layers(self) -> list[JSON]:
        """The layers of limits, strongest first, and whether each holds."""
        inventory = self.host.inventory
        return [asdict(layer) for layer in self.host.limits.layers(inventory.devices if inventory else ())]
