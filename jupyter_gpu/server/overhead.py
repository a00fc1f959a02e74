"""Taking off a kernel's cap what the driver took for itself, so that the cap is about what the driver's tools show."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Float, Instance, Integer
from traitlets.config import LoggingConfigurable

from ..host import GPUHost
from ..limits.account import Account, AccountError
from ..limits.overhead import Overhead, OverheadMeter, Sample
from ..usage.sampler import GPUSampler
from .capped import CappedKernels

if TYPE_CHECKING:
    from ..leases.lease import Lease
    from ..leases.survey import Survey
    from ..usage.snapshot import Snapshot


class GPUOverhead(LoggingConfigurable):
    """Looks at every sample, and has some taken while a kernel of this server has a cap of its own.

    It writes into the accounts of this server's kernels only, and only where all that the driver shows of a kernel's
    processes on a GPU has a place in its account.
    """

    enabled = Bool(
        True,
        help="""Take off a kernel's cap what the driver took for itself in its processes (contexts, modules), once it
        has been measured. If false, the driver's own tools show a kernel that is at its cap above it by that.""",
    ).tag(config=True)

    most_per_process_bytes = Integer(
        1 << 30, min=0, help="How much of what one process has counts as the driver's own at most, in bytes."
    ).tag(config=True)

    interval_s = Float(
        10.0, min=1.0, help="How often to look while nobody watches and a kernel has a cap, in seconds."
    ).tag(config=True)

    host = Instance(GPUHost)
    sampler = Instance(GPUSampler)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._meter = OverheadMeter(self.most_per_process_bytes)
        self._lock = threading.Lock()
        self._seen: Survey | None = None
        self._capped = CappedKernels(self.host.kernels, self.sampler, self.interval_s)

    @property
    def is_active(self) -> bool:
        """Whether it measures anything. Simulated devices have no driver that takes memory for itself."""
        return self.enabled and not self.host.simulated

    def start(self) -> None:
        """Begin to measure."""
        if self.is_active:
            self.sampler.listen(self.look)
            self._capped.watch()

    def stop(self) -> None:
        """Measure no more."""
        self._capped.close()

    def overhead(self, lease_id: str, uuid: str) -> Overhead:
        """What the driver took for itself in a lease's processes on a device, as far as it is known."""
        return self._meter.overhead(lease_id, uuid)

    def look(self, snapshot: Snapshot) -> None:
        """Note in the accounts what follows from a sample. Blocks on small local files, so not for the event loop."""
        with self._lock:
            # The same look at the devices with the accounts of later says nothing.
            if snapshot.stale is not None or snapshot.survey is self._seen:
                return
            self._seen = snapshot.survey
            samples = [
                sample
                for lease in snapshot.held
                if lease.owner.kernel_id is not None and snapshot.is_mine(lease)
                for sample in _samples(lease, snapshot)
            ]
            for sample, overhead_bytes in self._meter.look(samples):
                # It has ended meanwhile, or its account was damaged: nothing is left to lower the cap of.
                path = self.host.accounts.path(sample.lease_id)
                with contextlib.suppress(AccountError), Account.open(path) as account:
                    account.set_overhead(sample.uuid, overhead_bytes)


def _samples(lease: Lease, snapshot: Snapshot) -> list[Sample]:
    account = snapshot.accounts.get(lease.id)
    if account is None:
        return []
    found = []
    for hold in lease.holds:
        device, there = account.devices.get(hold.uuid), snapshot.seen.get(hold.uuid)
        usage = snapshot.survey.usage.get(hold.uuid)
        if device is None or there is None or usage is None or usage.lost or usage.processes is None:
            continue
        own = there.own.get(lease.id) or ()
        processes = {process.lineage[0] for process in own if process.lineage}
        sizes = [process.memory_bytes for process in own if process.lineage and process.memory_bytes is not None]
        all_count = len(sizes) == len(own) and processes <= account.processes
        found.append(
            Sample(
                lease.id,
                hold.uuid,
                seen_bytes=sum(sizes) if all_count else None,
                processes=frozenset(processes),
                counted_bytes=device.used,
                peak_bytes=device.peak,
                cap_bytes=device.cap,
                noted_bytes=device.overhead,
            )
        )
    return found
