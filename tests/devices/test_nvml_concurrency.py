"""Several threads may ask at once, while devices change and the driver comes and goes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from nvml_stand_in import GIB, NVMLStandIn

from jupyter_gpu.devices.nvml import NVMLBackend

if TYPE_CHECKING:
    from collections.abc import Callable


def at_once(*work: Callable[[], None]) -> None:
    """Run the callables in threads of their own, and raise what they raise."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(work))

    def run(one: Callable[[], None]) -> None:
        start.wait()
        try:
            one()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_the_driver_is_initialised_once_however_many_ask_first(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    stand_in.add_gpu()
    stand_in.set_latency(500)
    stand_in.log_calls()

    def look() -> None:
        assert len(backend.inventory().devices) == 1

    at_once(*[look] * 8)
    assert stand_in.calls()["nvmlInitWithFlags", "-"] == 1


def test_every_thread_gets_whole_answers(stand_in: NVMLStandIn, backend: NVMLBackend) -> None:
    uuids = [stand_in.add_gpu() for _ in range(4)]
    for number, uuid in enumerate(uuids):
        for process in range(number + 1):
            stand_in.add_process(uuid, 100 * (number + 1) + process, (number + 1) * GIB, utilization=number + 1)

    def look() -> None:
        for _ in range(30):
            for number, uuid in enumerate(uuids):
                usage = backend.usage()[uuid]
                assert [p.pid for p in usage.processes or ()] == [100 * (number + 1) + p for p in range(number + 1)]
                assert {p.memory_bytes for p in usage.processes or ()} == {(number + 1) * GIB}
                assert {p.utilization_percent for p in usage.processes or ()} == {float(number + 1)}
            assert len(backend.inventory().devices) == 4

    at_once(*[look] * 6)


def test_threads_survive_a_driver_and_gpus_that_come_and_go(stand_in: NVMLStandIn) -> None:
    uuids = [stand_in.add_gpu(), stand_in.add_gpu()]
    stand_in.add_process(uuids[0], 11)
    backend = NVMLBackend(retry_interval_s=0.0, inventory_interval_s=0.0)
    finished = threading.Event()

    def look() -> None:
        while not finished.is_set():
            for usage in backend.usage(uuids).values():
                assert usage.memory_used_bytes is not None or usage.reasons
            assert {problem.code for problem in backend.inventory().problems} <= {
                "driver-not-loaded",
                "device-lost",
                "no-devices",
            }

    def disturb() -> None:
        try:
            for _ in range(15):
                stand_in.break_driver()
                stand_in.repair_driver()
                stand_in.lose(uuids[1], until_init=True)
                mig = stand_in.add_instance(uuids[0])
                backend.close()
                stand_in.found(uuids[1])
                stand_in.remove(mig)
                stand_in.set(uuids[0], mig=False)
        finally:
            finished.set()

    at_once(look, look, look, disturb)
    assert list(backend.usage()) == uuids
    assert backend.inventory().problems == ()
    backend.close()
