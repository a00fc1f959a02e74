"""What this process knows of the kernels that it started: what each asked for, what it got, and what was said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .leases.lease import Origin


class IdleMark(NamedTuple):
    """What is said of a kernel that holds GPU memory and has not computed for long."""

    since: float
    """Seconds since the epoch."""
    policy: str
    """What is done with such kernels: `mark`, `downgrade` or `shut-down`."""
    action_at: float | None
    """When that is going to be done, in seconds since the epoch; `None` where nothing is."""
    exempt: bool
    """Whether its owner wants it to be kept."""


@dataclass
class KernelRecord:
    """One kernel. The provisioner writes it, the server shows it."""

    kernel_id: str
    kernel_name: str
    label: str
    path: str | None
    """The notebook that it was started for."""
    state: str = "starting"
    """`starting`, `waiting`, `running`, or `problem` where it runs without the GPU that was asked for."""
    request: str = "cpu"
    origin: Origin | None = None
    lease_id: str | None = None
    waiting_id: str | None = None
    """The entry in the queue while it waits."""
    pid: int | None = None
    wanted: str | None = None
    """A request that was set through the API: it counts from the next start on, before any other."""
    prepared: str | None = None
    """A lease that was taken for the next start, before the kernel was stopped for it."""
    notices: list[str] = field(default_factory=list)
    layers: tuple[str, ...] = ()
    """The layers of limits that hold it."""
    keep_when_idle: bool | None = None
    """Whether it is exempt from the idle policy, as was said through the API; `None` if nothing was."""
    notebook_keeps: bool = False
    """What its notebook says of that."""
    idle: IdleMark | None = None

    @property
    def has_gpu(self) -> bool:
        """Whether it has a lease for more than the CPU."""
        return self.lease_id is not None and self.request != "cpu"

    @property
    def exempt(self) -> bool:
        """Whether the idle policy leaves it alone."""
        return self.notebook_keeps if self.keep_when_idle is None else self.keep_when_idle


class KernelRegister:
    """The kernels of this process. Read and written on its event loop only."""

    def __init__(self) -> None:
        self._records: dict[str, KernelRecord] = {}
        self._listeners: list[Callable[[KernelRecord, str], None]] = []

    def __iter__(self) -> Iterator[KernelRecord]:
        return iter(list(self._records.values()))

    def get(self, kernel_id: str) -> KernelRecord | None:
        """What is known of a kernel; `None` if it was not started here."""
        return self._records.get(kernel_id)

    def add(self, record: KernelRecord) -> None:
        """Note a kernel that is about to start."""
        self._records[record.kernel_id] = record

    def remove(self, kernel_id: str) -> None:
        """Forget a kernel that has ended."""
        record = self._records.pop(kernel_id, None)
        if record is not None:
            self.tell(record, "ended")

    def listen(self, listener: Callable[[KernelRecord, str], None]) -> None:
        """Call `listener(record, what)` with all that `tell` is told."""
        self._listeners.append(listener)

    def tell(self, record: KernelRecord, what: str) -> None:
        """Let the listeners know of a kernel.

        Args:
            record: which.
            what: it is `waiting`, was `granted` a lease, has `started` or `ended`, has another request met while it
                runs (`changed`), has a new `notice`, or is to be `kept` (or not) though idle.
        """
        for listener in self._listeners:
            listener(record, what)
