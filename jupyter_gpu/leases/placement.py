"""Which devices satisfy a request now. Pure: everything it looks at comes in, nothing is changed.

The rules:

- A device that is held whole takes nobody else; a whole hold needs a device that nobody holds.
- A device that does not answer any more takes nobody until it does.
- A reservation needs that much memory that is neither reserved, nor held by foreign processes, nor already in use by
  leases that share the device: what is guaranteed must be there.
- A shared hold is placed on the device with the most memory that is neither reserved nor held by foreign processes,
  then the fewest leases, then the lowest utilisation, then the lowest index.
- A reservation is placed where it fits most tightly, so that whole devices stay free.
- Whoever waits longer comes first: a device that an earlier request waits for is not given to a later one if that
  would keep the earlier one waiting.
- A MIG instance is never combined with another device, because CUDA shows a process one instance only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..devices.amount import readable_amount
from .request import DeviceChoice, GPURequest, Hold, Memory, RequestError, model_matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..devices.device import Device


@dataclass(frozen=True)
class LeaseHold:
    """What a lease holds of one device."""

    uuid: str
    hold: Hold
    bytes: int | None = None
    """The reservation; `None` for a shared or a whole hold."""


@dataclass(frozen=True)
class DeviceState:
    """What is known of a device when a place is sought."""

    device: Device
    reserved_bytes: int = 0
    foreign_bytes: int = 0
    unreserved_use_bytes: int = 0
    """What leases have in use now beyond what they have reserved."""
    lease_count: int = 0
    whole: bool = False
    utilization_percent: float | None = None
    holders: tuple[str, ...] = ()
    """The names of those who hold it, for people."""
    awaited: frozenset[Hold] = frozenset()
    """The kinds of hold for which earlier requests wait on this device."""
    lost: bool = False
    """Whether it does not answer any more."""

    @property
    def unreserved_bytes(self) -> int:
        """Memory that is neither reserved nor held by foreign processes; 0 where the device's memory is unknown."""
        return max(0, (self.device.memory_bytes or 0) - self.reserved_bytes - self.foreign_bytes)

    @property
    def reservable_bytes(self) -> int:
        """The largest reservation that can be granted now."""
        return 0 if self.whole else max(0, self.unreserved_bytes - self.unreserved_use_bytes)

    @property
    def available_bytes(self) -> int | None:
        """The same for people; `None` where it is unknown, or the device is none that leases are for."""
        return self.reservable_bytes if self.device.memory_bytes is not None and self.device.leasable else None

    def with_hold(self, hold: LeaseHold) -> DeviceState:
        """The state once `hold` has been granted."""
        return replace(
            self,
            reserved_bytes=self.reserved_bytes + (hold.bytes or 0),
            lease_count=self.lease_count + 1,
            whole=self.whole or hold.hold is Hold.WHOLE,
        )


@dataclass(frozen=True)
class Unplaced:
    """No device satisfies the request now, though one could later."""

    message: str
    """What it waits for, as the end of a sentence that begins with the asker's name."""
    candidates: tuple[str, ...]
    """The UUIDs of the devices that could satisfy it."""


def place(request: GPURequest, states: Sequence[DeviceState]) -> tuple[LeaseHold, ...] | Unplaced:
    """The holds that satisfy the request now, in the order asked for; or what it has to wait for.

    Raises:
        RequestError: no device here can ever satisfy it.
    """
    if request.is_cpu:
        return ()
    if request.listed:
        return _place_listed(request, states)
    return _place_counted(request, states)


def check(request: GPURequest, devices: Sequence[Device]) -> None:
    """Nothing, if the request can be satisfied once every lease has ended.

    Raises:
        RequestError: it never can; the message says why and what there is.
    """
    place(request, [DeviceState(device) for device in devices])


