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

from ..devices.processes import ProcessKey, any_newborn, process_key, processes_with
from .holdings import device_states
from .kinship import Kinship
from .lease import Ask, Lease, LeaseState, Owner, Refusal
from .placement import DeviceState, LeaseHold, Unplaced, place
from .recollection import Recollection
from .request import DeviceChoice, GPURequest, Hold, RequestError
from .store import LeaseGone, LedgerError, LedgerStore
from .survey import LEASE_VARIABLE, Survey, taken

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
        on_change: Callable[[Sequence[Lease]], Callable[[], None] | None] | None = None,
        accounted: Callable[[Sequence[Lease]], Mapping[str, Mapping[str, int]]] | None = None,
        orphan_grace_s: float = ORPHAN_GRACE_S,
    ) -> None:
        """Nothing is opened until it is needed.

        Args:
            directory: the runtime directory.
            on_change: called with all leases, inside the decision that changed them. What it returns is called once
                the decision has been made.
            accounted: the bytes in use on each device by each lease, from its account.
            orphan_grace_s: how long a lease outlives its process while its asker lives.
        """
        self.store = LedgerStore(directory)
        self._on_change = on_change
        self._accounted = accounted
        self._orphan_grace_s = orphan_grace_s
        self._kinship = Kinship()
        self._recollection = Recollection()

    def close(self) -> None:
        """Close the files. The next call opens them again."""
        self.store.close()
        self._kinship.close()

    def leases(self) -> list[Lease]:
        """All leases that are alive, and all requests that wait, in order of arrival."""
        self._take_up()
        self._kinship.refresh()
        rows = self.store.rows()
        leases = [lease for lease, orphaned in rows if self._lives(lease, orphaned)]
        self._recollection.saw(self.store.file_id(), leases)
        return [lease for lease in leases if lease.id not in self._recollection.unreleased]

    def verify(self) -> None:
        """Nothing, if the file can be read, and can be written again where that failed the last time.

        Raises:
            LedgerError: it cannot.
        """
        if self.store.failed:
            self.store.verify()
        self.leases()

    def last_seen(self) -> list[Lease]:
        """What of that which this process saw last is still alive: for people, while the file cannot be used."""
        self._kinship.refresh()
        return self._recollection.alive(self._kinship.is_alive)

    def ask(self, ask: Ask, survey: Survey, *, again: bool = False) -> Lease | Refusal:
        """Grant the request, or put it in the queue, or (with `wait` false) refuse it.

        A request that waits is asked again, with the same id, until it is granted; it keeps its turn meanwhile, also
        while there is no driver that could show a device.

        Args:
            ask: what is asked for.
            survey: what is on the devices.
            again: whether it waits already. It is not put in the queue a second time, should it have been cancelled.

        Raises:
            RequestError: it can never be granted here.
            LeaseGone: it was asked for again, and had been cancelled.
        """
        request = GPURequest.parse(ask.request)
        self._recollection.saw_devices(survey.inventory.devices)
        with self._decision() as leases:
            mine = next((lease for lease in leases if lease.id == ask.id), None)
            if mine is None and again:
                self.store.one(ask.id)
            if mine is not None and (mine.state is LeaseState.HELD or (again and survey.is_blind)):
                return mine
            before = [
                lease
                for lease in leases
                if lease.state is LeaseState.WAITING and (mine is None or lease.ticket < mine.ticket)
            ]
            predecessor = next((lease for lease in leases if lease.id == ask.succeeds), None)
            placed = self._place(request, leases, survey, before, predecessor)
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
        self._take_up()
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
        with self._decision() as leases:
            lease = self.store.one(lease_id)
            waiting = [other for other in leases if other.state is LeaseState.WAITING]
            placed = self._place(_on_same_devices(request, lease), leases, survey, waiting, lease)
            if isinstance(placed, Unplaced):
                return Refusal(placed.message)
            self.store.grant(lease_id, placed)
            self.store.set_request(lease_id, str(request))
            return self.store.one(lease_id)

    def release(self, lease_id: str) -> bool:
        """End a lease, or take a request out of the queue; whether there was one.

        Where the file cannot be used, the lease goes with the first decision that this process makes once it can.
        """
        try:
            with self._decision():
                return self.store.delete(lease_id)
        except LedgerError:
            self._recollection.unreleased.add(lease_id)
            raise

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
    def _decision(self) -> Iterator[list[Lease]]:
        """One transaction, alone on this host, that begins by dropping the dead. Gives the leases that remain."""
        afterwards = None
        recollection = self._recollection
        with self.store.transaction():
            writes = self.store.writes
            rows = before = self.store.rows()
            ended = set(recollection.unreleased)
            for lease_id in ended:
                self.store.delete(lease_id)
            self._drop_dead(rows)
            if not recollection.is_of(self.store.file_id()):
                self._put_back([lease for lease, _ in rows])
            if self.store.writes != writes:
                rows = self.store.rows()
            yield [lease for lease, _ in rows]
            after = rows
            if self.store.writes != writes:
                after = self.store.rows()
                if self._on_change is not None and after != before:
                    afterwards = self._on_change([lease for lease, _ in after])
            file = self.store.file_id()
        recollection.saw(file, [lease for lease, _ in after])
        recollection.unreleased -= ended
        if callable(afterwards):
            afterwards()

    def _take_up(self) -> None:
        """Put back what this process answers for, if the file is another than the one it was in."""
        if not self._recollection.is_of(self.store.file_id()):
            self.drop_dead()

    def _put_back(self, there: Sequence[Lease]) -> None:
        for lease in self._recollection.missing(there, process_key(), self._kinship.is_alive):
            self.store.put_back(lease)

    def _drop_dead(self, rows: Sequence[tuple[Lease, float | None]]) -> None:
        self._kinship.refresh()
        for lease, orphaned in rows:
            if lease.process is not None and self._kinship.is_alive(lease.process):
                if orphaned is not None:
                    self.store.set_orphaned(lease.id, None)
            elif self._lives(lease, orphaned):
                if lease.process is not None and orphaned is None:
                    self.store.set_orphaned(lease.id, _now())
            elif not self._adopt(lease):
                self.store.delete(lease.id)

    def _lives(self, lease: Lease, orphaned: float | None) -> bool:
        if lease.process is not None and self._kinship.is_alive(lease.process):
            return True
        if not self._kinship.is_alive(lease.asker):
            return False
        return lease.process is None or orphaned is None or _now() - orphaned < self._orphan_grace_s

    def _adopt(self, lease: Lease) -> bool:
        """Find the process of a lease whose asker died between starting it and noting it; whether there may be one."""
        if lease.state is not LeaseState.HELD or lease.process is not None:
            return False
        # In this order: what is being born now may have been so before, and be found then.
        newborn = lease.owner.kind == "kernel" and any_newborn()
        heirs = processes_with(LEASE_VARIABLE, lease.id)
        if heirs:
            self.store.set_process(lease.id, heirs[0])
        return newborn or bool(heirs)

    def _place(
        self,
        request: GPURequest,
        leases: Sequence[Lease],
        survey: Survey,
        waiting: Sequence[Lease],
        predecessor: Lease | None,
    ) -> tuple[LeaseHold, ...] | Unplaced:
        """The holds for a request that comes after those that wait, in place of its predecessor's.

        What the predecessor holds is there for its successor only, and whoever waits for that is passed: the
        predecessor ends once its successor has begun, so they would wait for each other.
        """
        if request.is_cpu:
            return ()
        queue = _Queue(self._states(leases, survey), waiting)
        if predecessor is None:
            return place(request, queue.left)
        states = self._states(leases, survey, apart_from=predecessor)
        return place(request, queue.left_of(states, passing={hold.uuid for hold in predecessor.holds}))

    def _states(self, leases: Sequence[Lease], survey: Survey, apart_from: Lease | None = None) -> list[DeviceState]:
        """The devices with what leases, apart from one, hold of them, and with what foreign processes hold."""
        held = [lease for lease in leases if lease.state is LeaseState.HELD]
        roots = {lease.id: (lease.process,) if lease.process else () for lease in held}
        in_use = taken(survey, roots, self._accounted(held) if self._accounted else {})
        return device_states([lease for lease in held if lease != apart_from], survey, in_use)


