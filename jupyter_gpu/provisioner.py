"""Starting a kernel with a lease: request, lease, environment, process.

Whatever fails in here, the kernel starts: without a GPU, and with a notice that says why. Only a request that was
refused, cancelled or waited for too long keeps it from starting, since that is what somebody asked for.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.connect import LocalPortCache
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Unicode

from .background import in_thread
from .devices.processes import process_key
from .host import GPUHost
from .kernel.injection import magic_variables
from .kernels import KernelRecord
from .leases.lease import Lease, LeaseState, Origin, Refusal
from .leases.ledger import LeaseGone
from .leases.request import CPU, GPURequest, RequestError
from .limits.environment import kernel_environment
from .notebook import notebook_request
from .plain import plain
from .waiting import NotGranted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jupyter_client.connect import KernelConnectionInfo

REQUEST_VARIABLE = "JUPYTER_GPU"
_SESSION_VARIABLE = "JPY_SESSION_NAME"
_LONGEST_LABEL = 255
"""NAME_MAX: no file has a longer name."""


@dataclass(frozen=True)
class Wish:
    """A request as it was written, and where."""

    text: str
    origin: Origin


class GPUProvisioner(LocalProvisioner):
    """Starts a kernel on this host, on the devices of a lease that it takes before and gives back after.

    The lease is kept through restarts, the restarter's own included. It ends with `cleanup(restart=False)`, when a
    start fails, when the restarter gives up, and, should all that be missed, with the kernel's process.
    """

    request = Unicode(
        help="""The GPU request of kernels of this kernelspec: what `config` in the `kernel_provisioner` part of a
        kernelspec's metadata gives it.""",
    ).tag(config=True)

    _host: GPUHost | None = None
    _lease_id: str | None = None
    _launched = False
    _restarts = _shut_down = False
    """What the manager has asked for since the last start began."""
    _watches_restarter = False

    @property
    def host(self) -> GPUHost:
        """The devices and leases of this host, shared by all kernels of this process."""
        if self._host is None:
            manager = self.parent
            self._host = GPUHost.instance(parent=getattr(manager, "parent", None) or manager)
        return self._host

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """The launch's keyword arguments, once there is a lease, with the environment that it means.

        Raises:
            NotGranted: the request was refused, cancelled or waited for too long, or the kernel was shut down.
        """
        outlived, self._restarts, self._shut_down = self._restarts and self._shut_down, False, False
        if outlived:
            raise self._was_shut_down()
        record = self._record(kwargs.get("env", os.environ))
        lease = None
        try:
            lease = await self._lease(record, kwargs.get("env", os.environ))
        except (NotGranted, asyncio.CancelledError):
            await self._abandon(record)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not keep the kernel from starting
            await self._start_without(record, f"{error}" or type(error).__name__)
        try:
            kwargs = await super().pre_launch(**kwargs)
        except BaseException:
            await self._abandon(record)
            raise
        environment = kernel_environment(
            kwargs["env"], self.host.variables_for(lease), self._own_variables(kwargs["env"])
        )
        for notice in environment.notices:
            self._note(record, notice)
        variables = {**environment.variables, **await self._limit_variables(record, lease, environment.variables)}
        if self._shut_down:
            await self._abandon(record)
            raise self._was_shut_down()
        magic = magic_variables(self.kernel_spec.language, variables, self.host.framework_shares)
        return {**kwargs, "env": {**variables, **magic}}

    async def _limit_variables(
        self, record: KernelRecord, lease: Lease | None, environment: Mapping[str, str]
    ) -> dict[str, str]:
        layers = ["framework"] if self.kernel_spec.language.lower() == "python" else []
        try:
            variables = await self.host.limit_variables(lease, environment)
            account = self.host.accounts.path(lease.id) if lease and lease.holds and not self._shut_down else None
            if account is not None and not await in_thread(account.is_file):
                self._note(
                    record,
                    f"The memory cap of this kernel is not kept, because its account in {self.host.accounts.directory} "
                    "could not be written; free space or repair permissions there, and start the kernel again.",
                )
                variables = {}
        except Exception as error:  # noqa: BLE001 - the kernel starts with the layers that are left
            self._note(record, f"The memory cap is not kept at the driver's level, because {error}.")
            variables = {}
        record.layers = (*(["interposer"] if variables else []), *layers) if lease and lease.holds else ()
        return variables

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the process. If that fails the lease ends, because nothing calls `cleanup` then."""
        try:
            return await super().launch_kernel(cmd, **kwargs)
        except BaseException:
            await self._abandon(self._known_record())
            raise

    async def post_launch(self, **kwargs: Any) -> None:
        """Note the process that the lease lives with from now on."""
        await super().post_launch(**kwargs)
        self._launched = True
        record = self._known_record()
        process = process_key(self.pid) if self.pid else None
        if record is not None:
            record.pid = self.pid
            if record.state in ("starting", "waiting"):
                record.state = "running"
            self.host.kernels.tell(record, "started")
        self._watch_restarter()
        if self._lease_id is None or process is None:
            return
        try:
            await self.host.started(self._lease_id, process)
        except LeaseGone:
            self._note(record, "The lease of this kernel was ended while it started; restart it to get its GPU back.")
        except Exception as error:  # noqa: BLE001 - the kernel runs, and the next start tries again
            self._note(record, f"The lease of this kernel could not be noted: {error}.")

    async def cleanup(self, restart: bool = False) -> None:
        """Give the lease back, unless the kernel is to be started again."""
        self._restarts |= restart
        self._shut_down |= not restart
        await super().cleanup(restart=restart)
        if not restart:
            self.ports_cached = False  # they have been returned
            await self._end()

    def moved_to(self, lease_id: str) -> None:
        """Note that the running kernel has another lease in the place of the one it started with."""
        self._lease_id = lease_id

    async def _lease(self, record: KernelRecord, environment: Mapping[str, str]) -> Lease:
        """The lease to start with: the one it has, if it is what is asked for now, or a new one."""
        wish = await self._wish(record, environment)
        record.origin = wish.origin
        try:
            request = GPURequest.parse(wish.text)
        except RequestError as error:
            return await self._cpu_lease(record, f"The kernel runs on the CPU, because {error}.")
        record.request = str(request)
        held = await self._held_lease()
        prepared = await self._prepared_lease(record, held)
        if prepared is not None:
            return prepared
        if held is not None and held.request == record.request:
            return held
        if held is not None:
            changed = await self._changed(held, request)
            if changed is not None:
                return changed
        try:
            lease = await self._acquire(record, request, held)
        except RequestError as error:
            return await self._cpu_lease(record, f"The kernel runs on the CPU, because {error}.")
        except NotGranted as error:
            if self.host.policy_for(wish.origin) != "cpu" or record.waiting_id is not None:
                raise
            return await self._cpu_lease(record, f"The kernel runs on the CPU: {error}")
        if held is not None:
            # Only now: what it had stayed its own until it had the new.
            await self.host.release(held.id)
        return lease

    async def _acquire(self, record: KernelRecord, request: GPURequest, held: Lease | None) -> Lease:
        host = self.host
        before = held or await self._predecessor(record)
        ask = host.ask_for(record, request, record.origin or Origin.DEFAULT, before=before)

        def on_waiting(waiting: Lease) -> None:
            record.state, record.waiting_id = "waiting", waiting.id
            self.log.info("%s %s.", record.label, waiting.message)
            host.kernels.tell(record, "waiting")

        lease = await host.acquire(ask, on_waiting)
        waited, record.waiting_id, record.state = record.waiting_id is not None, None, "starting"
        self._lease_id = record.lease_id = lease.id
        if waited:
            host.kernels.tell(record, "granted")
        return lease

    async def _cpu_lease(self, record: KernelRecord, notice: str) -> Lease:
        """A lease without devices, for a kernel that does not get what was asked for."""
        self._note(record, notice)
        record.state = "problem"
        await self._end_lease()
        lease = await self._acquire(record, CPU, None)
        record.state = "problem"
        return lease

    async def _start_without(self, record: KernelRecord, reason: str) -> None:
        """Go on without a lease, after a failure of our own."""
        self.log.warning("The kernel %s starts without a GPU.", record.label, exc_info=sys.exc_info())
        self._lease_id = record.lease_id = record.waiting_id = None
        record.state = "problem"
        self._note(record, f"The kernel runs without a GPU, because {reason.removesuffix('.')}.")

    async def _changed(self, held: Lease, request: GPURequest) -> Lease | None:
        """The lease that the kernel has, with other memory on the same devices; `None` if that will not do."""
        try:
            if not await self.host.stays_on_devices(held, request):
                return None
            changed = await self.host.change(held.id, request)
        except (RequestError, LeaseGone):
            return None
        return None if isinstance(changed, Refusal) else changed

    async def _held_lease(self) -> Lease | None:
        """The lease of the process before, after a restart."""
        held = await self.host.lease(self._lease_id)
        if held is None:
            self._lease_id = None
        return held

    async def _prepared_lease(self, record: KernelRecord, held: Lease | None) -> Lease | None:
        """The lease that was taken for this start while the process before still ran."""
        lease_id, record.prepared = record.prepared, None
        prepared = await self.host.lease(lease_id)
        if prepared is None:
            return None
        if prepared.request != record.request:
            await self.host.release(prepared.id)
            return None
        self._lease_id = record.lease_id = prepared.id
        if held is not None:
            await self.host.release(held.id)
        return prepared

    async def _predecessor(self, record: KernelRecord) -> Lease | None:
        """The lease of the kernel that this one takes the place of.

        A session that changes its kernel starts the new one first. Both are for the same notebook.
        """
        if record.path is None:
            return None
        leases = await in_thread(self.host.leases_now)
        return next(
            (
                lease
                for lease in leases
                if lease.state is LeaseState.HELD
                and lease.owner.path == record.path
                and lease.owner.kernel_id != self.kernel_id
                and lease.asker == self.host.process
            ),
            None,
        )

    async def _wish(self, record: KernelRecord, environment: Mapping[str, str]) -> Wish:
        """The request that counts: the first of those that somebody made, else the default."""
        if record.wanted is not None:
            return Wish(record.wanted, Origin.API)
        metadata = self.kernel_spec.metadata.get("jupyter_gpu")
        variant = self.request or (metadata.get("request") if isinstance(metadata, dict) else None)
        if variant:
            return Wish(str(variant), Origin.VARIANT)
        if record.path is not None:
            in_notebook = await in_thread(notebook_request, Path(record.path))
            if in_notebook is not None:
                return Wish(in_notebook, Origin.NOTEBOOK)
        in_environment = self.kernel_spec.env.get(REQUEST_VARIABLE) or environment.get(REQUEST_VARIABLE)
        if in_environment:
            return Wish(in_environment, Origin.ENVIRONMENT)
        return Wish(self.host.default_request, Origin.DEFAULT)

    def _record(self, environment: Mapping[str, str]) -> KernelRecord:
        """What is known of this kernel, begun anew for every start but for what was set through the API."""
        path = environment.get(_SESSION_VARIABLE) or None
        name = self.kernel_spec.display_name or "kernel"
        before = self._known_record()
        record = KernelRecord(
            kernel_id=self.kernel_id,
            kernel_name=getattr(self.parent, "kernel_name", "") or "",
            label=plain(Path(path).name if path else f"{name} {self.kernel_id[:8]}", _LONGEST_LABEL),
            path=path,
            lease_id=self._lease_id,
            wanted=before.wanted if before else None,
            prepared=before.prepared if before else None,
            keep_when_idle=before.keep_when_idle if before else None,
        )
        self.host.kernels.add(record)
        return record

    def _known_record(self) -> KernelRecord | None:
        return self.host.kernels.get(self.kernel_id)

    def _note(self, record: KernelRecord | None, notice: str) -> None:
        self.log.warning("%s", notice)
        if record is not None:
            record.notices.append(notice)
            self.host.kernels.tell(record, "notice")

    def _own_variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The variables that the kernelspec sets, with the values that they come to."""
        return {name: environment.get(name, value) for name, value in self.kernel_spec.env.items()}

    def _watch_restarter(self) -> None:
        """End the lease when the restarter gives up: the server then drops the kernel without a word to us."""
        add_callback = getattr(self.parent, "add_restart_callback", None)
        if self._watches_restarter or add_callback is None:
            return
        self._watches_restarter = True
        add_callback(self._restarter_gave_up, "dead")

    def _restarter_gave_up(self) -> None:
        self._ending = asyncio.ensure_future(self._end())

    def _was_shut_down(self) -> NotGranted:
        """Why a start goes no further: managers go on with it although the kernel is shut down meanwhile.

        Nobody would know of the process then, nor end it.
        """
        return NotGranted(f"The kernel {self.kernel_id} was shut down while it was being started.")

    async def _abandon(self, record: KernelRecord | None) -> None:
        """Give back all that a start took that came to nothing.

        A kernel that was running before keeps its ports and its lease, for another try to restart it; the ledger
        drops the lease if there is none. One that was shut down meanwhile has no other try.
        """
        if self._launched and not self._shut_down:
            if record is not None:
                record.state, record.wanted = "problem", None
            return
        self._return_ports()
        self._forget_pending()
        await self._end_lease()
        if record is not None:
            self.host.kernels.remove(record.kernel_id)

    def _forget_pending(self) -> None:
        """Take the kernel out of those that the server believes to be starting.

        It leaves a kernel there whose start failed, and its own shutdown then fails on it ("Kernel does not exist").
        """
        pending = getattr(getattr(self.parent, "parent", None), "_pending_kernels", None)
        if isinstance(pending, dict):
            pending.pop(self.kernel_id, None)

    def _return_ports(self) -> None:
        if not self.ports_cached:
            return
        self.ports_cached = False
        for name in ("shell_port", "iopub_port", "stdin_port", "hb_port", "control_port"):
            port = getattr(self.parent, name, 0)
            if port:
                LocalPortCache.instance().return_port(port)

    async def _end(self) -> None:
        """End all that the kernel holds, waits for, or would have got with its next start, and forget it."""
        record = self._known_record()
        self.host.kernels.remove(self.kernel_id)
        await self._end_lease()
        for lease_id in (record.waiting_id, record.prepared) if record else ():
            if lease_id is not None:
                await self.host.release(lease_id)

    async def _end_lease(self) -> None:
        lease_id, self._lease_id = self._lease_id, None
        if lease_id is not None:
            await self.host.release(lease_id)
