"""Whose memory and utilisation it is that was seen on the devices. Pure.

A process belongs to the lease whose process it descends from, and else to the lease in its environment
(`leases/kinship.py`); all others are foreign. Who says what a lease uses of a device, the first that can:

- `account`: simulated devices, whose accounts are all there is to know; and wherever an account counts more than the
  driver shows, or the driver shows nothing for single processes. It leaves out what the driver takes for itself.
- `nvml`: the driver's figure for each process of the lease, added up.
- `device`: all that is in use on the device, where only this lease's processes are on it. That is the case of MIG
  instances and of Windows' driver model, under which the driver gives no figure for single processes.

Where none can, the figure is unknown, with a reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .accounts import NO_ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..devices.device import DeviceUsage
    from ..leases.survey import OnDevice, SeenProcess, Survey
    from ..limits.account_file import AccountDevice
    from .accounts import LeaseAccount

ACCOUNT, NVML, DEVICE = "account", "nvml", "device"
DRIVERS_OWN_BYTES = 1 << 30
"""So far above its cap a lease may be by the driver's figures without anybody having passed it."""

_HIDDEN_REASON = (
    "The driver's processes on this GPU cannot be found here, as in a container that has its own pids; start it with "
    "the host's pids (--pid=host) for figures per kernel."
)
_EMPTY_LIST_REASON = (
    "The driver lists no process on this GPU although its memory is in use, as in WSL and in some sandboxes."
)
_NO_LIST_REASON = "The driver does not tell which processes are on this GPU."
_NO_MEMORY_REASON = "The driver does not tell the memory of single processes on this GPU, and several share it."
_NO_UTILIZATION_REASON = "The driver does not tell the utilisation of single processes on this GPU."
_NOT_SEEN_REASON = "The driver does not show this GPU now."


class LeaseUse(NamedTuple):
    """What the processes of one lease use of one device."""

    used_bytes: int | None = None
    source: str | None = None
    """Who says what is used: `account`, `nvml` or `device`."""
    utilization_percent: float | None = None
    account: AccountDevice | None = None
    """What the lease's account says of the device."""
    counted: bool = False
    """Whether the account counts what is allocated: the device is simulated, or a cap is held to in some process."""
    reasons: Mapping[str, str] = {}
    """Why a field is `None`, by the field's name."""

    def passes(self, cap_bytes: int | None) -> bool:
        """Whether it is more than the cap, apart from what the driver takes for itself in every process.

        What the account counts is known to the byte. The driver's figures have its own contexts and modules in them,
        and nobody is above a cap because of those.
        """
        if self.used_bytes is None or cap_bytes is None:
            return False
        if self.counted and self.account is not None and self.account.used + self.account.overhead > cap_bytes:
            return True
        return self.source != ACCOUNT and self.used_bytes > cap_bytes + DRIVERS_OWN_BYTES


NO_REASONS: Mapping[str, str] = {}


def attribute(
    survey: Survey,
    seen: Mapping[str, OnDevice],
    holds: Sequence[tuple[str, str]],
    accounts: Mapping[str, LeaseAccount],
    *,
    exact: bool,
) -> dict[tuple[str, str], LeaseUse]:
    """What each lease uses of its devices, by lease id and UUID.

    Args:
        survey: what was seen.
        seen: the processes on each device, by whose they are.
        holds: the lease id and the UUID of every device that a lease holds.
        accounts: what their accounts say, by lease id.
        exact: whether the accounts are all there is to know, as with simulated devices.
    """
    uses = {}
    for key in holds:
        lease_id, uuid = key
        reading = accounts.get(lease_id, NO_ACCOUNT)
        account = reading.devices.get(uuid)
        there = seen.get(uuid)
        own = there.own.get(lease_id) if there is not None else None
        # Most have one process, with all that there is to know of it: this is done for each, every second.
        if own is not None and len(own) == 1 and not reading.counts and not exact:
            _, _, memory, utilization, _, _ = own[0]
            if memory is not None and utilization is not None:
                uses[key] = LeaseUse(memory, NVML, utilization, account, False, NO_REASONS)
                continue
        question = _Question(survey.usage.get(uuid), there, own or ())
        uses[key] = question.answer(account if exact or reading.counts else None, account, exact=exact)
    return uses


class _Question:
    """What one lease uses of one device, where that takes a thought."""

    def __init__(self, usage: DeviceUsage | None, there: OnDevice | None, own: Sequence[SeenProcess]) -> None:
        self._usage = usage
        self._there = there
        self._own = own
        self._reasons: dict[str, str] = {}

    def answer(self, counted: AccountDevice | None, account: AccountDevice | None, *, exact: bool) -> LeaseUse:
        """All that is known.

        Args:
            counted: what the account says, if it counts.
            account: what it says in any case.
            exact: whether there is nothing else to know of memory.
        """
        used, source = (None, None) if counted is None else (counted.used, ACCOUNT)
        if not exact:
            seen, seen_by = self._memory()
            if seen is not None and (used is None or used <= seen):
                used, source = seen, seen_by
        if used is not None:
            self._reasons.pop("used_bytes", None)
        return LeaseUse(used, source, self._utilization(), account, counted is not None, self._reasons)

    def _memory(self) -> tuple[int | None, str | None]:
        """The bytes that the lease's processes have by the driver, and how that is known."""
        usage = self._known_usage("used_bytes")
        if usage is None:
            return None, None
        total = 0
        for process in self._own:
            if process.memory_bytes is None:
                break
            total += process.memory_bytes
        else:
            return total, NVML
        if self._is_alone() and usage.memory_used_bytes is not None:
            return usage.memory_used_bytes, DEVICE
        self._reasons["used_bytes"] = _NO_MEMORY_REASON
        return None, None

    def _utilization(self) -> float | None:
        """The percent of the device that the lease's processes keep busy."""
        usage = self._known_usage("utilization_percent")
        if usage is None:
            return None
        total = 0.0
        for process in self._own:
            if process.utilization_percent is None:
                break
            total += process.utilization_percent
        else:
            return min(100.0, round(total, 1))
        if self._is_alone() and usage.utilization_percent is not None:
            return usage.utilization_percent
        reason = usage.reasons.get("processes.utilization_percent", _NO_UTILIZATION_REASON)
        self._reasons["utilization_percent"] = reason
        return None

    def _known_usage(self, field: str) -> DeviceUsage | None:
        """What the device does, if it is known who does it; else the reason is noted for the field."""
        usage, there = self._usage, self._there
        if usage is None or there is None:
            self._reasons[field] = _NOT_SEEN_REASON
        elif usage.lost:
            self._reasons[field] = usage.reasons.get("memory_used_bytes", _NOT_SEEN_REASON)
        elif usage.processes is None:
            self._reasons[field] = usage.reasons.get("processes", _NO_LIST_REASON)
        elif usage.hides_processes:
            self._reasons[field] = _EMPTY_LIST_REASON
        elif there.hidden and not self._own:
            self._reasons[field] = _HIDDEN_REASON
        else:
            return usage
        return None

    def _is_alone(self) -> bool:
        return self._there is not None and len(self._there.own) == 1 and not self._there.foreign
