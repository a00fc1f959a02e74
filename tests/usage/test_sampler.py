"""When samples are taken, by whom, and who gets which."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from kernel_client import until
from observation import take_lease

from jupyter_gpu.devices.device import DeviceUsage
from jupyter_gpu.devices.simulated import SimulatedBackend
from jupyter_gpu.host import DriverSilent, GPUHost
from jupyter_gpu.usage.sampler import GPUSampler
from jupyter_gpu.usage.snapshot import Snapshot

INTERVAL_S = 0.1


class SlowBackend(SimulatedBackend):
    """Notes each look, and hangs while told to."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.looks: list[float] = []
        self.threads: set[str] = set()
        self.answers = threading.Event()
        self.answers.set()

    def usage(self, uuids: Sequence[str] | None = None) -> dict[str, DeviceUsage]:
        self.looks.append(time.monotonic())
        self.threads.add(threading.current_thread().name)
        self.answers.wait()
        return super().usage(uuids)


@pytest.fixture
def slow_host(simulated_gpus: str) -> GPUHost:
    return GPUHost(backend_class=SlowBackend, survey_timeout_s=0.5)


@pytest.fixture
def backend(slow_host: GPUHost) -> SlowBackend:
    assert isinstance(slow_host.backend, SlowBackend)
    return slow_host.backend


@pytest.fixture
def sampler(slow_host: GPUHost, backend: SlowBackend) -> Iterator[GPUSampler]:
    sampler = GPUSampler(host=slow_host, interval_s=INTERVAL_S, watched_for_s=0.3, policy_interval_s=0.3)
    yield sampler
    backend.answers.set()
    sampler.close()
    if sampler._thread is not None:
        sampler._thread.join(10)
        assert not sampler._thread.is_alive()
    slow_host.close()


async def test_nobody_watching_means_no_samples(sampler: GPUSampler, backend: SlowBackend) -> None:
    assert sampler._thread is None
    await sampler.watched()
    await until(lambda: time.monotonic() - backend.looks[-1] > 5 * INTERVAL_S, 10)
    assert len(backend.looks) <= 5, "it went on for no longer than watched_for_s"
    count = len(backend.looks)
    await asyncio.sleep(5 * INTERVAL_S)
    assert len(backend.looks) == count


async def test_the_number_of_clients_makes_no_difference(sampler: GPUSampler, backend: SlowBackend) -> None:
    begin = time.monotonic()
    answers: list[Snapshot] = []

    async def client() -> None:
        while time.monotonic() - begin < 10 * INTERVAL_S:
            answers.append(await sampler.watched())
            await asyncio.sleep(INTERVAL_S / 5)

    await asyncio.gather(*[client() for _ in range(16)])
    elapsed = time.monotonic() - begin
    assert len(answers) > 100
    assert len(backend.looks) <= elapsed / INTERVAL_S + 2
    assert len(backend.looks) >= 3
    assert {snapshot.stale for snapshot in answers} == {None}


async def test_it_is_one_thread_and_not_the_event_loops(sampler: GPUSampler, backend: SlowBackend) -> None:
    for _ in range(3):
        await asyncio.gather(*[sampler.watched() for _ in range(4)])
        await asyncio.sleep(INTERVAL_S)
    assert backend.threads == {"gpu-sampler"}
    assert [thread.name for thread in threading.enumerate()].count("gpu-sampler") == 1


async def test_whoever_comes_after_a_sleep_gets_a_fresh_sample(sampler: GPUSampler, backend: SlowBackend) -> None:
    first = await sampler.watched()
    await until(lambda: time.monotonic() - backend.looks[-1] > 5 * INTERVAL_S, 10)
    count = len(backend.looks)
    asked = time.monotonic()
    second = await sampler.watched()
    assert backend.looks[count] >= asked
    assert second.time - first.time > 4 * INTERVAL_S


async def test_clients_that_come_at_once_share_the_first_sample(sampler: GPUSampler, backend: SlowBackend) -> None:
    snapshots = await asyncio.gather(*[sampler.watched() for _ in range(16)])
    assert len({snapshot.number for snapshot in snapshots}) == 1
    assert len(backend.looks) == 1


async def test_one_who_does_not_watch_gets_one_sample(sampler: GPUSampler, backend: SlowBackend) -> None:
    await sampler.current()
    await asyncio.sleep(3 * INTERVAL_S)
    assert len(backend.looks) == 1


async def test_a_policy_has_samples_at_its_own_pace_until_it_needs_no_more(
    sampler: GPUSampler, backend: SlowBackend
) -> None:
    told: list[Snapshot] = []
    sampler.listen(told.append)
    need = sampler.need()
    await until(lambda: len(told) >= 3, 10)
    gaps = [after - before for before, after in zip(backend.looks, backend.looks[1:], strict=False)]
    assert min(gaps) >= 0.29
    need.close()
    count = len(backend.looks)
    await asyncio.sleep(0.5)
    assert len(backend.looks) <= count + 1