def resolve(name: str, devices: Sequence[Device]) -> Device:
    """The device with this index, this UUID, or a UUID that begins like this.

    Raises:
        RequestError: there is none, or more than one.
    """
    if name[:4] in ("GPU-", "MIG-"):
        found = [d for d in devices if d.uuid.lower() == name.lower()]
        found = found or [d for d in devices if d.uuid.lower().startswith(name.lower())]
    else:
        found = [d for d in devices if d.index == name]
    if len(found) > 1:
        raise RequestError(f"{name!r} is the beginning of {len(found)} GPUs' UUIDs; write more of it")
    if not found:
        raise RequestError(f"there is no GPU {name}; {describe(devices)}")
    if not found[0].leasable:
        parts = ", ".join(d.index for d in devices if d.parent_uuid == found[0].uuid)
        raise RequestError(
            f"GPU {name} is divided into MIG instances; ask for one of them: {parts or 'it has none yet'}"
        )
    return found[0]


def describe(devices: Sequence[Device]) -> str:
    """What there is, as a part of a sentence."""
    leasable = [d for d in devices if d.leasable]
    if not leasable:
        return "there is no GPU here, only cpu"
    return "there is " + ", ".join(f"{d.index} ({d.name})" for d in leasable)


def _place_listed(request: GPURequest, states: Sequence[DeviceState]) -> tuple[LeaseHold, ...] | Unplaced:
    devices = [state.device for state in states]
    by_uuid = {state.device.uuid: state for state in states}
    chosen = [(resolve(choice.device, devices), choice) for choice in request.listed]
    uuids = [device.uuid for device, _ in chosen]
    if len(set(uuids)) < len(uuids):
        raise RequestError(f"{request} names one GPU twice; name each GPU once")
    if len(chosen) > 1 and any(device.is_mig for device, _ in chosen):
        raise RequestError(
            f"{request} combines a MIG instance with another device, which CUDA does not allow; ask for one"
        )
    for device, choice in chosen:
        _refuse_impossible_memory(choice.memory, [device])
    busy = [by_uuid[device.uuid] for device, choice in chosen if not _fits(by_uuid[device.uuid], choice.memory)]
    if busy:
        return Unplaced(_waiting_message([(state, _memory_on(state, chosen)) for state in busy]), tuple(uuids))
    return tuple(_hold(by_uuid[device.uuid], choice.memory) for device, choice in chosen)


def _place_counted(request: GPURequest, states: Sequence[DeviceState]) -> tuple[LeaseHold, ...] | Unplaced:
    leasable = [state for state in states if state.device.leasable]
    devices = [state.device for state in states]
    if not leasable:
        raise RequestError(f"{request} asks for a GPU, but {describe(devices)}")
    suitable = leasable if request.model is None else _of_model(request.model, leasable)
    if not suitable:
        raise RequestError(f"no GPU's name contains {request.model!r}; {describe(devices)}")
    if request.count > 1:
        suitable = [state for state in suitable if not state.device.is_mig]
    if len(suitable) < request.count:
        kind = f"{request.model} " if request.model else ""
        count, are = (len(suitable), "is" if len(suitable) == 1 else "are")
        undivided = " that can be combined" if request.count > 1 else ""
        raise RequestError(f"{request} asks for {request.count} {kind}GPUs, but there {are} {count}{undivided}")
    large_enough = [s for s in suitable if _could_ever_fit(request.memory, s.device)]
    if len(large_enough) < request.count:
        _refuse_impossible_memory(request.memory, [state.device for state in suitable], request.count)
    fitting = [state for state in large_enough if _fits(state, request.memory)]
    if len(fitting) < request.count:
        return Unplaced(
            _counted_waiting_message(request, large_enough), tuple(state.device.uuid for state in large_enough)
        )
    order = _emptiest_first if request.memory.hold is Hold.SHARED else _tightest_first
    fitting.sort(key=order)
    chosen = sorted(fitting[: request.count], key=lambda state: _index_key(state.device.index))
    return tuple(_hold(state, request.memory) for state in chosen)


def _of_model(word: str, states: Sequence[DeviceState]) -> list[DeviceState]:
    matching = [state for state in states if model_matches(word, state.device.name)]
    # "NVIDIA-RTX-6000" is part of "NVIDIA RTX 6000 Ada Generation" too: a name that is the whole word goes first.
    exact = [state for state in matching if model_matches(state.device.name, word)]
    return exact or matching


def _fits(state: DeviceState, memory: Memory) -> bool:
    if state.lost or state.whole or not _may_pass(memory.hold, state.awaited):
        return False
    if memory.hold is Hold.SHARED:
        return True
    if memory.hold is Hold.WHOLE:
        return state.lease_count == 0
    size = memory.size_on(state.device.memory_bytes)
    return size is not None and size <= state.reservable_bytes


