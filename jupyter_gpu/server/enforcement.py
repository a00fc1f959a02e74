"""Acting on kernels that hold more device memory than their cap, as configured: warn, interrupt, or end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from jupyter_server.utils import ensure_async
from traitlets import Enum, Float, Instance, Integer
from traitlets.config import LoggingConfigurable

from ..devices.amount import readable_amount
from ..host import GPUHost
from ..limits.overhead import NO_OVERHEAD
from ..limits.watchdog import Excess, Reading, Watchdog
from ..usage.attribution import DRIVERS_OWN_BYTES, NVML
from ..usage.sampler import GPUSampler
from .capped import CappedKernels

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_server.serverapp import ServerApp

    from ..kernels import KernelRecord
    from ..usage.snapshot import Snapshot
    from .overhead import GPUOverhead


class GPUWatchdog(LoggingConfigurable):
    """Looks at every sample, and has some taken while a kernel of this server has a cap to be held to.

    It acts on kernels of this server only. Foreign processes, other servers' kernels and commands are never touched.
    """

    action = Enum(
        ("off", "warn", "interrupt", "end"),
        "warn",
        help="""What to do with a kernel that holds more device memory than its cap although every other layer of
        limits should keep it from that: nothing, tell its owner, interrupt what it runs, or end it.""",
    ).tag(config=True)

    margin_bytes = Integer(
        DRIVERS_OWN_BYTES,
        min=0,
        help="""How far above its cap a kernel may be, in bytes, before anything is done. The driver's own contexts are
        not counted by the cap: allow some hundred MiB for each process.""",
    ).tag(config=True)

    grace_s = Float(10.0, min=0.0, help="How long it has to be there, in seconds, before anything is done.").tag(
        config=True
    )

    interval_s = Float(
        10.0, min=1.0, help="How often to look while nobody watches and a kernel has a cap, in seconds."
    ).tag(config=True)

    host = Instance(GPUHost)
    sampler = Instance(GPUSampler)

    def __init__(
        self,
        serverapp: ServerApp,
        *,
        overhead: GPUOverhead | None = None,
        clock: Callable[[], float] = time.monotonic,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._serverapp = serverapp
        self._overhead = overhead
        self._clock = clock
        self._watchdog = Watchdog(self.margin_bytes, self.grace_s)
        self._capped = CappedKernels(self.host.kernels, self.sampler, self.interval_s)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def reason(self) -> str | None:
        """Why it does not watch; `None` if it does."""
        if self.action == "off":
            return "GPUWatchdog.action is off"
        if self.host.simulated:
            return "simulated devices keep their caps themselves"
        return None

    def start(self) -> None:
        """Begin to watch; to be called on the event loop."""
        if self.reason is not None:
            return
        self.sampler.listen_on_loop(self.look)
        self._capped.watch()

    def stop(self) -> None:
        """Watch no more."""
        self._capped.close()
        for task in self._tasks:
            task.cancel()

    def look(self, snapshot: Snapshot) -> None:
        """Act on whoever has been above their cap for too long."""
        if snapshot.stale is not None:
            return
        readings = []
        for lease in snapshot.held:
            if lease.owner.kernel_id is None or not snapshot.is_mine(lease):
                continue
            for hold in lease.holds:
                key = (lease.id, hold.uuid)
                use, cap = snapshot.uses.get(key), snapshot.caps.get(key)
                # Only the driver's own word counts: an account would not know of what went past it.
                if use is not None and use.source == NVML and use.used_bytes is not None and cap is not None:
                    # What was taken off the cap is within it; only what could not be comes on top.
                    own = self._overhead.overhead(*key) if self._overhead else NO_OVERHEAD
                    extra_bytes = own.measured_bytes - own.noted_bytes
                    readings.append(Reading(lease.id, hold.uuid, use.used_bytes, cap, extra_bytes))
        for excess in self._watchdog.look(self._clock(), readings):
            lease = snapshot.lease_of[excess.reading.lease_id]
            record = self.host.kernels.get(lease.owner.kernel_id or "")
            if record is not None:
                task = asyncio.get_running_loop().create_task(self._act(record, excess, snapshot))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _act(self, record: KernelRecord, excess: Excess, snapshot: Snapshot) -> None:
        reading = excess.reading
        device = snapshot.survey.inventory.by_uuid().get(reading.uuid)
        done = {
            "warn": "Free some, or ask for a larger cap.",
            "interrupt": "What it ran was interrupted.",
            "end": "It was shut down.",
        }[self.action]
        notice = (
            f"{record.label} holds {readable_amount(reading.used_bytes)} of GPU {device.index if device else '?'}, "
            f"and its cap is {readable_amount(reading.cap_bytes)}. {done}"
        )
        self.log.warning("%s", notice)
        record.notices.append(notice)
        self.host.kernels.tell(record, "notice")
        kernels: Any = self._serverapp.kernel_manager
        try:
            if self.action == "interrupt":
                await ensure_async(kernels.interrupt_kernel(record.kernel_id))
            elif self.action == "end":
                await ensure_async(kernels.shutdown_kernel(record.kernel_id, now=True))
        except Exception as error:  # noqa: BLE001 - it may have ended by itself meanwhile
            self.log.warning("%s could not be dealt with: %s", record.label, error)
