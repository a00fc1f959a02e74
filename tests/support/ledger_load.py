"""Many processes that take and return leases at once, some of them killed, and what of it can be checked and timed.

What each worker holds is also noted in memory that the workers share, apart from the ledger. So that the ledger keeps
its promise is not told by the ledger itself: a worker that was granted a lease adds up what all living workers hold.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from jupyter_gpu.devices.device import Device, Inventory
from jupyter_gpu.devices.processes import ProcessKey, is_alive, process_key
from jupyter_gpu.leases.lease import Ask, Lease, LeaseState, Origin, Owner
from jupyter_gpu.leases.ledger import Ledger
from jupyter_gpu.leases.request import Hold
from jupyter_gpu.leases.store import LedgerStore
from jupyter_gpu.leases.survey import Survey
from jupyter_gpu.limits.caps import AccountKeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

GIB = 1 << 30
DEVICES = tuple(Device(f"GPU-{number:08d}", str(number), "NVIDIA A100-SXM4-40GB", 40 * GIB) for number in range(4))
REQUESTS = ("auto:4GiB", "auto:10%", "1:8GiB", "2x:5GiB", "auto", "3", "auto:16GiB", "cpu", "2:all", "0:30GiB")

_SAMPLE = struct.Struct("=Bd")
_GRANT, _EMPTY, _EMPTY_ELSEWHERE = range(3)


@dataclass
class Result:
    """What came of it. Durations are in seconds."""

    rounds: int = 0
    killed: int = 0
    seconds: float = 0.0
    grants: list[float] = field(default_factory=list)
    empty: list[float] = field(default_factory=list)
    """Empty transactions on the ledger's own file, in the same queue."""
    empty_elsewhere: list[float] = field(default_factory=list)
    """Empty transactions on another file with the same settings, which hold no work but each other."""
    violations: int = 0
    left_over: int = 0
    """Leases in the ledger, and accounts of leases, once all workers had ended."""
    failures: int = 0
    """Workers that ended by an error of their own."""


class Board:
    """Who holds how much of which device, in memory that forked processes share.

    Each worker writes its own place only. `sequence` is odd while it does, so that readers know a moment from a blur.
    """

    _HEAD = 4  # sequence, pid, start time, rounds

    def __init__(self, workers: int) -> None:
        self._words = self._HEAD + len(DEVICES)
        self.workers = workers
        self._memory = memoryview(mmap.mmap(-1, 8 * (2 + workers * self._words))).cast("q")

    @property
    def stopped(self) -> bool:
        return bool(self._memory[0])

    def stop(self) -> None:
        self._memory[0] = 1

    @property
    def violations(self) -> int:
        return int(self._memory[1])

    def violation(self) -> None:
        self._memory[1] += 1

    def enter(self, worker: int, process: ProcessKey) -> None:
        at = self._at(worker)
        self._memory[at + 1], self._memory[at + 2] = process
        self.hold(worker, {})

    def hold(self, worker: int, amounts: dict[str, int]) -> None:
        at = self._at(worker)
        self._memory[at] |= 1
        for number, device in enumerate(DEVICES):
            self._memory[at + self._HEAD + number] = amounts.get(device.uuid, 0)
        self._memory[at] += 1

    def count_round(self, worker: int) -> None:
        self._memory[self._at(worker) + 3] += 1

    @property
    def rounds(self) -> int:
        return sum(self._memory[self._at(worker) + 3] for worker in range(self.workers))

    def overcommitted(self) -> bool:
        """Whether living workers hold more of a device than it has, at one moment."""
        first = list(self._snapshot())
        if first != list(self._snapshot()):
            return False  # somebody moved meanwhile: whoever is granted a lease next looks again
        living = [
            amounts
            for sequence, pid, start, amounts in first
            if pid and not sequence & 1 and any(amounts) and is_alive(ProcessKey(pid, start))
        ]
        return any(sum(held[n] for held in living) > device.memory_bytes for n, device in enumerate(DEVICES))

    def _snapshot(self) -> Iterator[tuple[int, int, int, tuple[int, ...]]]:
        for worker in range(self.workers):
            at = self._at(worker)
            head = self._memory[at : at + 3].tolist()
            yield (*head, tuple(self._memory[at + self._HEAD : at + self._words]))

    def _at(self, worker: int) -> int:
        return 2 + worker * self._words


