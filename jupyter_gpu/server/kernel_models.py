"""The kernels of a server as clients see them: what the server knows of each, and what a snapshot does."""

from __future__ import annotations

import time
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from jupyter_server.utils import ensure_async
from traitlets import TraitError

from .models import JSON, Snapshot, kernel_devices_model, kernel_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jupyter_server.serverapp import ServerApp

    from ..devices.device import Device
    from ..kernels import KernelRecord, KernelRegister

_SESSIONS_AGE_S = 2.0
"""So old may be what is told of sessions that are known: notebooks are seldom renamed. Listing them takes a while."""
_NOT_OURS = "This kernel was not started by the GPU provisioner."


class KernelModels:
    """Makes the models. To be used on the event loop only."""

    def __init__(
        self, serverapp: ServerApp, kernels: KernelRegister, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is read until it is needed.

        Args:
            serverapp: whose kernels and sessions they are.
            kernels: those that were started with a lease.
            clock: seconds.
        """
        self._serverapp = serverapp
        self._kernels = kernels
        self._clock = clock
        self._sessions: dict[str, JSON] = {}
        self._sessions_read_at = float("-inf")

    def is_known(self, kernel_id: str) -> bool:
        """Whether there is such a kernel on this server."""
        return kernel_id in self._serverapp.kernel_manager or self._kernels.get(kernel_id) is not None

    def ids(self) -> list[str]:
        """All kernels, those included that wait for a GPU to start on."""
        ids = dict.fromkeys(self._serverapp.kernel_manager.list_kernel_ids())
        ids.update(dict.fromkeys(record.kernel_id for record in self._kernels))
        return list(ids)

    async def refresh(self) -> None:
        """Bring what is known of sessions up to date, if it is old or a kernel is new."""
        known = self._sessions.keys()
        if self._clock() - self._sessions_read_at < _SESSIONS_AGE_S and all(each in known for each in self.ids()):
            return
        sessions = await ensure_async(self._serverapp.session_manager.list_sessions())
        self._sessions = {kernel_id: {} for kernel_id in self.ids()}
        self._sessions |= {session["kernel"]["id"]: session for session in sessions if session.get("kernel")}
        self._sessions_read_at = self._clock()

    def state(self) -> tuple[object, ...]:
        """What the models follow from besides the snapshot: as long as it is equal, so are they."""
        # Asked for by every client every second, for every kernel, so nothing is looked up twice.
        kernel_manager = self._serverapp.kernel_manager
        running = list(kernel_manager.list_kernel_ids())
        managers = [kernel_manager.get_kernel(kernel_id) for kernel_id in running]
        return (
            self._sessions_read_at,
            running,
            [(getattr(each, "execution_state", None), _last_activity(each)) for each in managers],
            [(*_FACTS(record), *record.notices) for record in self._kernels],
        )

    def model(self, kernel_id: str, snapshot: Snapshot, by_uuid: Mapping[str, Device]) -> JSON:
        """One kernel.

        Args:
            kernel_id: which.
            snapshot: what was seen.
            by_uuid: the devices of the snapshot.
        """
        record = self._kernels.get(kernel_id)
        lease = snapshot.lease_of.get(record.lease_id) if record and record.lease_id else None
        devices = kernel_devices_model(lease, snapshot, by_uuid)
        manager = self._manager(kernel_id)
        session = self._sessions.get(kernel_id)
        path = session["path"] if session else (record.path if record else None)
        since = idle_since(manager, record, snapshot)
        name = (record.kernel_name if record else None) or getattr(manager, "kernel_name", "")
        return {
            "kernel_id": kernel_id,
            "name": name,
            "label": (session and session["name"]) or (record.label if record else name),
            "path": path,
            "type": session["type"] if session else None,
            "execution_state": getattr(manager, "execution_state", None),
            "state": kernel_state(record, lease, snapshot),
            "lease_id": lease.id if lease else None,
            "request": record.request if record else None,
            "origin": record.origin.value if record and record.origin else None,
            "pending_request": record.wanted if record and record.wanted != record.request else None,
            "notices": list(record.notices) if record else [_NOT_OURS],
            "pid": record.pid if record else None,
            "idle_since": since,
            "idle": record.idle._asdict() if record and record.idle and since is not None else None,
            "layers": list(record.layers) if record else [],
            "devices": devices,
        }

    def table(self, snapshot: Snapshot) -> JSON:
        """All kernels as a table: the names of the columns once, and a row for each kernel.

        Sixty-four kernels with all names in each would be half as large again as what a client should get every second.
        So would the reasons why something is unknown, which are the same for most.
        """
        by_uuid = snapshot.survey.inventory.by_uuid()
        models = [self.model(kernel_id, snapshot, by_uuid) for kernel_id in self.ids()]
        places: dict[tuple[tuple[str, str], ...], int] = {}
        rows = []
        for model in models:
            *cells, devices = model.values()
            device_rows = []
            for device in devices:
                *device_cells, reasons = device.values()
                device_rows.append([*device_cells, places.setdefault(tuple(reasons.items()), len(places))])
            rows.append([*cells, device_rows])
        return {
            "time": snapshot.time,
            "stale": snapshot.stale,
            "columns": COLUMNS,
            "device_columns": DEVICE_COLUMNS,
            "reasons": [dict(reasons) for reasons in places],
            "rows": rows,
        }

    def _manager(self, kernel_id: str) -> Any:
        kernel_manager = self._serverapp.kernel_manager
        return kernel_manager.get_kernel(kernel_id) if kernel_id in kernel_manager else None


_FACTS = attrgetter(
    "kernel_id", "state", "request", "origin", "lease_id", "pid", "wanted", "layers", "label", "path", "idle"
)
"""What a kernel's model follows from in its record, besides the notices."""
COLUMNS = (
    "kernel_id", "name", "label", "path", "type", "execution_state", "state", "lease_id", "request", "origin",
    "pending_request", "notices", "pid", "idle_since", "idle", "layers", "devices",
)  # fmt: skip
"""A kernel's fields in the order of its model."""
DEVICE_COLUMNS = (
    "uuid", "index", "kind", "memory_bytes", "cap_bytes", "used_bytes", "peak_bytes", "peak_kind", "overhead_bytes",
    "utilization_percent", "source", "lost", "reasons",
)  # fmt: skip
"""The fields of what a kernel has of a device, in the order of that model."""


def last_word(manager: Any) -> Any:
    """When a kernel last said anything; `None` where that is not known.

    A kernel that died while its start was still being answered stays without, and jupyter_server's trait then raises.
    """
    try:
        return getattr(manager, "last_activity", None)
    except TraitError:
        return None


def _last_activity(manager: Any) -> Any:
    """When an idle kernel last said anything; `None` while it is not idle."""
    if getattr(manager, "execution_state", None) != "idle":
        return None
    return last_word(manager)


def idle_since(manager: Any, record: KernelRecord | None, snapshot: Snapshot) -> float | None:
    """Since when a kernel has done nothing, in seconds since the epoch; `None` while it does something.

    It is idle when it executes nothing and its processes keep no GPU busy, and has been since the later of the last
    message that it sent and the last sample that saw a GPU of its own busy. What it did on a GPU without executing
    anything, while nobody watched, is not known.
    """
    activity = _last_activity(manager)
    if activity is None:
        return None
    times = [activity.timestamp()]
    lease = snapshot.lease_of.get(record.lease_id) if record and record.lease_id else None
    for hold in lease.holds if lease else ():
        busy_at = snapshot.busy_at.get((lease.id, hold.uuid)) if lease else None
        if busy_at is not None:
            times.append(busy_at)
    latest = max(times)
    return None if latest >= snapshot.time and latest != times[0] else round(latest, 3)