def _may_pass(hold: Hold, awaited: Iterable[Hold]) -> bool:
    """Whether a hold of this kind keeps none of those waiting that came before."""
    if hold is Hold.SHARED:
        return Hold.WHOLE not in awaited
    if hold is Hold.RESERVED:
        return not {Hold.RESERVED, Hold.WHOLE} & set(awaited)
    return not set(awaited)


def _hold(state: DeviceState, memory: Memory) -> LeaseHold:
    size = memory.size_on(state.device.memory_bytes) if memory.hold is Hold.RESERVED else None
    return LeaseHold(state.device.uuid, memory.hold, size)


def _could_ever_fit(memory: Memory, device: Device) -> bool:
    if memory.hold is not Hold.RESERVED:
        return True
    size = memory.size_on(device.memory_bytes)
    return size is not None and device.memory_bytes is not None and size <= device.memory_bytes


def _refuse_impossible_memory(memory: Memory, devices: Sequence[Device], count: int = 1) -> None:
    if sum(_could_ever_fit(memory, device) for device in devices) >= count:
        return
    if all(device.memory_bytes is None for device in devices):
        raise RequestError(
            f"GPU {devices[0].index} does not tell how much memory it has, so {memory} of it cannot be reserved; "
            "ask for it without an amount, or with all"
        )
    largest = max(device.memory_bytes or 0 for device in devices)
    if len(devices) == 1:
        has = f"GPU {devices[0].index} has"
    elif count == 1:
        has = "the largest GPU has"
    else:
        has = f"too few GPUs have that ({count} asked for), the largest has"
    raise RequestError(f"{memory} is more memory than there is: {has} {readable_amount(largest)}")


def _emptiest_first(state: DeviceState) -> tuple[object, ...]:
    return (
        -state.unreserved_bytes,
        state.lease_count,
        101.0 if state.utilization_percent is None else state.utilization_percent,
        _index_key(state.device.index),
    )


def _tightest_first(state: DeviceState) -> tuple[object, ...]:
    return (state.reservable_bytes, -state.lease_count, _index_key(state.device.index))


def _index_key(index: str) -> tuple[int, ...]:
    return tuple(int(part) for part in index.split("."))


def _memory_on(state: DeviceState, chosen: Sequence[tuple[Device, DeviceChoice]]) -> Memory:
    return next(choice.memory for device, choice in chosen if device.uuid == state.device.uuid)


def _waiting_message(busy: Sequence[tuple[DeviceState, Memory]]) -> str:
    parts = []
    for state, memory in busy:
        amount = memory.size_on(state.device.memory_bytes) if memory.hold is Hold.RESERVED else None
        what = f"{readable_amount(amount)} on GPU {state.device.index}" if amount else f"GPU {state.device.index}"
        parts.append(what + _held_by(state))
    return "waits for " + " and ".join(parts)


def _held_by(state: DeviceState) -> str:
    if state.lost:
        return ", which does not answer"
    if state.holders:
        return ", held by " + ", ".join(state.holders)
    if state.awaited:
        return ", for which others wait already"
    return ", held by processes that are not Jupyter's" if state.foreign_bytes else ""


def _counted_waiting_message(request: GPURequest, states: Sequence[DeviceState]) -> str:
    count = "a" if request.count == 1 else str(request.count)
    kind = f"{request.model} " if request.model else ""
    what = f"{count} {kind}GPU{'s' if request.count > 1 else ''}"
    if request.memory.hold is Hold.RESERVED:
        most = max(0 if state.lost else state.reservable_bytes for state in states)
        free = f"at most {readable_amount(most)} of one is free now" if most else "none has memory free now"
        return f"waits for {what} with {request.memory} free; {free}" + _all_holders(states)
    whole = " to itself" if request.memory.hold is Hold.WHOLE else ""
    return f"waits for {what}{whole}" + _all_holders(states)


def _all_holders(states: Sequence[DeviceState]) -> str:
    names = list(dict.fromkeys(name for state in states for name in state.holders))
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"; held by {shown}"
