"""What is remembered of use over time."""

from __future__ import annotations

import dataclasses
import itertools
import json
import tracemalloc
from collections.abc import Mapping
from typing import Any

from jupyter_gpu.devices.device import Device, DeviceUsage, Inventory
from jupyter_gpu.devices.processes import ProcessKey
from jupyter_gpu.leases.lease import Lease, LeaseState, Origin, Owner
from jupyter_gpu.leases.survey import Survey
from jupyter_gpu.usage.attribution import LeaseUse
from jupyter_gpu.usage.history import History
from jupyter_gpu.usage.snapshot import Snapshot

MIB = 1 << 20
ME = ProcessKey(1, 1)


def seen(
    time: float,
    devices: Mapping[str, tuple[int | None, float | None]],
    kernels: Mapping[tuple[str, str], tuple[int | None, float | None]] | None = None,
) -> Snapshot:
    """A snapshot of devices and of kernels on devices, each with bytes and percent."""
    leases = {
        kernel_id: Lease(
            id=f"lease of {kernel_id}",
            ticket=1,
            state=LeaseState.HELD,
            request="auto",
            origin=Origin.API,
            owner=Owner("kernel", kernel_id, kernel_id),
            asker=ME,
            process=ME,
            holds=(),
            created=0.0,
            granted=0.0,
        )
        for kernel_id, _ in kernels or {}
    }
    return Snapshot(
        number=1,
        time=time,
        survey=Survey(
            Inventory(tuple(Device(uuid, "0", "A100", None) for uuid in devices)),
            {
                uuid: DeviceUsage(uuid, memory_used_bytes=memory, utilization_percent=percent)
                for uuid, (memory, percent) in devices.items()
            },
        ),
        leases=list(leases.values()),
        caps={},
        uses={
            (leases[kernel_id].id, uuid): LeaseUse(memory, "nvml", percent)
            for (kernel_id, uuid), (memory, percent) in (kernels or {}).items()
        },
        marks={},
        busy_at={},
        process=ME,
        lease_of={lease.id: lease for lease in leases.values()},
    )


def told(history: History, since: float = 0.0) -> Any:
    return json.loads(history.body(since, 1.0))


def test_before_the_first_sample_there_is_nothing() -> None:
    assert told(History()) == {"time": 0.0, "step_s": 1.0, "devices": {}, "kernels": {}}


def test_devices_and_kernels_have_columns_of_the_same_length() -> None:
    history = History()
    history.add(seen(100.001, {"GPU-a": (5, 1.4)}, {("k", "GPU-a"): (3, 50.6)}))
    history.add(seen(101.002, {"GPU-a": (6, 2.0)}, {("k", "GPU-a"): (4, 51.0)}))
    assert told(history) == {
        "time": 101.002,
        "step_s": 1.0,
        "devices": {"GPU-a": {"t": [100.001, 101.002], "memory": [5, 6], "utilization": [1, 2]}},
        "kernels": {"k": {"GPU-a": {"t": [100.001, 101.002], "memory": [3, 4], "utilization": [51, 51]}}},
    }


def test_since_gives_only_what_is_new() -> None:
    history = History()
    for time in (100.0, 101.0, 102.0):
        history.add(seen(time, {"GPU-a": (int(time), 0)}))
    last = told(history)["time"]
    assert told(history, 101.0)["devices"]["GPU-a"] == {"t": [102.0], "memory": [102], "utilization": [0]}
    assert told(history, last)["devices"] == {}
    history.add(seen(103.0, {"GPU-a": (103, 0)}))
    assert told(history, last)["devices"]["GPU-a"]["t"] == [103.0]


def test_the_same_sample_twice_is_one_point() -> None:
    history = History()
    for time in (100.0, 100.0, 99.0):
        history.add(seen(time, {"GPU-a": (1, 1)}))
    assert told(history)["devices"]["GPU-a"]["t"] == [100.0]


def test_unknown_is_null_and_moments_without_any_figure_are_left_out() -> None:
    history = History()
    history.add(seen(100.0, {"GPU-a": (None, 7.0)}))
    history.add(seen(101.0, {"GPU-a": (None, None)}))
    history.add(seen(102.0, {"GPU-a": (8, None)}))
    assert told(history)["devices"]["GPU-a"] == {"t": [100.0, 102.0], "memory": [None, 8], "utilization": [7, None]}


