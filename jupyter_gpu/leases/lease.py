"""What a lease is: devices, memory on each, whose it is, since when, and how it is known to be alive."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..devices.processes import ProcessKey
    from .placement import LeaseHold


class LeaseState(str, Enum):
    """Where a lease stands."""

    WAITING = "waiting"
    HELD = "held"


class Origin(str, Enum):
    """Where a kernel's request came from. The first that applies counts, in this order."""

    API = "api"
    VARIANT = "variant"
    NOTEBOOK = "notebook"
    ENVIRONMENT = "environment"
    DEFAULT = "default"


@dataclass(frozen=True)
class Owner:
    """Who asks, for people and for finding the lease again."""

    kind: str
    """`kernel` or `command`."""
    label: str
    """A notebook's name, or a command."""
    kernel_id: str | None = None
    path: str | None = None
    """The notebook that the kernel was started for."""


@dataclass(frozen=True)
class Ask:
    """A request with all that the ledger needs to decide on it. Asking again with the same id keeps the place."""

    id: str
    """Becomes the lease's id."""
    request: str
    origin: Origin
    owner: Owner
    asker: ProcessKey
    """The process that answers for the lease until it has a process of its own, and for its restarts."""
    succeeds: str | None = None
    """A lease that ends once this one has begun: its holds do not stand in the way."""
    wait: bool = True


@dataclass(frozen=True)
class Lease:
    """What a kernel or a command holds, or waits for."""

    id: str
    ticket: int
    """Counts up in order of arrival."""
    state: LeaseState
    request: str
    origin: Origin
    owner: Owner
    asker: ProcessKey
    process: ProcessKey | None
    """The kernel or command itself, once it has been started."""
    holds: tuple[LeaseHold, ...]
    created: float
    """Seconds since the epoch, by the clock of the time."""
    granted: float | None
    succeeds: str | None = None
    message: str = ""
    """What it waits for, as the end of a sentence."""


@dataclass(frozen=True)
class Refusal:
    """A request that was not granted, and is not waiting."""

    message: str
    """What it would have had to wait for, as the end of a sentence."""
