"""This host's GPUs and leases as one process sees them: the devices, the ledger and the accounts, wired together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Enum, Float, Type, Unicode, default, validate
from traitlets.config import SingletonConfigurable

from .background import SharedCall, in_daemon, in_thread, result_of
from .devices.device import DeviceBackend, Inventory
from .devices.processes import ProcessKey, process_key
from .devices.simulation import SPECIFICATION_VARIABLE
from .devices.visible import visible_devices
from .kernels import KernelRegister
from .leases.kinship import Kinship
from .leases.lease import Ask, Lease, LeaseState, Origin, Owner, Refusal
from .leases.ledger import Ledger, LedgerError
from .leases.placement import check, resolve
from .leases.request import GPURequest, RequestError, model_matches
from .leases.survey import Survey, look
from .limits.caps import AccountKeeper
from .limits.environment import lease_variables
from .limits.layers import LimitLayers
from .paths import runtime_directory
from .waiting import POLL_S, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from traitlets import Bunch

    from .kernels import KernelRecord


class DriverSilent(Exception):  # noqa: N818 - it names what is the case
    """The driver does not answer, and nothing was seen before. The message is for people."""


class GPUHost(SingletonConfigurable):
    """One per process. Everything named `…_now` blocks (driver, files) and belongs in a thread; coroutines do that."""

    backend_class = Type(
        klass=DeviceBackend,
        help=f"""Where devices come from. The default is NVML, or simulated devices where {SPECIFICATION_VARIABLE} is
        set in the environment.""",
    ).tag(config=True)

    runtime_directory = Unicode(
        help="""The directory of the lease ledger and the memory accounts, which all Jupyter servers of a user on this
        host share. It must be on a file system local to the host. The default is `$JUPYTER_GPU_RUNTIME_DIR`, else
        `$XDG_RUNTIME_DIR/jupyter-gpu`, else `/tmp/jupyter-gpu-<uid>`.""",
    ).tag(config=True)

    default_request = Unicode(
        "auto", help="The request of a kernel for which nothing was asked, such as `auto`, `cpu` or `auto:25%`."
    ).tag(config=True)

    explicit_policy = Enum(
        ("wait", "fail", "cpu"),
        "wait",
        help="""What to do when a request that somebody made cannot be granted now: `wait` for it, `fail` to start, or
        start on the `cpu` with a notice.""",
    ).tag(config=True)

    default_policy = Enum(
        ("wait", "fail", "cpu"), "cpu", help="What to do when the default request cannot be granted now."
    ).tag(config=True)

    wait_limit_s = Float(
        0.0, min=0.0, help="How long a request may wait, in seconds, before the start fails; 0 is without a limit."
    ).tag(config=True)

    devices_by_index = Bool(
        False,
        help="""Name devices in CUDA_VISIBLE_DEVICES by index rather than by full UUID, for programs that do not know
        UUIDs. CUDA_DEVICE_ORDER=PCI_BUS_ID goes with it.""",
    ).tag(config=True)

    heed_cuda_visible_devices = Bool(
        True,
        help="""Hand out only the devices that CUDA_VISIBLE_DEVICES names in the environment of the server, if it is set
        there, as batch systems do.""",
    ).tag(config=True)

    framework_shares = Unicode(
        help="""What each framework in a kernel may take of the kernel's GPUs, such as `theano=cpu` or
        `theano=25%,tensorflow=75%`: `cpu`, a share of the kernel's cap, or an amount. A framework that is not named
        has what the others leave. A kernel's own JUPYTER_GPU_SHARES goes before it.""",
    ).tag(config=True)

    interposer = Bool(
        True,
        help="""Preload the library that answers out-of-memory at the CUDA driver's level beyond a lease's cap into the
        process trees of kernels and commands. It is compiled on first use where the wheel did not bring it.""",
    ).tag(config=True)

    survey_timeout_s = Float(
        5.0,
        min=0.1,
        help="""How long a launch waits for the driver to tell what is on the devices, in seconds, before it goes by
        what it told last.""",
    ).tag(config=True)

    @default("backend_class")
    def _default_backend_class(self) -> type[DeviceBackend]:
        if os.environ.get(SPECIFICATION_VARIABLE):
            from .devices.simulated import SimulatedBackend  # noqa: PLC0415 - only one of the two is needed

            return SimulatedBackend
        from .devices.nvml import NVMLBackend  # noqa: PLC0415

        return NVMLBackend

    @default("runtime_directory")
    def _default_runtime_directory(self) -> str:
        return str(runtime_directory())

    @validate("default_request")
    def _valid_default_request(self, proposal: Bunch) -> str:
        return str(GPURequest.parse(proposal["value"]))

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        directory = Path(self.runtime_directory)
        backend_class: Callable[..., DeviceBackend] = self.backend_class
        self.backend = backend_class(parent=self)
        self.accounts = AccountKeeper(directory, log=self.log)
        self.ledger = Ledger(directory, on_change=self._ledger_changed, accounted=self.accounts.accounted)
        self.limits = LimitLayers(self.log, simulated=self.simulated, use_interposer=self.interposer)
        self.kernels = KernelRegister()
        self.kinship = Kinship()
        self.socket_path: Path | None = None
        """Where kernels reach this process's server, if it has one."""
        self.last_survey: Survey | None = None
        """What was seen last; good for lists, not for decisions."""
        self._last_look = 0.0
        self._stopping = False
        self._changes = 0
        self._looking = SharedCall(self.look_now, "gpu-look")
        me = process_key()
        assert me is not None
        self.process: ProcessKey = me

    @property
    def inventory(self) -> Inventory | None:
        """The devices as they were seen last; `None` before the first look. Never blocks."""
        return self.last_survey.inventory if self.last_survey else None

    @property
    def simulated(self) -> bool:
        """Whether the devices are simulated."""
        return self.backend.simulated

    def close(self) -> None:
        """Let go of the driver and the ledger's file."""
        self.backend.close()
        self.ledger.close()
        self.kinship.close()

    async def close_within(self, timeout_s: float) -> None:
        """The same, but without waiting longer for a driver that hangs; a daemon thread waits on."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(result_of(in_daemon(self.close, "gpu-close")), timeout_s)

    def look_soon(self, older_than_s: float = 0.0) -> None:
        """Have the devices looked at in the background, unless that was done in the last `older_than_s` seconds."""
        if self.last_survey is None or time.monotonic() - self._last_look >= older_than_s:
            self._looking.begin()

    def look_now(self) -> Survey:
        """What is on the devices now."""
        survey = look(self.backend, self._visible, self.kinship)
        self.last_survey, self._last_look = survey, time.monotonic()
        self.accounts.know(survey.inventory.devices)
        return survey

    def leases_now(self) -> list[Lease]:
        """All leases of this user on this host, and all requests that wait."""
        return self.ledger.leases()

    async def lease(self, lease_id: str | None) -> Lease | None:
        """The lease, or request that waits, with this id; `None` if it has ended.

        Raises:
            LedgerError: the ledger cannot be used.
        """
        if lease_id is None:
            return None
        leases = await in_thread(self.leases_now)
        return next((lease for lease in leases if lease.id == lease_id), None)

    def ask_for(
        self,
        record: KernelRecord,
        request: GPURequest,
        origin: Origin,
        *,
        before: Lease | None,
        wait: bool | None = None,
    ) -> Ask:
        """What to ask for a kernel.

        Args:
            record: the kernel.
            request: what is wanted for it.
            origin: who wants it.
            before: the lease that ends once this one has begun.
            wait: whether to wait for it; `None` is as configured.
        """
        return Ask(
            id=str(uuid.uuid4()),
            request=str(request),
            origin=origin,
            owner=Owner("kernel", record.label, record.kernel_id, record.path),
            asker=self.process,
            succeeds=before.id if before else None,
            wait=self.policy_for(origin) == "wait" if wait is None else wait,
        )

    def check_now(self, request: GPURequest) -> None:
        """Nothing, if the request can ever be granted here.

        Raises:
            RequestError: it cannot.
        """
        check(request, self.look_now().inventory.devices)

    def ask_now(self, ask: Ask, survey: Survey | None = None, *, again: bool = False) -> Lease | Refusal:
        """One try: granted, waiting, or (where the asker does not want to wait) refused.

        Args:
            ask: what is asked for.
            survey: what is on the devices now, if that is known.
            again: whether it has been asked before, and waits.

        Raises:
            LeaseGone: it waited, and was cancelled.
            RequestError: it can never be granted.
            LedgerError: the ledger cannot be used.
        """
        try:
            return self.ledger.ask(ask, survey or self.look_now(), again=again)
        except RequestError:
            self.ledger.cancel(ask.id)
            raise

    def wait_now(self, ask: Ask, on_waiting: Callable[[Lease], None] = lambda _: None) -> Lease:
        """The lease, once it is granted; for programs without an event loop.

        Args:
            ask: what is asked for.
            on_waiting: called when it has to wait.

        Raises:
            NotGranted: it was refused, cancelled or waited for too long.
            RequestError: it can never be granted.
            LedgerError: the ledger cannot be used.
        """
        waiting = Waiting(self, ask)
        lease = waiting.step()
        if lease is None:
            assert waiting.lease is not None
            on_waiting(waiting.lease)
        while lease is None:
            time.sleep(POLL_S)
            lease = waiting.step()
        return lease

    def variables_for(self, lease: Lease | None) -> dict[str, str]:
        """The environment variables that show a process tree the devices of its lease, and no others."""
        inventory = self.inventory
        return lease_variables(
            lease,
            inventory.devices if inventory else (),
            account=self.accounts.path(lease.id) if lease else None,
            socket=self.socket_path,
            by_index=self.devices_by_index,
        )

    async def survey(self, younger_than_s: float = 0.0) -> Survey:
        """What is on the devices now, or, where the driver does not answer in time, what was seen last.

        Args:
            younger_than_s: what was seen so many seconds ago or less will do.

        Raises:
            DriverSilent: the driver does not answer and nothing was seen before.
        """
        if self.last_survey is not None and time.monotonic() - self._last_look < younger_than_s:
            return self.last_survey
        try:
            return await asyncio.wait_for(result_of(self._looking.begin()), self.survey_timeout_s)
        except asyncio.TimeoutError:
            if self.last_survey is None:
                raise DriverSilent(
                    f"the GPU driver has not answered for {self.survey_timeout_s:g} s; `nvidia-smi` may say why"
                ) from None
            self.log.warning("The GPU driver does not answer; going by what it said last.")
            return self.last_survey

    async def acquire(self, ask: Ask, on_waiting: Callable[[Lease], None] = lambda _: None) -> Lease:
        """The lease, once it is granted. Cancelling the coroutine takes the request out of the queue.

        Args:
            ask: what is asked for.
            on_waiting: called when it has to wait.

        Raises:
            NotGranted: it was refused, cancelled or waited for too long.
            RequestError: it can never be granted.
            LedgerError: the ledger cannot be used.
        """
        if self._stopping:
            ask = replace(ask, wait=False)
        waiting = Waiting(self, ask)
        step: asyncio.Future[Lease | None] | None = None
        try:
            # A kernel that needs no device need not wait for a driver either.
            survey = Survey(Inventory()) if GPURequest.parse(ask.request).is_cpu else await self.survey()
            step = asyncio.ensure_future(in_thread(waiting.step, survey))
            lease = await asyncio.shield(step)
            if lease is None:
                assert waiting.lease is not None
                on_waiting(waiting.lease)
            while lease is None:
                await asyncio.sleep(POLL_S)
                step = asyncio.ensure_future(in_thread(waiting.step))
                lease = await asyncio.shield(step)
        except BaseException:
            with contextlib.suppress(Exception):
                await asyncio.shield(self._take_back(ask.id, step))
            raise
        return lease

    async def _take_back(self, lease_id: str, step: asyncio.Future[Lease | None] | None) -> None:
        """End a request once the thread that may be deciding on it is done: it would write it down after its end."""
        if step is not None:
            with contextlib.suppress(Exception):
                await step
        await in_thread(self.ledger.release, lease_id)

    async def limit_variables(self, lease: Lease | None, environment: Mapping[str, str]) -> dict[str, str]:
        """What to set in a process tree's environment so that the lease's caps hold in it; may be nothing.

        Args:
            lease: the lease, or `None`.
            environment: what the process would be started with.
        """
        return await in_thread(self.limit_variables_now, lease, environment)

    def limit_variables_now(self, lease: Lease | None, environment: Mapping[str, str]) -> dict[str, str]:
        """The same, for programs without an event loop."""
        if lease is None or not lease.holds:
            return {}
        return self.limits.preload(environment, self.survey_timeout_s)

    async def started(self, lease_id: str, process: ProcessKey) -> None:
        """Note the process that uses a lease."""

        def note() -> None:
            self.ledger.start(lease_id, process)
            self.accounts.begin_peaks(lease_id)

        await in_thread(note)

    async def stop_waiting(self) -> None:
        """End all requests of this process that wait, and let none wait from now on."""
        self._stopping = True
        for record in self.kernels:
            if record.waiting_id is not None:
                with contextlib.suppress(LedgerError):
                    await in_thread(self.ledger.cancel, record.waiting_id)

    async def release(self, lease_id: str) -> None:
        """End a lease. An unusable ledger is logged: whoever reads it next drops the lease once its process is gone."""
        try:
            await in_thread(self.ledger.release, lease_id)
        except LedgerError as error:
            self.log.warning("A lease could not be ended: %s", error)

    async def change(self, lease_id: str, request: GPURequest) -> Lease | Refusal:
        """Give a lease other memory on the devices that it has.

        Raises:
            RequestError, LeaseGone, LedgerError: it cannot be had; nothing was changed.
        """
        survey = await self.survey()
        return await in_thread(self.ledger.change, lease_id, request, survey)

    async def stays_on_devices(self, lease: Lease, request: GPURequest) -> bool:
        """Whether the request is for the devices that the lease has, so that only memory would change.

        Raises:
            RequestError: it names a device that is not there.
        """
        inventory = self.inventory or (await self.survey()).inventory
        if not lease.holds or request.device_count != len(lease.holds):
            return False
        if request.listed:
            named = [resolve(choice.device, inventory.devices).uuid for choice in request.listed]
            return named == [hold.uuid for hold in lease.holds]
        if request.model is None:
            return True
        by_uuid = inventory.by_uuid()
        return all(
            hold.uuid in by_uuid and model_matches(request.model, by_uuid[hold.uuid].name) for hold in lease.holds
        )

    def caps_of(self, leases: list[Lease]) -> dict[tuple[str, str], int | None]:
        """The cap of each lease on each device, by lease id and UUID."""
        held = [lease for lease in leases if lease.state is LeaseState.HELD]
        return {(lease.id, hold.uuid): self.accounts.cap(lease, hold, held) for lease in held for hold in lease.holds}

    def policy_for(self, origin: Origin) -> str:
        """What to do when a request from there cannot be granted now."""
        return str(self.default_policy if origin is Origin.DEFAULT else self.explicit_policy)

    @property
    def changes(self) -> int:
        """How often this process has changed the ledger."""
        return self._changes

    def _visible(self, inventory: Inventory) -> Inventory:
        """The devices that this process was started with, where its environment names some."""
        if not self.heed_cuda_visible_devices:
            return inventory
        order = os.environ.get("CUDA_DEVICE_ORDER")
        visible = visible_devices(os.environ.get("CUDA_VISIBLE_DEVICES"), order, inventory.devices)
        return replace(inventory, devices=visible.devices, problems=(*inventory.problems, *visible.notes))

    def _ledger_changed(self, leases: Sequence[Lease]) -> Callable[[], None]:
        self._changes += 1
        return self.accounts.apply(leases)


_of_parents: list[GPUHost] = []
"""Hosts that came along with a fork. Their threads did not, and to close their files could disturb the parent."""


def _begin_anew() -> None:
    """Leave the parent's host to the parent: a forked child is an asker of its own."""
    if GPUHost.initialized():
        _of_parents.append(GPUHost.instance())
        GPUHost.clear_instance()


os.register_at_fork(after_in_child=_begin_anew)
