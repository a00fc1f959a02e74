"""What happens to kernels and their GPUs, told to whoever listens to the server's events (`/api/events/subscribe`)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_events import EventLogger
from traitlets import Bool, Float, Instance
from traitlets.config import LoggingConfigurable

from ..devices.amount import readable_amount
from ..host import GPUHost
from ..usage.sampler import GPUSampler, Need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..devices.processes import ProcessKey
    from ..kernels import KernelRecord
    from ..leases.lease import Lease, Owner
    from ..leases.placement import LeaseHold
    from ..usage.snapshot import Snapshot

MEMORY_EVENT = "https://schema.jupyter.org/jupyter_gpu/memory/v1"
LEASE_EVENT = "https://schema.jupyter.org/jupyter_gpu/lease/v1"

_SCHEMAS = Path(__file__).parent / "events"
_FINE, _NEAR, _OVER = range(3)
_REARM = 0.05
"""The part of its cap by which a kernel has to fall below what it was told of before it is told of it again."""
_GONE_FOR_S = 2.0
"""So long a lease has to be gone while its kernel runs: a kernel that ends gives its lease back a moment earlier."""


class GPUEvents(LoggingConfigurable):
    """Watches the kernels of this server and the samples. Lives on the event loop, and emits from there."""

    near_cap = Float(
        0.9,
        min=0.0,
        max=1.0,
        help="A kernel nears its cap when it uses this part of it.",
    ).tag(config=True)

    sample_unwatched = Bool(
        False,
        help="""Look at the devices for these events though no client watches them, at GPUSampler.policy_interval_s. If
        false, what memory kernels use is noticed while somebody watches, and all else at any time.""",
    ).tag(config=True)

    host = Instance(GPUHost)
    sampler = Instance(GPUSampler)
    event_logger = Instance(EventLogger)

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._clock = clock
        self._levels: dict[tuple[str, str], _Level] = {}
        self._lost: set[tuple[str, str]] = set()
        self._seen_leases: dict[str, str] = {}
        """The lease that each kernel was seen with last."""
        self._missing_since: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._need: Need | None = None
        for schema in sorted(_SCHEMAS.glob("*.yaml")):
            self.event_logger.register_event_schema(schema)

    def start(self) -> None:
        """Begin to listen; to be called on the event loop."""
        self.host.kernels.listen(self._on_kernel)
        self.sampler.listen_on_loop(self._on_snapshot)
        if self.sample_unwatched:
            self._need = self.sampler.need()

    def stop(self) -> None:
        """Need no more samples, and forget what is still to be told."""
        if self._need is not None:
            self._need.close()
        for task in self._tasks:
            task.cancel()

    def _on_kernel(self, record: KernelRecord, what: str) -> None:
        lease_id = {"waiting": record.waiting_id, "granted": record.lease_id}.get(what)
        if lease_id is not None:
            task = asyncio.get_running_loop().create_task(self._tell_of_lease(record, what, lease_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _tell_of_lease(self, record: KernelRecord, what: str, lease_id: str) -> None:
        """Tell that a kernel waits or got what it waited for, with what the ledger has to say of it."""
        try:
            lease = await self.host.lease(lease_id)
        except Exception as error:  # noqa: BLE001 - an event is no reason to fail
            self.log.debug("A lease could not be looked up for an event: %s", error)
            return
        if lease is None:
            return
        devices = [self._device(hold.uuid) for hold in lease.holds]
        message = f"{record.label} {lease.message}." if what == "waiting" else f"{record.label} has {_named(devices)}."
        who = _who(record.kernel_id, lease.owner)
        self._emit(LEASE_EVENT, {"event": what, **who, "lease_id": lease_id, "devices": devices, "message": message})

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        mine = [lease for lease in snapshot.held if lease.owner.kernel_id is not None and snapshot.is_mine(lease)]
        for lease in mine:
            for hold in lease.holds:
                self._check_memory(lease, hold, snapshot)
                self._check_device(lease, hold, snapshot)
        current = {(lease.id, hold.uuid) for lease in mine for hold in lease.holds}
        self._levels = {key: level for key, level in self._levels.items() if key in current}
        self._lost &= current
        self._check_leases(snapshot)

    def _check_memory(self, lease: Lease, hold: LeaseHold, snapshot: Snapshot) -> None:
        key = (lease.id, hold.uuid)
        use, cap = snapshot.uses.get(key), snapshot.caps.get(key)
        if use is None or use.used_bytes is None or not cap:
            return
        level = self._levels.get(key)
        if level is None or level.process != lease.process:
            level = self._levels[key] = _Level(lease.process)
        if level.rises_to(use.used_bytes / cap, self.near_cap, passed=use.passes(cap)):
            passed = level.level == _OVER
            device = self._device(hold.uuid)
            stands = "is over" if passed else "nears"
            amounts = f"it uses {readable_amount(use.used_bytes)} of {readable_amount(cap)}"
            self._emit(
                MEMORY_EVENT,
                {
                    "event": "over-cap" if passed else "near-cap",
                    **_who(lease.owner.kernel_id, lease.owner),
                    "device": device,
                    "used_bytes": use.used_bytes,
                    "cap_bytes": cap,
                    "message": f"{lease.owner.label} {stands} its cap on {_named([device])}: {amounts}.",
                },
            )

    def _check_device(self, lease: Lease, hold: LeaseHold, snapshot: Snapshot) -> None:
        key = (lease.id, hold.uuid)
        if not snapshot.is_lost(hold.uuid):
            self._lost.discard(key)
        elif key not in self._lost:
            self._lost.add(key)
            device = self._device(hold.uuid)
            message = f"{lease.owner.label} has lost {_named([device])}: it does not answer any more."
            who = _who(lease.owner.kernel_id, lease.owner)
            self._emit(
                LEASE_EVENT,
                {"event": "gpu-lost", **who, "lease_id": lease.id, "devices": [device], "message": message},
            )

    def _check_leases(self, snapshot: Snapshot) -> None:
        """Tell of kernels that run on though their leases have ended."""
        now = self._clock()
        for record in self.host.kernels:
            kernel_id, lease_id = record.kernel_id, record.lease_id
            if lease_id is not None and lease_id in snapshot.lease_of:
                self._seen_leases[kernel_id] = lease_id
            if lease_id is None or lease_id in snapshot.lease_of or self._seen_leases.get(kernel_id) != lease_id:
                self._missing_since.pop(kernel_id, None)
            elif now - self._missing_since.setdefault(kernel_id, now) >= _GONE_FOR_S:
                del self._missing_since[kernel_id], self._seen_leases[kernel_id]
                message = (
                    f"{record.label} has lost its lease: its GPU may be given to others. Restart it to get another."
                )
                record.notices.append(message)
                self.host.kernels.tell(record, "notice")
                self._emit(
                    LEASE_EVENT,
                    {
                        "event": "lease-lost",
                        **_who(kernel_id, record),
                        "lease_id": lease_id,
                        "devices": [],
                        "message": message,
                    },
                )
        known = {record.kernel_id for record in self.host.kernels}
        for remembered in (self._seen_leases, self._missing_since):
            for kernel_id in remembered.keys() - known:
                remembered.pop(kernel_id, None)

    def _device(self, uuid: str) -> dict[str, str | None]:
        inventory = self.host.inventory
        device = inventory.by_uuid().get(uuid) if inventory else None
        return {"uuid": uuid, "index": device.index if device else None}

    def _emit(self, schema_id: str, data: dict[str, Any]) -> None:
        try:
            self.event_logger.emit(schema_id=schema_id, data=data)
        except Exception:
            self.log.exception("An event could not be told.")


@dataclass
class _Level:
    """How near to its cap a kernel was told to be."""

    process: ProcessKey | None
    level: int = _FINE

    def rises_to(self, part: float, near: float, *, passed: bool) -> bool:
        """Note the part of its cap that it uses now, and whether it has passed it; whether that is to be told."""
        thresholds = {_NEAR: near, _OVER: 1.0}
        while self.level != _FINE and part < thresholds[self.level] - _REARM:
            self.level -= 1
        level = _OVER if passed else _NEAR if part >= near else _FINE
        rises = level > self.level
        self.level = max(level, self.level)
        return rises


def _who(kernel_id: str | None, owner: Owner | KernelRecord) -> dict[str, str | None]:
    return {"kernel_id": kernel_id, "label": owner.label, "path": owner.path}


def _named(devices: Iterable[dict[str, str | None]]) -> str:
    names = [f"GPU {device['index'] or device['uuid']}" for device in devices]
    return " and ".join(names) or "no GPU"
