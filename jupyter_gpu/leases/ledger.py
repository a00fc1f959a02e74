"""The record of all leases of this user on this host, and the one place where they are granted.

It is shared by every server, command and script. Every decision is one transaction that first drops what is dead:
leases whose process has ended, and requests whose asker has. So a crash at any instruction leaves at worst a lease
that the next decision drops.

A lease is alive while its process lives. Before it has one, and for a while between two (a kernel that restarts),
the process that asked answers for it.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ..devices.processes import ProcessKey, is_alive, processes_with
from .lease import Ask, Lease, LeaseState, Owner, Refusal
from .placement import DeviceState, LeaseHold, Unplaced, place
from .request import DeviceChoice, GPURequest, Hold, RequestError
from .store import LeaseGone, LedgerError, LedgerStore
from .survey import LEASE_VARIABLE, Survey, Taken, taken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["LeaseGone", "Ledger", "LedgerError"]

ORPHAN_GRACE_S = 60.0
"""How long a lease outlives its process while the asker lives: time enough for a kernel to be started again."""


class Ledger:
    """The leases in a runtime directory.

    Methods block on a file lock for as long as others decide: call them from threads. Each raises `LedgerError` where
    the ledger's file cannot be used.
    """

    def __init__(
        self,
        directory: Path,
        *,
        on_change: Callable[[Sequence[Lease]], None] | None = None,
        accounted: Callable[[Sequence[Lease]], Mapping[str, Mapping[str, int]]] | None = None,
        orphan_grace_s: float = ORPHAN_GRACE_S,
    ) -> None:
        """Nothing is opened until it is needed.

        Args:
            directory: the runtime directory.
            on_change: called with all leases, inside the decision that changed them.
            accounted: the bytes in use on each device by each lease, from its account.
            orphan_grace_s: how long a lease outlives its process while its asker lives.
        """
        self.store = LedgerStore(directory)
        self._on_change = on_change
        self._accounted = accounted
        self._orphan_grace_s = orphan_grace_s

    def close(self) -> None:
        """Close the file. The next call opens it again."""
        self.store.close()

    def leases(self) -> list[Lease]:
        """All leases that are alive, and all requests that wait, in order of arrival."""
        return [lease for lease, orphaned in self.store.rows() if self._lives(lease, orphaned)]

    def ask(self, ask: Ask, survey: Survey) -> Lease | Refusal:
        """Grant the request, or put it in the queue, or (with `wait` false) refuse it.

        A request that waits is asked again, with the same id, until it is granted; it keeps its turn meanwhile.

        Raises:
            RequestError: it can never be granted here.
        """
        with self._decision():
            leases = self._all()
            mine = next((lease for lease in leases if lease.id == ask.id), None)
            if mine is not None and mine.state is LeaseState.HELD:
                return mine
            states = self._states(leases, survey, apart_from={ask.id, ask.succeeds})
            before = [
                lease
                for lease in leases
                if lease.state is LeaseState.WAITING and (mine is None or lease.ticket < mine.ticket)
            ]
            placed = place(GPURequest.parse(ask.request), _after_waiting(states, before))
            if isinstance(placed, Unplaced):
                if not ask.wait:
                    return Refusal(placed.message)
                if mine is None:
                    self.store.insert(ask, LeaseState.WAITING)
                if mine is None or mine.message != placed.message:
                    self.store.set_message(ask.id, placed.message)
            else:
                if mine is None:
                    self.store.insert(ask, LeaseState.HELD)
                self.store.grant(ask.id, placed)
            return self.store.one(ask.id)

    def confirm_waiting(self, lease_id: str) -> None:
        """Nothing, while there is such a request or lease.

        Raises:
            LeaseGone: it was cancelled.
        """
        self.store.one(lease_id)

    def start(self, lease_id: str, process: ProcessKey) -> Lease:
        """Note the process that uses the lease: from now on the lease lives as long as it does.

        Raises:
            LeaseGone: there is no such lease.
        """
        with self._decision():
            self.store.set_process(lease_id, process)
            return self.store.one(lease_id)

    def describe(self, lease_id: str, owner: Owner) -> None:
        """Note a new name or notebook of the lease's owner."""
        with self._decision():
            self.store.set_owner(lease_id, owner)

    def change(self, lease_id: str, request: GPURequest, survey: Survey) -> Lease | Refusal:
        """Give a lease other memory on the devices that it has, at once or not at all.

        Raises:
            LeaseGone: there is no such lease.
            RequestError: the request can never be granted, or is for another number of devices.
        """
        with self._decision():
            lease = self.store.one(lease_id)
            leases = self._all()
            waiting = [other for other in leases if other.state is LeaseState.WAITING]
            states = self._states(leases, survey, apart_from={lease_id})
            placed = place(_on_same_devices(request, lease), _after_waiting(states, waiting))
            if isinstance(placed, Unplaced):
                return Refusal(placed.message)
            self.store.grant(lease_id, placed)
            self.store.set_request(lease_id, str(request))
            return self.store.one(lease_id)

    def release(self, lease_id: str) -> bool:
        """End a lease, or take a request out of the queue; whether there was one."""
        with self._decision():
            return self.store.delete(lease_id)

    def cancel(self, lease_id: str) -> bool:
        """Take a request out of the queue; false where none of that id waits, and nothing is changed then."""
        with self._decision():
            return self.store.delete(lease_id, LeaseState.WAITING)

    def drop_dead(self) -> None:
        """Drop what is dead now, rather than with the next decision."""
        with self._decision():
            pass

    def states(self, survey: Survey) -> list[DeviceState]:
        """What is known of every device: what is reserved, foreign and in use."""
        return self._states(self.leases(), survey)

    @contextlib.contextmanager
    def _decision(self) -> Iterator[None]:
        """One transaction, alone on this host, that begins by dropping the dead."""
        with self.store.transaction():
            before = self.store.rows()
            self._drop_dead(before)
            yield
            if self._on_change is not None:
                after = self.store.rows()
                if after != before:
                    self._on_change([lease for lease, _ in after])

    def _all(self) -> list[Lease]:
        """Every lease in the file: inside a decision, the dead are gone."""
        return [lease for lease, _ in self.store.rows()]

    def _drop_dead(self, rows: Sequence[tuple[Lease, float | None]]) -> None:
        for lease, orphaned in rows:
            if lease.process is not None and is_alive(lease.process):
                if orphaned is not None:
                    self.store.set_orphaned(lease.id, None)
            elif self._lives(lease, orphaned):
                if lease.process is not None and orphaned is None:
                    self.store.set_orphaned(lease.id, _now())
            elif not self._adopt(lease):
                self.store.delete(lease.id)

    def _lives(self, lease: Lease, orphaned: float | None) -> bool:
        if lease.process is not None and is_alive(lease.process):
            return True
        if not is_alive(lease.asker):
            return False
        return lease.process is None or orphaned is None or _now() - orphaned < self._orphan_grace_s

    def _adopt(self, lease: Lease) -> bool:
        """Find the process of a lease whose asker died between starting it and noting it."""
        if lease.state is not LeaseState.HELD or lease.process is not None:
            return False
        heirs = processes_with(LEASE_VARIABLE, lease.id)
        if heirs:
            self.store.set_process(lease.id, heirs[0])
        return bool(heirs)

    def _states(
        self, leases: Sequence[Lease], survey: Survey, apart_from: set[str | None] | None = None
    ) -> list[DeviceState]:
        """The devices with what `leases`, apart from some, hold of them, and with what foreign processes hold."""
        held = [lease for lease in leases if lease.state is LeaseState.HELD]
        roots = {lease.id: (lease.process,) if lease.process else () for lease in held}
        in_use = taken(survey, roots, self._accounted(held) if self._accounted else {})
        counted = [lease for lease in held if lease.id not in (apart_from or ())]
        return [
            _state(
                DeviceState(
                    device,
                    utilization_percent=survey.usage[device.uuid].utilization_percent
                    if device.uuid in survey.usage
                    else None,
                ),
                [(lease, hold) for lease in counted for hold in lease.holds if hold.uuid == device.uuid],
                in_use.get(device.uuid, Taken()),
            )
            for device in survey.inventory.devices
        ]


