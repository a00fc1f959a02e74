"""Placement: each rule, and what holds whatever the devices and requests are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_gpu.devices.device import Device
from jupyter_gpu.leases.placement import DeviceState, LeaseHold, Unplaced, check, place, resolve
from jupyter_gpu.leases.request import GPURequest, Hold, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GIB = 1 << 30


def placed(request: str, states: Sequence[DeviceState]) -> list[str]:
    """The indices of the devices that were chosen."""
    holds = place(GPURequest.parse(request), states)
    assert not isinstance(holds, Unplaced), holds.message
    by_uuid = {state.device.uuid: state.device.index for state in states}
    return [by_uuid[hold.uuid] for hold in holds]


def unplaced(request: str, states: Sequence[DeviceState]) -> Unplaced:
    result = place(GPURequest.parse(request), states)
    assert isinstance(result, Unplaced)
    return result


@pytest.fixture
def states(four: tuple[Device, ...]) -> list[DeviceState]:
    return [DeviceState(device) for device in four]


def but(states: list[DeviceState], **changes: dict[str, object]) -> list[DeviceState]:
    """The states with changes to devices, named `gpu0` and so on."""
    return [replace(state, **changes.get(f"gpu{n}", {})) for n, state in enumerate(states)]  # type: ignore[arg-type]


WHOLE = {"whole": True, "lease_count": 1, "holders": ("A.ipynb",)}
SHARED = {"lease_count": 1, "holders": ("A.ipynb",)}


def test_the_cpu_takes_no_device(states: list[DeviceState]) -> None:
    assert place(GPURequest.parse("cpu"), states) == ()
    assert place(GPURequest.parse("cpu"), []) == ()


def test_what_is_held_whole_takes_nobody_else(states: list[DeviceState]) -> None:
    states = but(states, gpu1=WHOLE)
    for request in ("1", "1:1GiB", "1:all"):
        result = unplaced(request, states)
        assert "GPU 1, held by A.ipynb" in result.message
        assert result.candidates == (states[1].device.uuid,)


def test_a_device_that_does_not_answer_takes_nobody_until_it_does(states: list[DeviceState]) -> None:
    lost = but(states, gpu1={"lost": True, "reserved_bytes": 30 * GIB})
    assert placed("auto:1GiB", lost) != ["1"], "though it fits there most tightly"
    assert placed("3x", lost) == ["0", "2", "3"]
    for request in ("1", "1:all"):
        assert unplaced(request, lost).message == "waits for GPU 1, which does not answer"
        assert placed(request, states) == ["1"]
    assert unplaced("4x", lost).candidates


@pytest.mark.parametrize("holder", [SHARED, {"reserved_bytes": GIB, "lease_count": 1}])
def test_a_whole_hold_needs_a_device_that_nobody_holds(states: list[DeviceState], holder: dict[str, object]) -> None:
    unplaced("0:all", but(states, gpu0=holder))
    assert placed("auto:all", but(states, gpu0=holder, gpu1=holder)) == ["2"]


def test_a_reservation_needs_memory_that_nobody_else_has(states: list[DeviceState]) -> None:
    taken = {"reserved_bytes": 10 * GIB, "foreign_bytes": 8 * GIB, "unreserved_use_bytes": 2 * GIB, "lease_count": 2}
    assert placed("0:20GiB", but(states, gpu0=taken)) == ["0"]
    result = unplaced("0:21GiB", but(states, gpu0=taken))
    assert result.message.startswith("waits for 21 GiB on GPU 0")


def test_a_share_is_of_the_device_it_is_placed_on(device: Callable[..., Device]) -> None:
    states = [DeviceState(device("0", memory_bytes=16 * GIB)), DeviceState(device("1", memory_bytes=80 * GIB))]
    first, second = place(GPURequest.parse("0,1:25%"), states)  # type: ignore[misc]
    assert (first.bytes, second.bytes) == (4 * GIB, 20 * GIB)


def test_a_shared_hold_goes_where_the_most_memory_is_neither_reserved_nor_foreign(states: list[DeviceState]) -> None:
    changed = but(
        states,
        gpu0={"reserved_bytes": 20 * GIB},
        gpu1={"foreign_bytes": 20 * GIB},
        gpu2={"reserved_bytes": 10 * GIB, "lease_count": 5, "utilization_percent": 99.0},
        gpu3={"foreign_bytes": 11 * GIB},
    )
    assert placed("auto", changed) == ["2"]


def test_then_where_the_fewest_leases_are_then_by_utilisation_then_by_index(states: list[DeviceState]) -> None:
    busy = {"utilization_percent": 80.0}
    idle = {"utilization_percent": 5.0}
    unknown: dict[str, object] = {"utilization_percent": None}
    shared = {"lease_count": 1, "utilization_percent": 0.0}
    assert placed("auto", but(states, gpu0=shared, gpu1=busy, gpu2=shared, gpu3=shared)) == ["1"]
    assert placed("auto", but(states, gpu0=busy, gpu1=busy, gpu2=idle, gpu3=busy)) == ["2"]
    assert placed("auto", but(states, gpu0=unknown, gpu1=busy, gpu2=unknown, gpu3=unknown)) == ["1"]
    assert placed("auto", states) == ["0"]


def test_what_leases_use_without_having_reserved_it_does_not_stand_in_a_shared_holds_way(
    states: list[DeviceState],
) -> None:
    everything = {"unreserved_use_bytes": 40 * GIB, "lease_count": 1}
    assert placed("0", but(states, gpu0=everything)) == ["0"]


def test_indices_are_ordered_as_numbers(device: Callable[..., Device]) -> None:
    states = [DeviceState(device(index)) for index in ("10", "9", "2")]
    assert placed("auto", states) == ["2"]
    assert placed("3x", states) == ["2", "9", "10"]


def test_a_reservation_goes_where_it_fits_most_tightly(states: list[DeviceState]) -> None:
    changed = but(states, gpu1={"reserved_bytes": 20 * GIB}, gpu2={"reserved_bytes": 30 * GIB})
    assert placed("auto:8GiB", changed) == ["2"]
    assert placed("auto:15GiB", changed) == ["1"]
    assert placed("auto:30GiB", changed) == ["0"]


def test_several_devices_are_given_in_index_order_of_those_that_suit_best(states: list[DeviceState]) -> None:
    changed = but(states, gpu0={"reserved_bytes": 20 * GIB}, gpu2={"reserved_bytes": 30 * GIB})
    assert placed("2x", changed) == ["1", "3"]
    assert placed("2x:5GiB", changed) == ["0", "2"]


def test_listed_devices_are_given_in_the_order_asked_for(states: list[DeviceState]) -> None:
    holds = place(GPURequest.parse("2:4GiB,0:all,1:shared"), states)
    assert holds == (
        LeaseHold(states[2].device.uuid, Hold.RESERVED, 4 * GIB),
        LeaseHold(states[0].device.uuid, Hold.WHOLE),
        LeaseHold(states[1].device.uuid, Hold.SHARED),
    )


@pytest.mark.parametrize(
    ("request_", "awaited", "passes"),
    [
        ("0", Hold.SHARED, True),
        ("0", Hold.RESERVED, True),
        ("0", Hold.WHOLE, False),
        ("0:1GiB", Hold.SHARED, True),
        ("0:1GiB", Hold.RESERVED, False),
        ("0:1GiB", Hold.WHOLE, False),
        ("0:all", Hold.SHARED, False),
        ("0:all", Hold.RESERVED, False),
        ("0:all", Hold.WHOLE, False),
    ],
)
def test_nobody_passes_those_that_it_would_keep_waiting(
    states: list[DeviceState], request_: str, awaited: Hold, passes: bool
) -> None:
    changed = but(states, gpu0={"awaited": frozenset({awaited})})
    assert isinstance(place(GPURequest.parse(request_), changed), Unplaced) is not passes
    if not passes:
        assert "for which others wait already" in unplaced(request_, changed).message


def test_a_mig_instance_is_never_combined(device: Callable[..., Device]) -> None:
    states = [
        DeviceState(device("0", mig_enabled=True)),
        DeviceState(device("0.0", memory_bytes=20 * GIB)),
        DeviceState(device("0.1", memory_bytes=20 * GIB)),
        DeviceState(device("1")),
    ]
    assert placed("0.1", states) == ["0.1"]
    assert placed("auto:16GiB", states) == ["0.0"]
    with pytest.raises(RequestError, match="combines a MIG instance with another device"):
        placed("0.0,1", states)
    with pytest.raises(RequestError, match="there is 1 that can be combined"):
        placed("2x", states)


def test_a_divided_gpu_cannot_be_asked_for_but_its_instances_are_named(device: Callable[..., Device]) -> None:
    states = [DeviceState(device("0", mig_enabled=True)), DeviceState(device("0.0")), DeviceState(device("0.3"))]
    with pytest.raises(RequestError, match=r"GPU 0 is divided into MIG instances; ask for one of them: 0\.0, 0\.3"):
        placed("0", states)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ("4", r"there is no GPU 4; there is 0 \(NVIDIA A100-SXM4-40GB\), 1 \("),
        ("0.1", "there is no GPU 0.1"),
        ("GPU-ffff", "there is no GPU GPU-ffff"),
        ("GPU-0000000", "is the beginning of 4 GPUs' UUIDs; write more of it"),
        ("0,GPU-00000000", "names one GPU twice"),
        ("5x", "asks for 5 GPUs, but there are 4"),
        ("1xH100", "no GPU's name contains 'H100'; there is 0"),
        ("0:41GiB", "41GiB is more memory than there is: GPU 0 has 40 GiB"),
        ("auto:41GiB", "41GiB is more memory than there is: the largest GPU has 40 GiB"),
        ("2x:50GB", "too few GPUs have that"),
    ],
)
def test_what_can_never_be_had_is_refused_with_what_there_is(
    states: list[DeviceState], request_: str, says: str
) -> None:
    taken = [replace(state, whole=True, lease_count=1) for state in states]
    for each in (states, taken):
        with pytest.raises(RequestError, match=says):
            place(GPURequest.parse(request_), each)
    with pytest.raises(RequestError, match=says):
        check(GPURequest.parse(request_), [state.device for state in states])


def test_where_there_is_no_gpu_only_the_cpu_can_be_had() -> None:
    for request in ("auto", "0", "2x", "1xH100"):
        with pytest.raises(RequestError, match="there is no GPU here, only cpu"):
            check(GPURequest.parse(request), [])


def test_what_could_be_had_later_is_no_error(states: list[DeviceState]) -> None:
    for request in ("auto", "0:all", "4x:40GiB", "0,1,2,3"):
        check(GPURequest.parse(request), [state.device for state in states])
    changed = [replace(state, whole=True, lease_count=1, holders=("A", "B")) for state in states]
    assert unplaced("2x:all", changed).message == "waits for 2 GPUs to itself; held by A, B"
    assert (
        unplaced("auto:8GiB", changed).message
        == "waits for a GPU with 8GiB free; none has memory free now; held by A, B"
    )


def test_memory_of_a_device_that_does_not_tell_its_own_cannot_be_reserved(device: Callable[..., Device]) -> None:
    states = [DeviceState(device("0", "NVIDIA GB10", None))]
    assert placed("0", states) == placed("0:all", states) == placed("auto", states) == ["0"]
    for request in ("0:1GiB", "auto:25%"):
        with pytest.raises(RequestError, match="does not tell how much memory it has"):
            placed(request, states)


def test_a_name_that_is_the_whole_word_goes_before_one_that_contains_it(device: Callable[..., Device]) -> None:
    states = [DeviceState(device("0", "NVIDIA RTX 6000 Ada Generation")), DeviceState(device("1", "NVIDIA RTX 6000"))]
    assert placed("1xnvidia-rtx-6000", states) == ["1"]
    assert placed("1xrtx-6000", states) == ["0"]


def test_a_uuid_or_the_beginning_of_one_names_a_device_in_any_case(device: Callable[..., Device]) -> None:
    devices = [device("0"), device("1"), device("10")]
    assert resolve("GPU-00000001", devices).index == "1"
    assert resolve("GPU-0000001", devices).index == "10"
    assert resolve("gpu-00000000".upper(), devices).index == "0"


sizes = st.integers(min_value=0, max_value=48).map(lambda size: size * GIB)
request_texts = st.one_of(
    st.sampled_from(["cpu", "auto", "auto:all", "0", "1", "2:all", "0,1", "0.0", "2x", "3x:all", "2xA100", "1xH100"]),
    st.builds("{}:{}GiB".format, st.sampled_from(["auto", "0", "1", "2x", "0.1", "0,1"]), st.integers(1, 48)),
    st.builds("{}:{}%".format, st.sampled_from(["auto", "0", "2x", "1,2"]), st.integers(1, 100)),
    st.builds("0:{}GiB,1:shared,2:all".format, st.integers(1, 40)),
)


@st.composite
def some_states(draw: st.DrawFn) -> list[DeviceState]:
    """Up to four GPUs, perhaps one of them divided, with anything going on."""
    devices = [
        Device(
            f"GPU-{n}",
            str(n),
            draw(st.sampled_from(["NVIDIA A100", "NVIDIA H100"])),
            draw(st.sampled_from([40 * GIB, 16 * GIB, None])),
        )
        for n in range(draw(st.integers(0, 4)))
    ]
    if devices and draw(st.booleans()):
        divided = replace(devices[0], mig_enabled=True)
        parts = [Device(f"MIG-{n}", f"0.{n}", "NVIDIA A100 MIG 3g", 20 * GIB, parent_uuid="GPU-0") for n in range(2)]
        devices = [divided, *parts, *devices[1:]]
    return [
        DeviceState(
            device,
            foreign_bytes=draw(sizes),
            unreserved_use_bytes=draw(sizes),
            utilization_percent=draw(st.one_of(st.none(), st.floats(0, 100))),
        )
        for device in devices
    ]


@settings(max_examples=300, deadline=None)
@given(some_states(), st.lists(request_texts, max_size=8))
def test_however_many_are_served_one_after_the_other_no_promise_is_broken(
    states: list[DeviceState], texts: list[str]
) -> None:
    given: dict[str, list[LeaseHold]] = {state.device.uuid: [] for state in states}
    devices = {state.device.uuid: state.device for state in states}
    for text in texts:
        request = GPURequest.parse(text)
        try:
            holds = place(request, states)
        except RequestError:
            continue
        if isinstance(holds, Unplaced):
            assert holds.message.startswith("waits for ")
            assert holds.candidates
            continue
        assert len(holds) == request.device_count
        assert len({hold.uuid for hold in holds}) == len(holds)
        assert all(devices[hold.uuid].leasable for hold in holds)
        assert len(holds) == 1 or not any(devices[hold.uuid].is_mig for hold in holds)
        for hold in holds:
            before = next(state for state in states if state.device.uuid == hold.uuid)
            assert not before.whole
            assert hold.hold is not Hold.WHOLE or before.lease_count == 0
            given[hold.uuid].append(hold)
            states = [state.with_hold(hold) if state.device.uuid == hold.uuid else state for state in states]
    for state in states:
        holds_here = given[state.device.uuid]
        reserved = [hold.bytes for hold in holds_here if hold.hold is Hold.RESERVED]
        assert None not in reserved
        if reserved:
            assert sum(size or 0 for size in reserved) <= (state.device.memory_bytes or 0) - state.foreign_bytes
        if any(hold.hold is Hold.WHOLE for hold in holds_here):
            assert len(holds_here) == 1


@settings(max_examples=200, deadline=None)
@given(some_states(), request_texts)
def test_what_must_wait_is_served_once_everything_else_has_gone(states: list[DeviceState], text: str) -> None:
    request = GPURequest.parse(text)
    try:
        check(request, [state.device for state in states])
    except RequestError:
        with pytest.raises(RequestError):
            place(request, states)
        return
    empty = [DeviceState(state.device) for state in states]
    assert not isinstance(place(request, empty), Unplaced)