async def test_what_this_process_changes_shows_at_once(sampler: GPUSampler, slow_host: GPUHost) -> None:
    sampler.interval_s = 60
    before = await sampler.watched()
    lease = take_lease(slow_host, "1:8GiB")
    after = await sampler.watched()
    assert lease.id in after.lease_of
    assert after.time == before.time, "the devices were not looked at for it"
    slow_host.ledger.release(lease.id)
    assert lease.id not in (await sampler.watched()).lease_of


async def test_the_hosts_last_survey_is_the_samplers(sampler: GPUSampler, slow_host: GPUHost) -> None:
    snapshot = await sampler.watched()
    assert slow_host.last_survey is snapshot.survey


async def test_a_listener_that_fails_keeps_nobody_from_their_sample(sampler: GPUSampler) -> None:
    told: list[Snapshot] = []

    def fail(_: Snapshot) -> None:
        raise ValueError("sorry")

    sampler.listen(fail)
    sampler.listen(told.append)
    snapshot = await sampler.watched()
    assert told[0] == snapshot


class TestADriverThatHangs:
    async def test_clients_get_what_was_seen_last_and_why(
        self, sampler: GPUSampler, backend: SlowBackend, slow_host: GPUHost
    ) -> None:
        before = await sampler.watched()
        backend.answers.clear()
        stale = await _until_stale(sampler)
        assert stale.stale.startswith("The GPU driver has not answered for ")
        assert "nvidia-smi" in stale.stale
        assert stale.survey.usage.keys() == before.survey.usage.keys()

    async def test_nobody_waits_again_for_what_is_known_to_hang(
        self, sampler: GPUSampler, backend: SlowBackend
    ) -> None:
        await sampler.watched()
        backend.answers.clear()
        await _until_stale(sampler)
        begin = time.monotonic()
        answers = await asyncio.gather(*[sampler.watched() for _ in range(50)])
        assert time.monotonic() - begin < 0.2
        assert all(answer.stale for answer in answers)
        assert len([thread for thread in threading.enumerate() if thread.name == "gpu-sampler"]) == 1

    async def test_the_event_loop_goes_on(self, sampler: GPUSampler, backend: SlowBackend) -> None:
        backend.answers.clear()
        waiting = asyncio.ensure_future(sampler.watched())
        longest = 0.0
        for _ in range(20):
            begin = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - begin)
        assert not waiting.done()
        assert longest < 0.2
        with pytest.raises(DriverSilent, match="nothing was seen before"):
            await waiting

    async def test_it_is_over_when_the_driver_answers(self, sampler: GPUSampler, backend: SlowBackend) -> None:
        await sampler.watched()
        backend.answers.clear()
        await _until_stale(sampler)
        backend.answers.set()
        await until(lambda: sampler.recent() is not None, 10)
        assert (await sampler.watched()).stale is None

    async def test_it_keeps_nobody_from_closing(self, sampler: GPUSampler, backend: SlowBackend) -> None:
        backend.answers.clear()
        waiting = asyncio.ensure_future(sampler.watched())
        await until(lambda: backend.looks, 10)
        begin = time.monotonic()
        sampler.close()
        assert time.monotonic() - begin < 0.1
        with pytest.raises(DriverSilent):
            await waiting


async def _until_stale(sampler: GPUSampler) -> Snapshot:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        snapshot = await sampler.watched()
        if snapshot.stale:
            return snapshot
        await asyncio.sleep(0.02)
    raise AssertionError("it is never told that the driver hangs")


class TestALedgerThatCannotBeUsed:
    @pytest.fixture
    def garbage(self, slow_host: GPUHost, runtime_directory: Path) -> Callable[[], Path]:
        def spoil() -> Path:
            slow_host.ledger.close()
            for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
                (runtime_directory / name).unlink(missing_ok=True)
            path = runtime_directory / "ledger.sqlite"
            path.write_bytes(b"garbage" * 1000)
            return path

        return spoil

    async def test_it_is_said_and_over_at_once_when_repaired(
        self, sampler: GPUSampler, garbage: Callable[[], Path]
    ) -> None:
        sampler.interval_s = 60
        path = garbage()
        for _ in range(2):
            problem = (await sampler.watched()).ledger_problem
            assert problem is not None
            assert "cannot be used" in problem
        path.unlink()
        repaired = await sampler.watched()
        assert (repaired.ledger_problem, repaired.leases) == (None, [])

    async def test_the_driver_is_not_asked_more_often_for_it(
        self, sampler: GPUSampler, backend: SlowBackend, garbage: Callable[[], Path]
    ) -> None:
        sampler.interval_s = 60
        garbage()
        for _ in range(20):
            assert (await sampler.watched()).ledger_problem is not None
        assert len(backend.looks) == 1