class _Queue:
    """What is left of the devices for whoever comes after those that wait."""

    def __init__(self, states: Sequence[DeviceState], waiting: Sequence[Lease]) -> None:
        self.left = list(states)
        self._granted: list[LeaseHold] = []
        """To those that can be served now, and will take their place in a moment."""
        self._awaited: list[tuple[frozenset[str], frozenset[Hold]]] = []
        """The devices, and the kinds of hold on them, that each of the others waits for."""
        for lease in waiting:
            self._add(GPURequest.parse(lease.request))

    def left_of(self, states: Sequence[DeviceState], passing: set[str]) -> list[DeviceState]:
        """What would be left if the devices were as in `states`, for one who passes those that wait for `passing`."""
        awaited = [each for each in self._awaited if not each[0] & passing]
        return _left(states, self._granted, awaited)

    def _add(self, request: GPURequest) -> None:
        try:
            placed = place(request, self.left)
        except RequestError:
            return  # it waits for a device that has gone meanwhile, and so for nothing
        if isinstance(placed, Unplaced):
            kinds = frozenset(choice.memory.hold for choice in request.listed) or frozenset({request.memory.hold})
            self._awaited.append((frozenset(placed.candidates), kinds))
            self.left = _left(self.left, (), self._awaited[-1:])
        else:
            self._granted += placed
            self.left = _left(self.left, placed, ())


def _left(
    states: Sequence[DeviceState],
    granted: Sequence[LeaseHold],
    awaited: Sequence[tuple[frozenset[str], frozenset[Hold]]],
) -> list[DeviceState]:
    result = []
    for state in states:
        uuid = state.device.uuid
        for hold in granted:
            if hold.uuid == uuid:
                state = state.with_hold(hold)  # noqa: PLW2901 - it is the same device
        kinds = state.awaited.union(*(kinds for uuids, kinds in awaited if uuid in uuids))
        result.append(replace(state, awaited=kinds))
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