def run(
    directory: Path,
    *,
    workers: int = 16,
    rounds: int = 10_000,
    limit_s: float = 55.0,
    most_between_kills_s: float = 0.5,
    seed: int = 0,
) -> Result:
    """Take and return leases `rounds` times in all, from `workers` processes at once.

    A round is one request: granted, held for a moment and returned, or refused because nothing was free. Now and then
    a worker is killed at whatever it does, and another takes its place.
    """
    random.seed(seed)
    board = Board(workers)
    result = Result()
    began = time.monotonic()
    pids = {_fork(directory, board, worker, seed + worker): worker for worker in range(workers)}
    next_kill = began
    generation = workers
    while board.rounds < rounds and time.monotonic() - began < limit_s and not result.failures:
        time.sleep(0.005)
        if time.monotonic() >= next_kill:
            next_kill = time.monotonic() + random.uniform(0.2, 1.0) * most_between_kills_s
            victim = random.choice(list(pids))
            os.kill(victim, signal.SIGKILL)
            result.killed += 1
        for pid in list(pids):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                result.failures += not os.WIFSIGNALED(status)
                generation += 1
                worker = pids.pop(pid)
                pids[_fork(directory, board, worker, seed + generation)] = worker
    board.stop()
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        result.failures += status != 0 and not os.WIFSIGNALED(status)
    result.seconds = time.monotonic() - began
    result.rounds, result.violations = board.rounds, board.violations
    for path in directory.glob("samples-*"):
        for kind, duration in _SAMPLE.iter_unpack(_whole(path.read_bytes())):
            (result.grants, result.empty, result.empty_elsewhere)[int(kind)].append(duration)
    keeper = AccountKeeper(directory)
    ledger = Ledger(directory, on_change=keeper.apply)
    ledger.drop_dead()
    me = process_key()
    assert me is not None
    # A last lease, since accounts are put in order when something changes.
    ledger.ask(Ask("last", "cpu", Origin.API, Owner("command", "load"), me), Survey(Inventory(DEVICES)))
    ledger.release("last")
    result.left_over = len(ledger.store.rows()) + len(list(keeper.directory.iterdir()))
    ledger.close()
    return result


def percentile(durations: Sequence[float], percent: float) -> float:
    """The duration that `percent` of them do not pass, in milliseconds."""
    ordered = sorted(durations)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _fork(directory: Path, board: Board, worker: int, seed: int) -> int:
    pid = os.fork()
    if not pid:
        _work(directory, board, worker, seed)
    return pid


def _work(directory: Path, board: Board, worker: int, seed: int) -> NoReturn:
    status = 1
    try:
        _take_and_return(directory, board, worker, random.Random(seed))
        status = 0
    except BaseException as error:  # noqa: BLE001 - this process is a fork and must not go on as its parent
        os.write(2, f"worker {worker}: {type(error).__name__}: {error}\n".encode())
    os._exit(status)


def _take_and_return(directory: Path, board: Board, worker: int, chance: random.Random) -> None:
    me = process_key()
    assert me is not None
    board.enter(worker, me)
    # As the server wires them: every change of the ledger also keeps the accounts of all leases.
    keeper = AccountKeeper(directory)
    keeper.know(DEVICES)

    def changed(leases: Sequence[Lease]) -> Callable[[], None]:
        if _reserves_too_much(leases):
            board.violation()
        return keeper.apply(leases)

    ledger = Ledger(directory, on_change=changed, accounted=keeper.accounted)
    beside = LedgerStore(directory / "beside")
    samples = os.open(str(directory / f"samples-{me.pid}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    survey = Survey(Inventory(DEVICES))
    for number in range(1_000_000):
        if board.stopped:
            return
        # Before or after, by chance: whoever comes first in a turn of the processor seems quicker.
        empty_first = chance.random() < 0.5
        if empty_first:
            _time_empty(ledger.store, beside, samples)
        ask = Ask(f"{me.pid}-{number}", chance.choice(REQUESTS), Origin.API, Owner("command", "load"), me, wait=False)
        began = time.perf_counter()
        lease = ledger.ask(ask, survey)
        seconds = time.perf_counter() - began
        board.count_round(worker)
        if not empty_first:
            _time_empty(ledger.store, beside, samples)
        if not isinstance(lease, Lease):
            continue
        os.write(samples, _SAMPLE.pack(_GRANT, seconds))
        assert lease.state is LeaseState.HELD
        totals = {device.uuid: device.memory_bytes for device in DEVICES}
        board.hold(
            worker,
            {h.uuid: totals[h.uuid] if h.hold is Hold.WHOLE else h.bytes or 0 for h in lease.holds},  # type: ignore[misc]
        )
        if board.overcommitted():
            board.violation()
        time.sleep(chance.uniform(0, 0.004))
        board.hold(worker, {})
        # Some are left to be found dead: a lease whose process ends is dropped by the next decision.
        ledger.release(lease.id)


def _time_empty(store: LedgerStore, beside: LedgerStore, samples: int) -> None:
    for kind, each in ((_EMPTY, store), (_EMPTY_ELSEWHERE, beside)):
        began = time.perf_counter()
        with each.transaction():
            pass
        os.write(samples, _SAMPLE.pack(kind, time.perf_counter() - began))


def _reserves_too_much(leases: Sequence[Lease]) -> bool:
    for device in DEVICES:
        holds = [hold for lease in leases for hold in lease.holds if hold.uuid == device.uuid]
        if any(hold.hold is Hold.WHOLE for hold in holds) and len(holds) > 1:
            return True
        if sum(hold.bytes or 0 for hold in holds) > device.memory_bytes:
            return True
    return False


def _whole(content: bytes) -> bytes:
    """Without a last record that a killed worker did not finish."""
    return content[: len(content) // _SAMPLE.size * _SAMPLE.size]
