"""The ledger: who is granted what, who waits behind whom, and when a lease ends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from until import until

from jupyter_gpu.devices.device import DeviceProcess, DeviceUsage, Inventory, Problem
from jupyter_gpu.leases.lease import Lease, LeaseState, Owner, Refusal
from jupyter_gpu.leases.ledger import LeaseGone
from jupyter_gpu.leases.placement import LeaseHold
from jupyter_gpu.leases.request import GPURequest, Hold, RequestError
from jupyter_gpu.leases.survey import SeenProcess, Survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from jupyter_gpu.devices.processes import ProcessKey
    from jupyter_gpu.leases.lease import Ask
    from jupyter_gpu.leases.ledger import Ledger

GIB = 1 << 30


@pytest.fixture
def ask(ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask]) -> Callable[..., Lease | Refusal]:
    """Asks the ledger: `ask("1:8GiB", "A")`. Asking again with the same label asks again for the same."""

    def ask(request: str, label: str = "A", *, again: bool = False, **more: object) -> Lease | Refusal:
        return ledger.ask(new_ask(request, label, **more), survey, again=again)

    return ask


def is_held(answer: Lease | Refusal) -> bool:
    return isinstance(answer, Lease) and answer.state is LeaseState.HELD


def is_waiting(answer: Lease | Refusal) -> bool:
    return isinstance(answer, Lease) and answer.state is LeaseState.WAITING


class TestGrants:
    def test_a_lease_has_what_was_placed_and_who_asked(
        self, ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask], me: ProcessKey
    ) -> None:
        lease = ledger.ask(new_ask("1:8GiB", "A", path="/home/A.ipynb"), survey)
        assert isinstance(lease, Lease)
        assert lease.state is LeaseState.HELD
        assert lease.holds == (LeaseHold(survey.inventory.devices[1].uuid, Hold.RESERVED, 8 * GIB),)
        assert lease.owner == Owner("kernel", "A", "kernel-A", "/home/A.ipynb")
        assert (lease.asker, lease.process, lease.request) == (me, None, "1:8GiB")
        assert lease.granted is not None
        assert lease.granted >= lease.created
        assert ledger.leases() == [lease]

    def test_no_more_is_reserved_than_a_device_has(self, ask: Callable[..., Lease | Refusal]) -> None:
        assert is_held(ask("0:30GiB", "A"))
        assert is_held(ask("0:10GiB", "B"))
        assert is_waiting(ask("0:1MiB", "C"))

    def test_what_foreign_processes_hold_cannot_be_reserved(
        self, ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask], sleeper: Callable[..., object]
    ) -> None:
        uuid = survey.inventory.devices[0].uuid
        stranger = sleeper().key  # type: ignore[attr-defined]
        seen = replace(survey, processes=(SeenProcess(stranger.pid, uuid, 15 * GIB, lineage=(stranger,)),))
        assert is_waiting(ledger.ask(new_ask("0:26GiB"), seen))
        assert is_held(ledger.ask(new_ask("0:25GiB", "B", wait=False), survey)) is False, "it would pass A"
        ledger.cancel("A")
        assert is_held(ledger.ask(new_ask("0:25GiB", "B"), seen))

    def test_what_a_shared_lease_uses_already_cannot_be_reserved(
        self, ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask], sleeper: Callable[..., object]
    ) -> None:
        uuid = survey.inventory.devices[0].uuid
        kernel = sleeper().key  # type: ignore[attr-defined]
        assert is_held(ledger.ask(new_ask("0", "A"), survey))
        ledger.start("A", kernel)
        seen = replace(survey, processes=(SeenProcess(kernel.pid, uuid, 15 * GIB, lineage=(kernel,)),))
        answer = ledger.ask(new_ask("0:26GiB", "B", wait=False), seen)
        assert isinstance(answer, Refusal)
        assert "waits for 26 GiB on GPU 0, held by A" in answer.message
        assert is_held(ledger.ask(new_ask("0:25GiB", "B", wait=False), seen))

    def test_the_cpu_is_had_at_once_whatever_the_devices_do(self, ask: Callable[..., Lease | Refusal]) -> None:
        assert is_held(ask("0,1,2,3:all", "A"))
        assert is_waiting(ask("auto", "B"))
        lease = ask("cpu", "C")
        assert is_held(lease)
        assert isinstance(lease, Lease)
        assert lease.holds == ()

    def test_asking_again_for_what_is_held_gives_the_same_lease(self, ask: Callable[..., Lease | Refusal]) -> None:
        assert ask("1:8GiB") == ask("1:8GiB")

    def test_who_does_not_want_to_wait_is_told_what_for_and_leaves_nothing_behind(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger
    ) -> None:
        ask("1:all", "A")
        answer = ask("1", "B", wait=False)
        assert answer == Refusal("waits for GPU 1, held by A")
        assert [lease.id for lease in ledger.leases()] == ["A"]

    def test_what_can_never_be_had_is_refused_and_leaves_nothing_behind(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger
    ) -> None:
        for request in ("9", "0:41GiB", "nonsense"):
            with pytest.raises(RequestError):
                ask(request)
        assert ledger.leases() == []

    def test_states_say_what_is_reserved_in_use_and_by_whom(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, survey: Survey
    ) -> None:
        ask("0:8GiB", "A")
        ask("0", "B")
        ask("1:all", "C")
        first, second, third, _ = ledger.states(survey)
        assert (first.reserved_bytes, first.lease_count, first.holders) == (8 * GIB, 2, ("A", "B"))
        assert (first.reservable_bytes, first.whole) == (32 * GIB, False)
        assert (second.whole, second.reservable_bytes, second.holders) == (True, 0, ("C",))
        assert (third.lease_count, third.reservable_bytes) == (0, 40 * GIB)


class TestQueue:
    def test_requests_are_served_in_order_of_arrival(self, ask: Callable[..., Lease | Refusal], ledger: Ledger) -> None:
        ask("0:all", "A")
        assert is_waiting(ask("0:all", "B"))
        assert is_waiting(ask("0:all", "C"))
        ledger.release("A")
        assert is_waiting(ask("0:all", "C")), "B came before"
        assert is_held(ask("0:all", "B"))
        ledger.release("B")
        assert is_held(ask("0:all", "C"))

    def test_a_waiting_request_keeps_its_turn_however_often_it_asks(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger
    ) -> None:
        ask("0:all", "A")
        ask("0:all", "B")
        ask("0:all", "C")
        for _ in range(3):
            ask("0:all", "B")
        assert [lease.id for lease in ledger.leases()] == ["A", "B", "C"]

    def test_a_waiting_request_says_what_it_waits_for_now(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger
    ) -> None:
        ask("0:20GiB", "A")
        ask("0:20GiB", "B")
        ask("0:20GiB", "C")
        assert ledger.leases()[2].message == "waits for 20 GiB on GPU 0, held by A, B"
        ledger.release("A")
        ask("1:40GiB", "A")
        ask("0:20GiB", "D", succeeds="B")
        ask("0:20GiB", "C")
        assert ledger.leases()[1].message == "waits for 20 GiB on GPU 0, held by B, D"

    def test_a_smaller_reservation_does_not_pass_one_that_waits(self, ask: Callable[..., Lease | Refusal]) -> None:
        ask("0:20GiB", "A")
        assert is_waiting(ask("0:30GiB", "B"))
        assert is_waiting(ask("0:1GiB", "C"))

    def test_a_reservation_elsewhere_passes(self, ask: Callable[..., Lease | Refusal]) -> None:
        ask("0:20GiB", "A")
        ask("0:30GiB", "B")
        assert is_held(ask("1:1GiB", "C"))
        lease = ask("auto:1GiB", "D")
        assert isinstance(lease, Lease)
        assert lease.holds[0].uuid == "GPU-00000001"

    def test_a_shared_hold_passes_a_reservation_that_waits(self, ask: Callable[..., Lease | Refusal]) -> None:
        ask("0:20GiB", "A")
        ask("0:30GiB", "B")
        assert is_held(ask("0", "C"))

    def test_nothing_passes_a_whole_hold_that_waits(self, ask: Callable[..., Lease | Refusal]) -> None:
        ask("0", "A")
        assert is_waiting(ask("0:all", "B"))
        assert is_waiting(ask("0", "C"))
        assert is_waiting(ask("0:1GiB", "D"))
        assert is_waiting(ask("0:all", "E"))

    def test_one_that_waits_for_any_device_is_not_passed_on_any_that_would_do(
        self, ask: Callable[..., Lease | Refusal]
    ) -> None:
        ask("4x:20GiB", "A")
        assert is_waiting(ask("auto:30GiB", "B"))
        assert is_waiting(ask("3:10GiB", "C"))
        assert is_held(ask("3", "D"))

    def test_what_one_that_waits_can_have_now_is_left_to_it(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger
    ) -> None:
        ask("0:all", "A")
        ask("0:30GiB", "B")
        ledger.release("A")  # B can be served, and has not asked again yet
        assert not is_held(ask("0:30GiB", "C", wait=False))
        assert is_held(ask("0:10GiB", "D")), "there is enough for both"
        assert is_held(ask("0:30GiB", "B"))

    def test_a_cancelled_request_stands_in_nobodys_way(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger
    ) -> None:
        ask("0", "A")
        ask("0:all", "B")
        assert ledger.cancel("B")
        with pytest.raises(LeaseGone, match="cancelled"):
            ledger.confirm_waiting("B")
        with pytest.raises(LeaseGone, match="cancelled"):
            ask("0:all", "B", again=True)
        assert is_held(ask("0", "C"))

    def test_only_what_waits_can_be_cancelled(self, ask: Callable[..., Lease | Refusal], ledger: Ledger) -> None:
        ask("0", "A")
        assert not ledger.cancel("A")
        assert not ledger.cancel("nobody")
        assert [lease.id for lease in ledger.leases()] == ["A"]

    def test_a_request_ends_with_its_asker(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, sleeper: Callable[..., object]
    ) -> None:
        server = sleeper()
        ask("0", "A")
        assert is_waiting(ask("0:all", "B", asker=server.key))  # type: ignore[attr-defined]
        server.end()  # type: ignore[attr-defined]
        assert [lease.id for lease in ledger.leases()] == ["A"], "it is not shown"
        assert is_held(ask("0", "C")), "and stands in nobody's way"
        assert [lease.id for lease, _ in ledger.store.rows()] == ["A", "C"]

    def test_one_whose_device_has_gone_stands_in_nobodys_way(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask]
    ) -> None:
        ask("3:all", "A")
        ask("3:all,0:all", "B")
        without = replace(survey, inventory=replace(survey.inventory, devices=survey.inventory.devices[:3]))
        assert is_held(ledger.ask(new_ask("0", "C"), without))


class TestLife:
    def test_a_lease_lives_with_its_process_once_it_has_one(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, sleeper: Callable[..., object]
    ) -> None:
        server, kernel = sleeper(), sleeper()
        ask("0:all", "A", asker=server.key)  # type: ignore[attr-defined]
        assert ledger.start("A", kernel.key).process == kernel.key  # type: ignore[attr-defined]
        server.end()  # type: ignore[attr-defined]
        assert is_waiting(ask("0", "B")), "the kernel still runs"
        kernel.end()  # type: ignore[attr-defined]
        assert [lease.id for lease in ledger.leases()] == ["B"]
        assert is_held(ask("0", "B"))

    def test_before_it_has_a_process_its_asker_answers_for_it(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, sleeper: Callable[..., object]
    ) -> None:
        server = sleeper()
        ask("0:all", "A", asker=server.key)  # type: ignore[attr-defined]
        assert is_waiting(ask("0", "B"))
        server.end()  # type: ignore[attr-defined]
        # Not at once where a process of anybody's has just been forked, which may have been meant to use the lease.
        until(lambda: is_held(ask("0", "B")))
        assert [lease.id for lease in ledger.leases()] == ["B"]

    def test_a_process_that_its_asker_started_and_did_not_live_to_note_is_adopted(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, sleeper: Callable[..., object]
    ) -> None:
        server = sleeper()
        ask("0:all", "adopted-lease", asker=server.key)  # type: ignore[attr-defined]
        kernel = sleeper(JUPYTER_GPU_LEASE="adopted-lease")
        server.end()  # type: ignore[attr-defined]
        ledger.drop_dead()
        (lease,) = ledger.leases()
        assert lease.process == kernel.key  # type: ignore[attr-defined]
        kernel.end()  # type: ignore[attr-defined]
        ledger.drop_dead()
        assert ledger.store.rows() == []

    def test_between_two_processes_the_asker_answers_for_it_for_a_while(
        self,
        new_ledger: Callable[..., Ledger],
        survey: Survey,
        new_ask: Callable[..., Ask],
        sleeper: Callable[..., object],
    ) -> None:
        patient = new_ledger()
        first, second = sleeper(), sleeper()
        patient.ask(new_ask("0:all", "A"), survey)
        patient.start("A", first.key)  # type: ignore[attr-defined]
        first.end()  # type: ignore[attr-defined]
        patient.drop_dead()
        assert [lease.id for lease in patient.leases()] == ["A"], "a kernel may be started again"
        assert is_waiting(patient.ask(new_ask("0", "B"), survey))
        patient.start("A", second.key)  # type: ignore[attr-defined]
        impatient = new_ledger(orphan_grace_s=0.0)
        impatient.drop_dead()
        assert [lease.id for lease in impatient.leases()] == ["A", "B"], "it has a process again"
        second.end()  # type: ignore[attr-defined]
        impatient.drop_dead()  # notes since when
        impatient.drop_dead()
        assert [lease.id for lease in impatient.leases()] == ["B"]

    def test_the_asker_of_a_lease_between_processes_must_live_too(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, sleeper: Callable[..., object]
    ) -> None:
        server, kernel = sleeper(), sleeper()
        ask("0", "A", asker=server.key)  # type: ignore[attr-defined]
        ledger.start("A", kernel.key)  # type: ignore[attr-defined]
        kernel.end()  # type: ignore[attr-defined]
        server.end()  # type: ignore[attr-defined]
        assert ledger.leases() == []

    def test_a_released_lease_is_gone(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, me: ProcessKey
    ) -> None:
        ask("0", "A")
        assert ledger.release("A")
        assert not ledger.release("A")
        assert ledger.leases() == []
        with pytest.raises(LeaseGone):
            ledger.start("A", me)
        with pytest.raises(LeaseGone):
            ledger.change("A", GPURequest.parse("1"), None)  # type: ignore[arg-type]

    def test_the_owner_can_get_another_name(self, ask: Callable[..., Lease | Refusal], ledger: Ledger) -> None:
        ask("0", "A")
        ledger.describe("A", Owner("kernel", "B.ipynb", "kernel-A", "/home/B.ipynb"))
        assert ledger.leases()[0].owner == Owner("kernel", "B.ipynb", "kernel-A", "/home/B.ipynb")


class TestSuccession:
    """A session that changes its kernel starts the new one before it ends the old one."""

    def test_what_a_lease_holds_does_not_stand_in_its_successors_way(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger
    ) -> None:
        ask("0:all", "old")
        assert is_waiting(ask("0:all", "other"))
        assert is_held(ask("0:all", "new", succeeds="old"))
        ledger.release("old")
        assert is_waiting(ask("0:all", "other")), "the device went from one to the other"

    @pytest.mark.parametrize("request_", ["0:all", "0:8GiB", "0", "0:40GiB"])
    def test_a_successor_passes_those_that_wait_for_its_predecessor(
        self, ask: Callable[..., Lease | Refusal], request_: str
    ) -> None:
        """They would wait for each other: the predecessor ends once the successor has begun."""
        ask("0:8GiB", "old")
        assert is_waiting(ask("0:all", "other"))
        assert is_held(ask(request_, "new", succeeds="old"))

    def test_elsewhere_it_waits_its_turn(self, ask: Callable[..., Lease | Refusal], ledger: Ledger) -> None:
        ask("0:all", "old")
        ask("1", "A")
        assert is_waiting(ask("1:all", "B"))
        assert is_waiting(ask("1", "new", succeeds="old"))
        ledger.cancel("B")
        assert is_held(ask("1", "new", succeeds="old"))

    def test_nobody_else_gets_what_is_handed_over(self, ask: Callable[..., Lease | Refusal], ledger: Ledger) -> None:
        ask("0:30GiB", "old")
        ask("0:30GiB", "new", succeeds="old")
        assert is_waiting(ask("0:11GiB", "other"))
        ledger.release("old")
        assert is_waiting(ask("0:11GiB", "other"))
        ledger.release("new")
        assert is_held(ask("0:11GiB", "other"))

    def test_what_the_predecessors_processes_hold_is_not_foreign(
        self, ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask], sleeper: Callable[..., object]
    ) -> None:
        uuid = survey.inventory.devices[0].uuid
        kernel = sleeper().key  # type: ignore[attr-defined]
        ledger.ask(new_ask("0:30GiB", "old"), survey)
        ledger.start("old", kernel)
        usage = {uuid: DeviceUsage(uuid, 30 * GIB, 10 * GIB, processes=(DeviceProcess(kernel.pid, 30 * GIB),))}
        seen = Survey(survey.inventory, usage, (SeenProcess(kernel.pid, uuid, 30 * GIB, lineage=(kernel,)),))
        assert is_held(ledger.ask(new_ask("0:30GiB", "new", succeeds="old"), seen))


class TestChange:
    def test_a_lease_gets_other_memory_on_its_devices_at_once(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, survey: Survey
    ) -> None:
        before = ask("1:8GiB", "A")
        assert isinstance(before, Lease)
        changed = ledger.change("A", GPURequest.parse("auto:16GiB"), survey)
        assert isinstance(changed, Lease)
        assert changed.holds == (replace(before.holds[0], bytes=16 * GIB),)
        assert (changed.request, changed.granted, changed.ticket) == ("auto:16GiB", before.granted, before.ticket)
        assert ledger.leases() == [changed]

    @pytest.mark.parametrize(("request_", "hold"), [("auto", Hold.SHARED), ("auto:all", Hold.WHOLE)])
    def test_it_can_become_shared_or_whole(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, survey: Survey, request_: str, hold: Hold
    ) -> None:
        ask("1:8GiB", "A")
        changed = ledger.change("A", GPURequest.parse(request_), survey)
        assert isinstance(changed, Lease)
        assert changed.holds[0].hold is hold

    def test_what_is_not_free_is_refused_and_nothing_changes(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, survey: Survey
    ) -> None:
        before = ask("1:8GiB", "A")
        ask("1:8GiB", "B")
        answer = ledger.change("A", GPURequest.parse("auto:33GiB"), survey)
        assert isinstance(answer, Refusal)
        assert "waits for 33 GiB on GPU 1, held by B" in answer.message
        assert isinstance(ledger.change("A", GPURequest.parse("auto:all"), survey), Refusal)
        assert ledger.leases()[0] == before

    def test_it_can_shrink_while_others_wait(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, survey: Survey
    ) -> None:
        ask("1:30GiB", "A")
        assert is_waiting(ask("1:20GiB", "B"))
        assert is_waiting(ask("1:all", "C"))
        assert isinstance(ledger.change("A", GPURequest.parse("auto:20GiB"), survey), Lease)
        assert is_held(ask("1:20GiB", "B"))

    def test_what_one_that_waits_can_have_now_is_left_to_it(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, survey: Survey
    ) -> None:
        ask("1:10GiB", "A")
        ask("1:20GiB", "B")
        ask("1:20GiB", "C")
        ledger.release("B")  # C can be served, and has not asked again yet
        assert isinstance(ledger.change("A", GPURequest.parse("auto:21GiB"), survey), Refusal)
        assert isinstance(ledger.change("A", GPURequest.parse("auto:20GiB"), survey), Lease)

    def test_another_number_of_devices_takes_a_restart(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, survey: Survey
    ) -> None:
        ask("0,1:8GiB", "A")
        with pytest.raises(RequestError, match="takes a restart"):
            ledger.change("A", GPURequest.parse("auto:8GiB"), survey)
        with pytest.raises(RequestError, match="more memory than there is"):
            ledger.change("A", GPURequest.parse("2x:80GiB"), survey)

    def test_each_device_gets_the_memory_in_its_place(
        self, ask: Callable[..., Lease | Refusal], ledger: Ledger, survey: Survey
    ) -> None:
        ask("2,0:8GiB", "A")
        changed = ledger.change("A", GPURequest.parse("2:4GiB,0:16GiB"), survey)
        assert isinstance(changed, Lease)
        assert [(hold.uuid[-1], hold.bytes) for hold in changed.holds] == [("2", 4 * GIB), ("0", 16 * GIB)]


class TestListeners:
    def test_every_change_is_told_once_with_all_leases_and_no_change_is_not(
        self, new_ledger: Callable[..., Ledger], survey: Survey, new_ask: Callable[..., Ask]
    ) -> None:
        told: list[list[str]] = []
        ledger = new_ledger(on_change=lambda leases: told.append([lease.id for lease in leases]))
        ledger.ask(new_ask("0:all", "A"), survey)
        ledger.ask(new_ask("0:all", "B"), survey)
        ledger.ask(new_ask("0:all", "B"), survey)
        ledger.drop_dead()
        ledger.release("nobody")
        ledger.release("A")
        assert told == [["A"], ["A", "B"], ["B"]]

    def test_what_a_listener_returns_is_done_once_others_may_decide(
        self, new_ledger: Callable[..., Ledger], survey: Survey, new_ask: Callable[..., Ask]
    ) -> None:
        other = new_ledger()
        seen: list[int] = []
        ledger = new_ledger(on_change=lambda _: lambda: seen.append(len(other.leases()) + other.cancel("A")))
        ledger.ask(new_ask("0:all", "A"), survey)
        assert seen == [1]

    def test_others_changes_are_seen_by_the_revision(
        self, new_ledger: Callable[..., Ledger], survey: Survey, new_ask: Callable[..., Ask]
    ) -> None:
        mine, other = new_ledger(), new_ledger()
        before = mine.store.revision()
        assert mine.store.revision() == before
        other.ask(new_ask("0", "A"), survey)
        assert mine.store.revision() != before


def test_whoever_waits_waits_on_while_the_driver_is_away(
    ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask]
) -> None:
    blind = Survey(Inventory(problems=(Problem("version-mismatch", "The driver was replaced.", "Load it again."),)))
    for label in ("A", "B"):
        ledger.ask(new_ask("0:all", label), survey)
    assert ledger.ask(new_ask("0:all", "B"), blind, again=True).state is LeaseState.WAITING  # type: ignore[union-attr]
    with pytest.raises(RequestError, match="there is no GPU"):
        ledger.ask(new_ask("0:all", "C"), blind)
    ledger.release("A")
    assert ledger.ask(new_ask("0:all", "B"), survey, again=True).state is LeaseState.HELD  # type: ignore[union-attr]
