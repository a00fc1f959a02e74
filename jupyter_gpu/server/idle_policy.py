"""What is done about kernels that keep GPU memory without computing: they are marked, and more only if configured."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_events import EventLogger
from jupyter_server.utils import ensure_async
from traitlets import Bool, Enum, Float, Instance
from traitlets.config import LoggingConfigurable

from ..background import in_thread
from ..host import GPUHost
from ..kernels import IdleMark
from ..leases.lease import Refusal
from ..leases.request import SHARED, GPURequest, Hold
from ..notebook import notebook_keeps_when_idle
from ..usage.attribution import DEVICE
from ..usage.sampler import GPUSampler, Need
from ..waiting import NotGranted
from .idleness import Idleness, Sighting, Standing, Turn
from .kernel_models import idle_since, last_word

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from jupyter_server.serverapp import ServerApp

    from ..kernels import KernelRecord
    from ..leases.lease import Lease
    from ..leases.placement import LeaseHold
    from ..usage.snapshot import Snapshot

IDLE_EVENT = "https://schema.jupyter.org/jupyter_gpu/idle/v1"

_LONGEST_STEP = 3
"""So many intervals may pass between two samples; what is more is time in which nobody looked."""
_MOST_OBITUARIES = 256


class GPUIdlePolicy(LoggingConfigurable):
    """Looks at every sample, and has some taken while a kernel of this server holds a GPU.

    A kernel is idle that executes nothing and computes nothing on its GPUs, though it has memory of them in use or
    keeps some from others. Only kernels of this server are looked at, and none is acted upon of which not all is known.
    """

    action = Enum(
        ("off", "mark", "downgrade", "shut-down"),
        "mark",
        help="""What to do about a kernel that holds GPU memory and has not computed for after_s: nothing (`off`);
        `mark` it in the panel and tell its owner; `downgrade` it, so that it keeps what it has in use but what it has
        reserved beyond that can be given to others, until it is restarted or asks again; or `shut-down` the kernel.
        The last two come with a warning, grace_s ahead.""",
    ).tag(config=True)

    after_s = Float(1800.0, min=1.0, help="How long a kernel has to be idle to be marked, in seconds.").tag(config=True)

    grace_s = Float(
        600.0,
        min=0.0,
        help="""How long after the warning a kernel is downgraded or shut down, in seconds. If it computes meanwhile,
        nothing is done, and the time begins anew.""",
    ).tag(config=True)

    interval_s = Float(
        30.0,
        min=0.1,
        help="""How often to look while nobody watches and a kernel holds a GPU, in seconds. What a kernel computes
        between two looks without executing a cell, as in a process of its own, may be missed.""",
    ).tag(config=True)

    act_on_unknown_utilization = Bool(
        False,
        help="""Downgrade or shut down also kernels of which the driver does not tell how busy they keep their GPU, as
        under MIG, going by when they executed something last. If false, these are marked and nothing more.""",
    ).tag(config=True)

    host = Instance(GPUHost)
    sampler = Instance(GPUSampler)
    event_logger = Instance(EventLogger)

    def __init__(self, serverapp: ServerApp, *, clock: Callable[[], float] = time.monotonic, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._serverapp = serverapp
        self._clock = clock
        self._idleness = Idleness(
            after_s=self.after_s,
            grace_s=self.grace_s,
            acts=self.action in ("downgrade", "shut-down"),
            longest_step_s=_LONGEST_STEP * self.interval_s,
        )
        self._seen_time = 0.0
        self._need: Need | None = None
        self._beginning: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[str] = set()
        """Kernels that are being shut down. They are busy with that, which is no sign of life."""
        self._obituaries: OrderedDict[str, str] = OrderedDict()
        """What became of the last kernel of a notebook, by the notebook's path, for its next kernel to say."""

    def start(self) -> None:
        """Begin to look; to be called on the event loop."""
        if self.action == "off":
            return
        self.sampler.listen_on_loop(self.look)
        self.host.kernels.listen(self._on_kernel)

    def stop(self) -> None:
        """Look no more, and do nothing of what was announced."""
        self._rest()
        for task in self._tasks:
            task.cancel()

    def look(self, snapshot: Snapshot) -> None:
        """Mark, warn or act as the sample says."""
        # The same look at the devices may come again with other leases; it shows nothing new of who computes.
        if snapshot.stale is not None or snapshot.time <= self._seen_time:
            return
        self._seen_time = snapshot.time
        sightings = []
        for record in self.host.kernels:
            lease = snapshot.lease_of.get(record.lease_id or "") if record.kernel_id not in self._ending else None
            if lease is not None and lease.holds and lease.process is not None and snapshot.is_mine(lease):
                sightings.append(self._sighting(record, lease, snapshot))
        standings = {standing.kernel_id: standing for standing in self._idleness.look(self._clock(), sightings)}
        for record in self.host.kernels:
            standing = standings.get(record.kernel_id)
            record.idle = None if standing is None else self._mark(record, standing)
            if standing is not None and standing.turn is not None:
                self._announce(record, standing, standing.turn)

    def _sighting(self, record: KernelRecord, lease: Lease, snapshot: Snapshot) -> Sighting:
        uses = [snapshot.uses.get((lease.id, hold.uuid)) for hold in lease.holds]
        used = tuple(None if use is None else use.used_bytes for use in uses)
        keeps = any(hold.hold is not Hold.SHARED for hold in lease.holds)
        # The whole device's figure moves by itself, so it is no trace of activity.
        steady = None not in used and all(use is not None and use.source != DEVICE for use in uses)
        return Sighting(
            kernel_id=record.kernel_id,
            since=idle_since(self._manager_of(record), record, snapshot),
            holds=True if keeps or any(used) else None if None in used else False,
            known=None not in used and all(self._is_known_idle(lease, hold, snapshot) for hold in lease.holds),
            changes=keeps or self.action != "downgrade",
            exempt=record.exempt,
            activity=self._activity_of(record),
            used=used if steady else None,
        )

    def _is_known_idle(self, lease: Lease, hold: LeaseHold, snapshot: Snapshot) -> bool:
        """Whether it is known that the kernel does not compute on a device: its own figure, or else the device's."""
        use, usage = snapshot.uses.get((lease.id, hold.uuid)), snapshot.survey.usage.get(hold.uuid)
        if use is None or usage is None or usage.lost:
            return False
        if use.utilization_percent is None and self.act_on_unknown_utilization:
            return True
        percent = usage.utilization_percent if use.utilization_percent is None else use.utilization_percent
        return percent is not None and percent <= self.sampler.idle_percent

    def _mark(self, record: KernelRecord, standing: Standing) -> IdleMark | None:
        if standing.since is None:
            return None
        action_at: float | None = None
        if standing.acts_in_s is not None:
            action_at = round(time.time() + standing.acts_in_s)
            before = record.idle.action_at if record.idle else None
            if before is not None and abs(action_at - before) <= 1:
                action_at = before
        policy = self.action if action_at is not None or standing.done or record.exempt else "mark"
        return IdleMark(standing.since, policy, action_at, record.exempt)

    def _announce(self, record: KernelRecord, standing: Standing, turn: Turn) -> None:
        if turn is Turn.DUE:
            self._run(self._act(record, standing, self._activity_of(record)))
            return
        held = f"{record.label} holds GPU memory and has not computed for {_readable(self.after_s)}"
        if turn is Turn.IDLE:
            message = f"{held}."
        elif turn is Turn.WARNED:
            what = "The kernel will be shut down" if self.action == "shut-down" else "Its reservation ends"
            message = f"{held}. {what} in {_readable(self.grace_s)}, unless it computes or is to be kept."
            self.log.warning("%s", message)
        elif record.exempt:
            message = f"{record.label} is to be kept though idle: nothing is done about it."
        else:
            message = f"{record.label} is not idle any more."
        mark = record.idle if turn is not Turn.ACTIVE else None
        self._emit(turn.value, record, message, mark.since if mark else None, mark.action_at if mark else None)

    async def _act(self, record: KernelRecord, standing: Standing, activity: Hashable) -> None:
        # A cell may have run since the sample.
        is_idle = getattr(self._manager_of(record), "execution_state", None) == "idle"
        if not is_idle or self._activity_of(record) != activity or record.exempt:
            return
        idle = f"it had not computed for {_readable(self.after_s + self.grace_s)}"
        try:
            if self.action == "shut-down":
                message = f"{record.label} was shut down, because {idle} while it held GPU memory."
                await self._shut_down(record)
                self._remember(record, message)
            else:
                message = await self._downgrade(record, idle)
        except Exception as error:  # noqa: BLE001 - it may have ended by itself meanwhile
            self.log.warning("%s is idle but could not be dealt with: %s", record.label, error)
            return
        self.log.warning("%s", message)
        self._emit("shut-down" if self.action == "shut-down" else "downgraded", record, message, standing.since)

    async def _shut_down(self, record: KernelRecord) -> None:
        kernels: Any = self._serverapp.kernel_manager
        self._ending.add(record.kernel_id)
        try:
            await ensure_async(kernels.shutdown_kernel(record.kernel_id))
        finally:
            self._ending.discard(record.kernel_id)

    async def _downgrade(self, record: KernelRecord, idle: str) -> str:
        """Reserve nothing for a kernel any more, and what to say of it. What it has in use stays its own.

        Raises:
            NotGranted, RequestError, LeaseGone, LedgerError, DriverSilent: nothing was changed.
        """
        assert record.lease_id is not None
        before = GPURequest.parse(record.request)
        request = before.with_memory(SHARED)
        changed = await self.host.change(record.lease_id, request)
        if isinstance(changed, Refusal):
            raise NotGranted(f"it {changed.message}")
        # Whoever restarts it wants what was asked for.
        record.request, record.wanted = str(request), record.wanted or str(before)
        self.host.kernels.tell(record, "changed")
        message = (
            f"{record.label} has {request.in_words} instead of {before.in_words}, because {idle}. "
            "Ask again for what it needs."
        )
        record.notices.append(message)
        self.host.kernels.tell(record, "notice")
        return message

    def _remember(self, record: KernelRecord, message: str) -> None:
        if record.path is None:
            return
        self._obituaries[record.path] = message
        if len(self._obituaries) > _MOST_OBITUARIES:
            self._obituaries.popitem(last=False)

    def _on_kernel(self, record: KernelRecord, what: str) -> None:
        if what == "started":
            message = self._obituaries.pop(record.path or "", None)
            if message is not None:
                record.notices.append(f"The kernel before: {message}")
                self.host.kernels.tell(record, "notice")
            if record.path is not None:
                self._run(self._read_notebook(record, Path(record.path)))
        elif what == "kept" and record.idle is not None:
            record.idle = record.idle._replace(exempt=record.exempt, action_at=None)
        if what in ("started", "changed", "ended"):
            self._rest_or_wake()

    async def _read_notebook(self, record: KernelRecord, path: Path) -> None:
        record.notebook_keeps = await in_thread(notebook_keeps_when_idle, path)

    def _rest_or_wake(self) -> None:
        """Have samples taken while a kernel holds a GPU. One that has just been started is not looked at at once."""
        if not any(record.has_gpu for record in self.host.kernels):
            self._rest()
        elif self._need is None and self._beginning is None:
            self._beginning = asyncio.get_running_loop().call_later(self.interval_s, self._wake)

    def _wake(self) -> None:
        self._beginning = None
        self._need = self.sampler.need(self.interval_s)

    def _rest(self) -> None:
        if self._beginning is not None:
            self._beginning.cancel()
            self._beginning = None
        if self._need is not None:
            self._need.close()
            self._need = None

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _activity_of(self, record: KernelRecord) -> Hashable:
        """When a kernel last said anything."""
        activity: Hashable = last_word(self._manager_of(record))
        return activity

    def _manager_of(self, record: KernelRecord) -> Any:
        kernels = self._serverapp.kernel_manager
        return kernels.get_kernel(record.kernel_id) if record.kernel_id in kernels else None

    def _emit(
        self,
        event: str,
        record: KernelRecord,
        message: str,
        since: float | None = None,
        action_at: float | None = None,
    ) -> None:
        who = {"kernel_id": record.kernel_id, "label": record.label, "path": record.path}
        data = {"event": event, **who, "since": since, "action_at": action_at, "message": message}
        try:
            self.event_logger.emit(schema_id=IDLE_EVENT, data=data)
        except Exception:
            self.log.exception("An event could not be told.")


def _readable(seconds: float) -> str:
    """A time for people, such as `30 min`."""
    if seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
