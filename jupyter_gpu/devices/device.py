"""What a GPU is to the rest of jupyter_gpu, and what a source of GPUs must provide.

Every value here is plain and frozen, so that it can cross threads. Memory is in bytes, temperature in degrees
Celsius, power in watts, utilisation in percent of the sampling window. Unknown is `None`, and the reason stands
in `reasons` under the name of the field.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from traitlets.config import LoggingConfigurable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LEAST_CONTEXT_BYTES = 128 << 20
"""A process that computes takes more than this by the driver's context alone; a GPU without one has less in use."""


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU, or one MIG instance. Its identity is its UUID; the index is for people."""

    uuid: str
    """`GPU-…` or `MIG-…`, always in full."""
    index: str
    """NVML's index (PCI bus order) such as `"0"`, or `"0.2"` for MIG instance 2 of GPU 0."""
    name: str
    """The product's name, for a MIG instance followed by its profile."""
    memory_bytes: int | None
    """The memory that programs can have, as CUDA counts it: less than `nvidia-smi` shows by what the driver keeps for
    itself. `None` where the driver does not tell (unified memory)."""
    pci_address: str | None = None
    compute_capability: tuple[int, int] | None = None
    parent_uuid: str | None = None
    """The GPU that a MIG instance is part of; `None` for a GPU."""
    mig_enabled: bool = False
    """True for a GPU that is divided into MIG instances: it is listed, but only its instances can be leased."""
    simulated: bool = False

    @property
    def leasable(self) -> bool:
        """Whether a kernel can run on it."""
        return not self.mig_enabled

    @property
    def is_mig(self) -> bool:
        """Whether it is a MIG instance."""
        return self.parent_uuid is not None


class DeviceProcess(NamedTuple):
    """One process on one device, as the driver reports it. The pid is the host's."""

    pid: int
    memory_bytes: int | None
    utilization_percent: float | None = None
    lease_id: str | None = None
    """Known without looking only where the device's own book-keeping says so (simulated devices)."""


@dataclass(frozen=True, slots=True)
class DeviceUsage:
    """What one device does now."""

    uuid: str
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    """What the driver keeps for itself, in neither of the two above; nobody can ever have it."""
    utilization_percent: float | None = None
    memory_utilization_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    processes: tuple[DeviceProcess, ...] | None = None
    lost: bool = False
    """True where the device fell off the bus or otherwise stopped answering."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a field is `None`, by the field's name."""

    @property
    def hides_processes(self) -> bool:
        """Whether the list of processes is empty though one must be there, as in WSL and in some sandboxes."""
        return self.processes == () and (self.memory_used_bytes or 0) > _LEAST_CONTEXT_BYTES


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that keeps devices from being seen or used, for people."""

    code: str
    """Stable, for programs: `driver-missing`, `driver-mismatch`, `no-permission`, `device-lost`, `no-devices`, …"""
    message: str
    """What is the case, one sentence."""
    advice: str
    """What to do about it, one sentence."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The devices there are, and what stands in the way of seeing more."""

    devices: tuple[Device, ...] = ()
    problems: tuple[Problem, ...] = ()
    driver_version: str | None = None
    cuda_version: str | None = None

    @property
    def leasable(self) -> tuple[Device, ...]:
        """The devices a kernel can run on, in index order."""
        return tuple(d for d in self.devices if d.leasable)

    def by_uuid(self) -> dict[str, Device]:
        """All devices by full UUID."""
        return {d.uuid: d for d in self.devices}


class DeviceBackend(LoggingConfigurable):
    """A source of devices.

    Any method may block for as long as a driver takes: call them from a worker thread, never from an event loop.
    They may be called from several threads. None of them raises for what a driver does: a failure becomes a
    `Problem`, or a `None` with a reason, and the next call tries again.
    """

    simulated: bool = False

    @abstractmethod
    def inventory(self) -> Inventory:
        """The devices now, in index order, each GPU followed by its MIG instances."""

    @abstractmethod
    def usage(self, uuids: Sequence[str] | None = None) -> dict[str, DeviceUsage]:
        """What the named devices (default: all) do now, by UUID. A UUID that is not there is left out."""

    def close(self) -> None:
        """Let go of the driver. The next call takes it up again."""
