"""A ledger whose file is lost, or cannot be used for a while, loses no lease and keeps none for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jupyter_gpu.leases.lease import Lease, LeaseState
from jupyter_gpu.leases.ledger import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jupyter_gpu.devices.processes import ProcessKey
    from jupyter_gpu.leases.lease import Ask
    from jupyter_gpu.leases.ledger import Ledger
    from jupyter_gpu.leases.survey import Survey

GIB = 1 << 30


def ask(ledger: Ledger, asked: Ask, survey: Survey) -> Lease:
    lease = ledger.ask(asked, survey)
    assert isinstance(lease, Lease)
    return lease


@pytest.fixture
def lose_file(runtime_directory: Path) -> Callable[[], None]:
    def lose() -> None:
        for path in runtime_directory.glob("ledger.sqlite*"):
            path.unlink()

    return lose


@pytest.fixture
def unusable(runtime_directory: Path) -> Callable[[bool], None]:
    """Puts something else into the ledger's place, and the ledger back."""
    file, aside = runtime_directory / "ledger.sqlite", runtime_directory / "aside"

    def change(unusable: bool) -> None:
        if unusable:
            file.rename(aside)
            file.mkdir()
        else:
            file.rmdir()
            aside.rename(file)

    return change


def test_what_is_held_is_put_back_into_a_file_that_was_lost(
    new_ledger: Callable[..., Ledger],
    survey: Survey,
    new_ask: Callable[..., Ask],
    sleeper: Callable[..., Any],
    lose_file: Callable[[], None],
) -> None:
    mine = new_ledger()
    ask(mine, new_ask("0:8GiB,1:all", "A"), survey)
    before = mine.start("A", sleeper().key)
    lose_file()
    ask(new_ledger(), new_ask("0:all", "C", asker=sleeper().key), survey)
    lose_file()
    [after] = mine.leases()
    assert (after.id, after.holds, after.process, after.owner) == (
        before.id,
        before.holds,
        before.process,
        before.owner,
    )
    other = ask(new_ledger(), new_ask("0:33GiB", "B", asker=sleeper().key), survey)
    assert other.state is LeaseState.WAITING


def test_whoever_waited_waits_on_in_the_same_order(
    ledger: Ledger, survey: Survey, new_ask: Callable[..., Ask], lose_file: Callable[[], None]
) -> None:
    for label in ("A", "B", "C"):
        ask(ledger, new_ask("0:all", label), survey)
    lose_file()
    ledger.confirm_waiting("B")
    assert [(lease.id, lease.state.value) for lease in ledger.leases()] == [
        ("A", "held"),
        ("B", "waiting"),
        ("C", "waiting"),
    ]
    ledger.release("A")
    assert ledger.ask(new_ask("0:all", "C"), survey, again=True).state is LeaseState.WAITING  # type: ignore[union-attr]
    assert ledger.ask(new_ask("0:all", "B"), survey, again=True).state is LeaseState.HELD  # type: ignore[union-attr]


def test_what_others_were_given_meanwhile_stays_theirs(
    new_ledger: Callable[..., Ledger],
    survey: Survey,
    new_ask: Callable[..., Ask],
    sleeper: Callable[..., Any],
    lose_file: Callable[[], None],
) -> None:
    mine, other = new_ledger(), sleeper().key
    for label, request in (("A", "0:30GiB"), ("B", "1:30GiB"), ("C", "2:30GiB")):
        ask(mine, new_ask(request, label), survey)
    lose_file()
    theirs = new_ledger()
    ask(theirs, new_ask("0:11GiB", "D", asker=other), survey)
    ask(theirs, new_ask("1:10GiB", "E", asker=other), survey)
    ask(theirs, new_ask("2:all", "F", asker=other), survey)
    assert {lease.id for lease in mine.leases()} == {"B", "D", "E", "F"}


def test_what_has_ended_meanwhile_is_not_put_back(
    new_ledger: Callable[..., Ledger],
    survey: Survey,
    new_ask: Callable[..., Ask],
    sleeper: Callable[..., Any],
    lose_file: Callable[[], None],
    me: ProcessKey,
) -> None:
    watching, server, kernel = new_ledger(), sleeper(), sleeper()
    ask(watching, new_ask("0:8GiB", "orphan", asker=server.key), survey)
    watching.start("orphan", kernel.key)
    ask(watching, new_ask("1:8GiB", "of another that lives", asker=me._replace(pid=1)), survey)
    ask(watching, new_ask("2:8GiB", "ended", asker=server.key), survey)
    server.end()
    lose_file()
    assert [lease.id for lease in watching.leases()] == ["orphan"], "nobody else would put that one back"
    kernel.end()
    lose_file()
    assert watching.leases() == []


def test_a_lease_that_could_not_be_ended_goes_once_the_file_can_be_used(
    ledger: Ledger,
    survey: Survey,
    new_ask: Callable[..., Ask],
    sleeper: Callable[..., Any],
    unusable: Callable[[bool], None],
) -> None:
    kernel = sleeper()
    ask(ledger, new_ask("0:all"), survey)
    ledger.start("A", kernel.key)
    unusable(True)
    kernel.end()
    with pytest.raises(LedgerError):
        ledger.release("A")
    assert ledger.last_seen() == []
    unusable(False)
    assert ledger.leases() == []
    assert ask(ledger, new_ask("0:all", "B"), survey).state is LeaseState.HELD
    assert [lease.id for lease, _ in ledger.store.rows()] == ["B"]


def test_while_the_file_cannot_be_used_the_living_are_still_known(
    ledger: Ledger,
    survey: Survey,
    new_ask: Callable[..., Ask],
    sleeper: Callable[..., Any],
    unusable: Callable[[bool], None],
) -> None:
    first, second = sleeper(), sleeper()
    for label, process in (("A", first), ("B", second)):
        ask(ledger, new_ask("0:8GiB", label), survey)
        ledger.start(label, process.key)
    unusable(True)
    with pytest.raises(LedgerError):
        ledger.leases()
    first.end()
    assert [lease.id for lease in ledger.last_seen()] == ["B"]
    unusable(False)