def test_a_kernel_that_comes_later_and_goes_has_the_moments_in_which_it_was_there() -> None:
    history = History()
    for time in range(100, 106):
        kernels = {("k", "GPU-a"): (time, 0.0)} if 102 <= time < 104 else {}
        history.add(seen(float(time), {"GPU-a": (0, 0)}, kernels))
    assert told(history)["kernels"]["k"]["GPU-a"]["t"] == [102.0, 103.0]
    assert told(history)["devices"]["GPU-a"]["t"] == [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]


def test_minutes_are_fine_and_hours_coarse_with_the_most_memory_and_the_mean_utilisation() -> None:
    history = History(fine_points=10, coarse_points=100, coarse_step_s=5.0)
    for time in range(1, 101):
        history.add(seen(float(time), {"GPU-a": (time, 10.0 if time % 5 else 60.0)}))
    series = told(history)["devices"]["GPU-a"]
    times = series["t"]
    assert times == sorted(times)
    fine = times[-10:]
    assert fine == [float(time) for time in range(91, 101)]
    coarse = [time for time in times if time < 88]
    assert {after - before for before, after in itertools.pairwise(coarse[1:])} == {5.0}
    at = {time: (memory, percent) for time, memory, percent in zip(*series.values(), strict=True)}
    memory, percent = at[coarse[5]]
    assert memory == coarse[5], "the most of the step is that of its end, as it grows"
    assert percent == 20, "four samples of 10 % and one of 60 %"


def test_one_who_was_away_for_long_gets_coarse_points_for_that_time() -> None:
    history = History(fine_points=10, coarse_points=100, coarse_step_s=5.0)
    for time in range(1, 101):
        history.add(seen(float(time), {"GPU-a": (time, 0.0)}))
    times = told(history, 60.0)["devices"]["GPU-a"]["t"]
    assert times[0] > 60.0
    assert times[-1] == 100.0
    assert 10 < len(times) < 25


def test_memory_is_bounded_however_long_it_runs() -> None:
    history = History(fine_points=50, coarse_points=50, coarse_step_s=2.0, gone_for_s=100.0)
    devices = {f"GPU-{number}": (MIB, 5.0) for number in range(8)}

    def run(begin: int, end: int) -> None:
        for time in range(begin, end):
            # Kernels come and go all the time.
            kernels = {(f"kernel {time // 10} {number}", "GPU-0"): (MIB, 1.0) for number in range(4)}
            history.add(seen(float(time), devices, kernels))

    tracemalloc.start()
    run(1, 2500)
    first = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    run(2500, 5000)
    second = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert second < 1.1 * first


def test_the_series_of_what_is_gone_are_dropped_after_a_while() -> None:
    history = History(fine_points=1000, coarse_points=1000, coarse_step_s=5.0, gone_for_s=30.0)
    history.add(seen(100.0, {"GPU-a": (1, 1.0)}, {("k", "GPU-a"): (1, 1.0)}))
    for time in range(101, 129):
        history.add(seen(float(time), {"GPU-a": (1, 1.0)}))
    assert "k" in told(history)["kernels"]
    for time in range(129, 140):
        history.add(seen(float(time), {"GPU-a": (1, 1.0)}))
    assert told(history)["kernels"] == {}


def test_a_kernel_with_two_leases_for_a_moment_is_one_series() -> None:
    history = History()
    snapshot = seen(100.0, {"GPU-a": (9, 1.0)}, {("k", "GPU-a"): (3, 5.0)})
    [lease] = snapshot.leases
    [use] = snapshot.uses.values()
    twice = dataclasses.replace(
        snapshot,
        uses={(lease.id, "GPU-a"): use, ("next", "GPU-a"): LeaseUse(0, "nvml", 0.0)},
        lease_of={lease.id: lease, "next": dataclasses.replace(lease, id="next")},
    )
    history.add(twice)
    assert told(history)["kernels"]["k"]["GPU-a"] == {"t": [100.0], "memory": [3], "utilization": [5]}