def _state(state: DeviceState, on_device: Sequence[tuple[Lease, LeaseHold]], use: Taken) -> DeviceState:
    return replace(
        state,
        reserved_bytes=sum(hold.bytes or 0 for _, hold in on_device),
        foreign_bytes=use.foreign_bytes,
        unreserved_use_bytes=sum(
            max(0, use.by_lease.get(lease.id, 0) - (hold.bytes or 0)) for lease, hold in on_device
        ),
        lease_count=len(on_device),
        whole=any(hold.hold is Hold.WHOLE for _, hold in on_device),
        holders=tuple(lease.owner.label for lease, _ in on_device),
    )


def _after_waiting(states: Sequence[DeviceState], waiting: Sequence[Lease]) -> list[DeviceState]:
    """The states as they look to whoever comes after those that wait."""
    result = list(states)
    for lease in waiting:
        request = GPURequest.parse(lease.request)
        try:
            placed = place(request, result)
        except RequestError:
            continue  # it waits for a device that has gone meanwhile, and so for nothing
        if isinstance(placed, Unplaced):
            wanted = {choice.memory.hold for choice in request.listed} or {request.memory.hold}
            result = [
                replace(state, awaited=state.awaited | wanted) if state.device.uuid in placed.candidates else state
                for state in result
            ]
        else:
            # It can be served now and will take its place in a moment.
            for hold in placed:
                result = [state.with_hold(hold) if state.device.uuid == hold.uuid else state for state in result]
    return result


def _on_same_devices(request: GPURequest, lease: Lease) -> GPURequest:
    """The request with the devices that the lease has in the places of those that it asks for.

    Raises:
        RequestError: it asks for another number of devices.
    """
    if request.device_count != len(lease.holds):
        raise RequestError(
            f"{request} asks for {request.device_count} GPUs and this kernel has {len(lease.holds)}; "
            "changing the number of GPUs takes a restart"
        )
    memories = [choice.memory for choice in request.listed] or [request.memory] * request.count
    return GPURequest(
        listed=tuple(DeviceChoice(hold.uuid, memory) for hold, memory in zip(lease.holds, memories, strict=True))
    )


def _now() -> float:
    """Seconds since boot, which no change of the clock moves."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
