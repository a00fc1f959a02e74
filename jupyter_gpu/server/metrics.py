"""Gauges of devices and kernels on the server's own `/metrics`, for Prometheus and what reads its format.

They are read from the sampler's last snapshot when they are asked for, so that nobody waits for a driver. The labels
are UUIDs and kernel ids alone: names of notebooks and users belong into no database that others can read. What is
unknown has no sample.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily
from traitlets import Bool, Float, Instance
from traitlets.config import LoggingConfigurable

from ..host import GPUHost
from ..usage.attribution import LeaseUse
from ..usage.marks import NO_MARK
from ..usage.sampler import GPUSampler, Need
from .models import device_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..devices.device import Device
    from ..kernels import KernelRecord
    from ..usage.snapshot import Snapshot

_DEVICE_LABELS = ("device_uuid",)
_KERNEL_LABELS = ("kernel_id", "device_uuid")

SERVER_GAUGES = {
    "jupyter_gpu_sample_age_seconds": "Seconds since the GPUs were last looked at.",
    "jupyter_gpu_problems": "What keeps GPUs from being seen or used; `jupyter gpu doctor` names it.",
    "jupyter_gpu_devices": "GPUs and MIG instances that kernels can run on.",
    "jupyter_gpu_kernels": "Kernels of this server that hold a GPU.",
    "jupyter_gpu_waiting_requests": "Requests for GPUs that wait, of all servers of this user on this host.",
}
DEVICE_GAUGES = {
    "jupyter_gpu_device_memory_size_bytes": "Memory that programs can have.",
    "jupyter_gpu_device_memory_used_bytes": "Memory in use, by whomever.",
    "jupyter_gpu_device_memory_reserved_bytes": "Memory that leases have reserved.",
    "jupyter_gpu_device_memory_available_bytes": "The largest reservation that could be had.",
    "jupyter_gpu_device_memory_foreign_bytes": "Memory in use by processes that no lease covers.",
    "jupyter_gpu_device_utilization_ratio": "Part of the time in which the GPU computed, 0 to 1.",
    "jupyter_gpu_device_temperature_celsius": "Temperature.",
    "jupyter_gpu_device_power_watts": "Power drawn.",
    "jupyter_gpu_device_power_limit_watts": "The most power that it may draw.",
    "jupyter_gpu_device_leases": "Leases on the GPU, of all servers and commands of this user on this host.",
    "jupyter_gpu_device_lost": "1 if the GPU does not answer any more.",
}
KERNEL_GAUGES = {
    "jupyter_gpu_kernel_memory_used_bytes": "Memory in use by the kernel's process tree.",
    "jupyter_gpu_kernel_memory_cap_bytes": "The most memory that it may have.",
    "jupyter_gpu_kernel_memory_reserved_bytes": "Memory that is reserved for it; none where it shares.",
    "jupyter_gpu_kernel_memory_peak_bytes": "The most memory that it had since its process was started.",
    "jupyter_gpu_kernel_utilization_ratio": "Part of the time in which it kept the GPU busy, 0 to 1.",
    "jupyter_gpu_kernel_idle": "1 if it holds memory and has not computed for long, as GPUIdlePolicy.after_s says.",
}
_LABELS = {
    **dict.fromkeys(SERVER_GAUGES, ()),
    **dict.fromkeys(DEVICE_GAUGES, _DEVICE_LABELS),
    **dict.fromkeys(KERNEL_GAUGES, _KERNEL_LABELS),
}


class Sample(NamedTuple):
    """One number of one gauge."""

    name: str
    labels: tuple[str, ...]
    value: float


class GPUMetrics(LoggingConfigurable):
    """The gauges of one server, from `start` to `stop`."""

    enabled = Bool(
        True,
        help="""Tell what the GPUs and their kernels do on the server's `/metrics`, which asks for the server's token
        as long as ServerApp.authenticate_prometheus is true.""",
    ).tag(config=True)

    scraped_for_s = Float(
        180.0,
        min=1.0,
        help="""How long after `/metrics` was asked for, in seconds, samples are taken, at
        GPUSampler.policy_interval_s. Make it longer than the interval at which it is asked for.""",
    ).tag(config=True)

    oldest_s = Float(
        60.0,
        min=1.0,
        help="""Figures older than this many seconds are not told: after a long time without a question the first
        answer is the age of the last sample, and the driver may have stopped to answer.""",
    ).tag(config=True)

    host = Instance(GPUHost)
    sampler = Instance(GPUSampler)
    registry: Any = REGISTRY
    """What the server's `/metrics` shows: there is one in a process."""

    _in_force: list[GPUMetrics] = []  # noqa: RUF012 - shared by all, as the registry is
    """Those that have been started, and not stopped; the last of them is registered. Two servers in one process share
    its GPUs and kernels, and would tell everything twice."""
    _loop: asyncio.AbstractEventLoop | None = None
    _need: Need | None = None
    _resting: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Be asked from now on; to be called on the event loop."""
        if not self.enabled:
            return
        self._loop = asyncio.get_running_loop()
        self._register([*self._in_force, self])

    def stop(self) -> None:
        """Be asked no more."""
        self._register([each for each in self._in_force if each is not self])
        self._rest()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The gauges without samples."""
        return self._families([])

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges now. Never blocks. Whoever asks is taken to ask again."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._stay_awake)
        return self._families(self._samples())

    def _register(self, in_force: list[GPUMetrics]) -> None:
        before, after = self._in_force[-1:], in_force[-1:]
        self._in_force[:] = in_force
        if before == after:
            return
        for each in before:
            self.registry.unregister(each)
        for each in after:
            try:
                self.registry.register(each)
            except ValueError as error:
                self.log.warning("The GPUs are not on /metrics: %s", error)
                self._in_force.remove(each)

    def _stay_awake(self) -> None:
        """Have samples taken until nobody has asked for a while."""
        if self._loop is None or self not in self._in_force:
            return
        if self._resting is not None:
            self._resting.cancel()
        self._resting = self._loop.call_later(self.scraped_for_s, self._rest)
        if self._need is None:
            self._need = self.sampler.need()

    def _rest(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
        if self._need is not None:
            self._need.close()
        self._resting = self._need = None

    def _samples(self) -> Iterator[Sample]:
        snapshot, age_s = self.sampler.last, self.sampler.age_s
        records = list(self.host.kernels)
        held = sum(record.has_gpu for record in records)
        yield Sample("jupyter_gpu_kernels", (), held)
        if snapshot is None or age_s is None:
            return
        yield Sample("jupyter_gpu_sample_age_seconds", (), age_s)
        if age_s > self.oldest_s:
            return
        inventory = snapshot.survey.inventory
        yield Sample("jupyter_gpu_problems", (), len(inventory.problems))
        yield Sample("jupyter_gpu_devices", (), len(inventory.leasable))
        yield Sample("jupyter_gpu_waiting_requests", (), len(snapshot.waiting))
        for device in inventory.devices:
            yield from _known(_of_device(device, snapshot), (device.uuid,))
        for record in records:
            yield from _of_kernel(record, snapshot)

    @staticmethod
    def _families(samples: Iterable[Sample]) -> Iterable[GaugeMetricFamily]:
        texts = {**SERVER_GAUGES, **DEVICE_GAUGES, **KERNEL_GAUGES}
        families = {name: GaugeMetricFamily(name, text, labels=_LABELS[name]) for name, text in texts.items()}
        for name, labels, value in samples:
            families[name].add_metric(labels, value)
        return families.values()


def _of_device(device: Device, snapshot: Snapshot) -> dict[str, float | None]:
    usage, state = snapshot.survey.usage.get(device.uuid), snapshot.states[device.uuid]
    holds = snapshot.holdings.get(device.uuid)
    return {
        "jupyter_gpu_device_memory_size_bytes": device.memory_bytes,
        "jupyter_gpu_device_memory_used_bytes": device_memory(usage)[0],
        "jupyter_gpu_device_memory_reserved_bytes": state.reserved_bytes,
        "jupyter_gpu_device_memory_available_bytes": state.available_bytes,
        "jupyter_gpu_device_memory_foreign_bytes": state.foreign_bytes,
        "jupyter_gpu_device_utilization_ratio": _ratio(usage.utilization_percent if usage else None),
        "jupyter_gpu_device_temperature_celsius": usage.temperature_celsius if usage else None,
        "jupyter_gpu_device_power_watts": usage.power_watts if usage else None,
        "jupyter_gpu_device_power_limit_watts": usage.power_limit_watts if usage else None,
        "jupyter_gpu_device_leases": len(holds.by_lease) if holds else 0,
        "jupyter_gpu_device_lost": snapshot.is_lost(device.uuid),
    }


def _of_kernel(record: KernelRecord, snapshot: Snapshot) -> Iterator[Sample]:
    """What the lease that a kernel has now uses; one that it is moving from or to is not told."""
    lease = snapshot.lease_of.get(record.lease_id or "")
    for hold in lease.holds if lease else ():
        assert lease is not None
        key = (lease.id, hold.uuid)
        use = snapshot.uses.get(key, LeaseUse())
        figures = {
            "jupyter_gpu_kernel_memory_used_bytes": use.used_bytes,
            "jupyter_gpu_kernel_memory_cap_bytes": snapshot.caps.get(key),
            "jupyter_gpu_kernel_memory_reserved_bytes": hold.bytes,
            "jupyter_gpu_kernel_memory_peak_bytes": snapshot.marks.get(key, NO_MARK).peak_bytes,
            "jupyter_gpu_kernel_utilization_ratio": _ratio(use.utilization_percent),
            "jupyter_gpu_kernel_idle": record.idle is not None,
        }
        yield from _known(figures, (record.kernel_id, hold.uuid))


def _known(figures: Mapping[str, float | None], labels: tuple[str, ...]) -> Iterator[Sample]:
    return (Sample(name, labels, float(value)) for name, value in figures.items() if value is not None)


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 4)
