"""What clients can see and do: all the logic behind the REST API, without HTTP."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from jupyter_server.utils import ensure_async
from traitlets import Instance, default
from traitlets.config import LoggingConfigurable

from .. import __version__
from ..background import in_thread
from ..host import DriverSilent, GPUHost
from ..leases.lease import Lease, LeaseState, Origin, Refusal
from ..leases.ledger import LeaseGone, LedgerError
from ..leases.request import GPURequest, RequestError
from ..usage.sampler import GPUSampler
from ..waiting import NotGranted
from .bodies import Bodies, Body
from .kernel_models import KernelModels
from .models import JSON, Snapshot, devices_model, problems_model, queue_entries, queue_model

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

    from ..kernels import KernelRecord


class BadRequest(Exception):  # noqa: N818 - HTTP's name
    """What the client sent cannot be done, by its own fault. The message says what was expected."""


class NotFound(Exception):  # noqa: N818 - HTTP's name
    """There is no such thing."""


class Conflict(Exception):  # noqa: N818 - HTTP's name
    """What the client wants cannot be had now."""


class Unavailable(Exception):  # noqa: N818 - HTTP's name
    """The devices or the ledger cannot be asked."""


class KernelChange(NamedTuple):
    """What a client wants of a kernel. At least one of the two is given."""

    request: str | None
    restart: bool = False
    """Whether to restart it for the request, where that takes a restart."""
    keep_when_idle: bool | None = None


class GPUManager(LoggingConfigurable):
    """Devices, kernels and queue of one server as JSON-safe models, or as bodies that many clients get.

    Every method may raise `Unavailable`; each message is a sentence for people.
    """

    host = Instance(GPUHost)
    sampler = Instance(GPUSampler)

    @default("sampler")
    def _default_sampler(self) -> GPUSampler:
        return GPUSampler(host=self.host, parent=self)

    def __init__(self, serverapp: ServerApp, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._serverapp = serverapp
        self._kernels = KernelModels(serverapp, self.host.kernels)
        self._bodies = Bodies()
        self.watchdog_reason: str | None = "no server runs it"
        """Why no watchdog looks after the caps; `None` if one does."""
        self.provisioner_reason: str | None = None
        """Why kernels are not started by our provisioner; `None` if they are."""

    async def status(self) -> JSON:
        """Whether everything is in place, and what is not."""
        inventory = self.host.inventory
        if inventory is None:
            try:
                inventory = (await self.host.survey()).inventory
            except DriverSilent as error:
                raise Unavailable(str(error)) from error
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

    async def devices(self) -> Body:
        """All devices, what they do, who holds them and who else is on them. Whoever asks is taken to watch."""
        return self._devices_body(await self._snapshot(watch=True))

    async def kernels(self) -> Body:
        """All kernels of this server, with what each holds and uses. Whoever asks is taken to watch."""
        return await self._kernels_body(await self._snapshot(watch=True))

    async def live(self) -> Body:
        """Devices, kernels and queue at one moment, for who would else ask for each: a request has its own price."""
        snapshot = await self._snapshot(watch=True)
        kernels = await self._kernels_body(snapshot)
        queue = self._bodies.get("queue", (snapshot.number, snapshot.stale), lambda: queue_model(snapshot))
        return self._bodies.join("live", devices=self._devices_body(snapshot), kernels=kernels, queue=queue)

    async def kernel(self, kernel_id: str) -> JSON:
        """One kernel of this server.

        Raises:
            NotFound: there is none with this id.
        """
        self._require_kernel(kernel_id)
        snapshot = await self._snapshot(watch=False)
        await self._kernels.refresh()
        return self._kernels.model(kernel_id, snapshot, snapshot.survey.inventory.by_uuid())

    async def history(self, since: float) -> bytes:
        """What was used after `since` (seconds since the epoch), as JSON. Whoever asks is taken to watch."""
        await self._snapshot(watch=True)
        return await in_thread(self.sampler.history.body, since, self.sampler.interval_s)

    async def queue(self) -> JSON:
        """The requests that wait, in order of arrival."""
        recent = self.sampler.recent()
        try:
            leases = await in_thread(self.host.leases_now) if recent is None else recent.leases
        except LedgerError:
            leases = await in_thread(self.host.ledger.last_seen)
        waiting = [lease for lease in leases if lease.state is LeaseState.WAITING]
        return {"time": round(time.time(), 3), "entries": queue_entries(waiting, self.host.process)}

    def close(self) -> None:
        """Take no more samples. Never blocks."""
        self.sampler.close()

    async def apply(self, kernel_id: str, change: KernelChange) -> JSON:
        """Do what a client wants of a kernel, and the kernel's model with what became of it.

        Raises:
            NotFound, BadRequest, Conflict: as `change_kernel` and `keep_kernel` do; nothing was changed.
        """
        if change.request is None:
            return await self.keep_kernel(kernel_id, keep=bool(change.keep_when_idle))
        answer = await self.change_kernel(kernel_id, change.request, restart=change.restart)
        if change.keep_when_idle is None:
            return answer
        kept = await self.keep_kernel(kernel_id, keep=change.keep_when_idle)
        return {**kept, "applied": answer["applied"], "message": f"{answer['message']} {kept['message']}"}

    async def keep_kernel(self, kernel_id: str, *, keep: bool) -> JSON:
        """Exempt a kernel from what is done about idle ones, or no longer; and the kernel's model.

        Raises:
            NotFound: there is no kernel with this id.
            Conflict: the kernel is not one that we started.
        """
        record = self._own_record(kernel_id)
        record.keep_when_idle = keep
        self.host.kernels.tell(record, "kept")
        message = f"{record.label} is {'kept though' if keep else 'not kept when'} idle."
        return {**await self.kernel(kernel_id), "applied": "now", "message": message}

    async def change_kernel(self, kernel_id: str, text: str, *, restart: bool) -> JSON:
        """Set another request for a kernel, and the kernel's model with what became of it.

        Only memory on the same devices changes at once. All else takes a restart, which is done here if `restart` is
        true: the new devices are taken first, so the kernel runs on until they are there.

        Raises:
            NotFound: there is no kernel with this id.
            BadRequest: the request is none, or can never be granted here.
            Conflict: it was cancelled, refused, or the kernel is not one that we started.
        """
        record = self._own_record(kernel_id)
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
        held = await self.host.lease(record.lease_id)
        if held is not None and await self.host.stays_on_devices(held, request):
            changed = await self.host.change(held.id, request)
            if isinstance(changed, Refusal):
                raise NotGranted(
                    f"{record.label} keeps {held.request}, because {request} cannot be had now: it {changed.message}."
                )
            record.request = record.wanted = str(request)
            self.host.kernels.tell(record, "changed")
            return "now", f"{record.label} has {request.in_words} now."
        await in_thread(self.host.check_now, request)
        if not restart:
            record.wanted = str(request)
            return "on-restart", f"{record.label} gets {request.in_words} when its kernel is restarted."
        await self._prepare(record, request, held)
        kernel_manager: Any = self._serverapp.kernel_manager
        await ensure_async(kernel_manager.restart_kernel(record.kernel_id))
        return "restarted", f"{record.label} was restarted with {request.in_words}."

    async def _prepare(self, record: KernelRecord, request: GPURequest, held: Lease | None) -> None:
        """Take the lease of a kernel's next start while it still runs on the old one."""
        ask = self.host.ask_for(record, request, Origin.API, before=held)

        def on_waiting(waiting: Lease) -> None:
            record.waiting_id = waiting.id
            self.host.kernels.tell(record, "waiting")

        try:
            lease = await self.host.acquire(ask, on_waiting)
        finally:
            record.waiting_id = None
        if self.host.kernels.get(record.kernel_id) is not record:
            await self.host.release(lease.id)
            raise NotGranted(f"{record.label} has ended, or was restarted, before it got {request}.")
        record.prepared, record.wanted = lease.id, str(request)

    def _require_kernel(self, kernel_id: str) -> None:
        if not self._kernels.is_known(kernel_id):
            raise NotFound(f"there is no kernel {kernel_id} on this server")

    def _own_record(self, kernel_id: str) -> KernelRecord:
        self._require_kernel(kernel_id)
        record = self.host.kernels.get(kernel_id)
        if record is None:
            raise Conflict("this kernel was not started by the GPU provisioner, so its GPU cannot be changed")
        return record

    async def _snapshot(self, *, watch: bool) -> Snapshot:
        try:
            return await (self.sampler.watched() if watch else self.sampler.current())
        except DriverSilent as error:
            raise Unavailable(str(error)) from error

    def _devices_body(self, snapshot: Snapshot) -> Body:
        state = (snapshot.number, snapshot.stale)
        return self._bodies.get("devices", state, lambda: devices_model(snapshot, simulated=self.host.simulated))

    async def _kernels_body(self, snapshot: Snapshot) -> Body:
        await self._kernels.refresh()
        state = (snapshot.number, snapshot.stale, self._kernels.state())
        return self._bodies.get("kernels", state, lambda: self._kernels.table(snapshot))

    async def _ledger_problem(self) -> str | None:
        try:
            await in_thread(self.host.ledger.verify)
        except LedgerError as error:
            return str(error)
        return None

    def _layers(self) -> list[JSON]:
        """The layers of limits, strongest first, and whether each holds."""
        inventory = self.host.inventory
        layers = self.host.limits.layers(inventory.devices if inventory else (), self.watchdog_reason)
        return [asdict(layer) for layer in layers]
