"""CUDA_VISIBLE_DEVICES of the server decides which devices it hands out."""

from __future__ import annotations

import pytest

from jupyter_gpu.devices.device import Device
from jupyter_gpu.devices.visible import visible_devices

GIB = 1 << 30


def gpu(index: int, uuid: str, name: str = "NVIDIA A100", *, mig: bool = False) -> Device:
    return Device(uuid=uuid, index=str(index), name=name, memory_bytes=40 * GIB, mig_enabled=mig)


A = gpu(0, "GPU-aaaa1111-0000-0000-0000-000000000000")
B = gpu(1, "GPU-aaaa2222-0000-0000-0000-000000000000")
C = gpu(2, "GPU-cccc3333-0000-0000-0000-000000000000", mig=True)
C0 = Device("MIG-11111111-0000-0000-0000-000000000000", "2.0", "A100 MIG 1g.5gb", 5 * GIB, parent_uuid=C.uuid)
C1 = Device("MIG-22222222-0000-0000-0000-000000000000", "2.1", "A100 MIG 1g.5gb", 5 * GIB, parent_uuid=C.uuid)
D = gpu(3, "GPU-dddd4444-0000-0000-0000-000000000000")
ALL = (A, B, C, C0, C1, D)


def shown(value: str | None, order: str | None = None, devices: tuple[Device, ...] = ALL) -> list[str]:
    return [device.index for device in visible_devices(value, order, devices).devices]


def codes(value: str | None, order: str | None = None, devices: tuple[Device, ...] = ALL) -> list[str]:
    return [note.code for note in visible_devices(value, order, devices).notes]


def test_without_the_variable_everything_is_visible_and_nothing_is_said() -> None:
    assert visible_devices(None, None, ALL).devices == ALL
    assert codes(None) == []


@pytest.mark.parametrize("value", ["", "-1", " ", "NoDevFiles", "none"])
def test_a_value_that_means_none_leaves_no_device(value: str) -> None:
    assert shown(value) == []
    assert codes(value) == ["visible-devices"]
    assert "hands out no GPU and hides all 5 that this host has" in visible_devices(value, None, ALL).notes[0].message


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        ("0", ["0"]),
        ("3,1", ["1", "3"]),
        (" 0 , 1 ", ["0", "1"]),
        ("+1", ["1"]),
        ("1gpu", ["1"]),
        (A.uuid, ["0"]),
        (A.uuid.replace("aaaa", "AAAA"), ["0"]),
        ("GPU-aaaa2,GPU-d", ["1", "3"]),
        ("GPU-d,0", ["0", "3"]),
    ],
)
def test_indices_uuids_and_their_beginnings_name_devices(value: str, indices: list[str]) -> None:
    assert shown(value) == indices
    assert codes(value) == ["visible-devices"]


def test_the_note_says_what_is_handed_out_and_how_many_are_hidden() -> None:
    (note,) = visible_devices("0,GPU-aaaa2", "PCI_BUS_ID", ALL).notes
    assert "'0,GPU-aaaa2'" in note.message
    assert "hands out GPU 0, GPU 1 and hides the 3 others" in note.message
    (one,) = visible_devices("0", None, (A, B)).notes
    assert "hides the other one" in one.message


def test_naming_every_device_hides_nothing_and_says_nothing() -> None:
    assert shown("0,1,2,3") == [device.index for device in ALL]
    assert codes("0,1,2,3") == []


def test_a_mig_instance_comes_with_the_gpu_it_is_part_of_and_without_its_neighbours() -> None:
    assert shown(C1.uuid) == ["2", "2.1"]
    assert shown("MIG-2") == ["2", "2.1"]
    assert shown(f"{C0.uuid},{C1.uuid}") == ["2", "2.0", "2.1"]
    assert [d.index for d in visible_devices(C1.uuid, None, ALL).devices if d.leasable] == ["2.1"]


def test_mig_names_of_the_first_drivers_with_mig_are_known() -> None:
    old = Device("MIG-GPU-cccc3333/7/0", "2.0", "A100 MIG 1g.5gb", 5 * GIB, parent_uuid=C.uuid)
    assert shown("MIG-GPU-cccc3333/7/0", devices=(A, C, old)) == ["2", "2.0"]


def test_a_divided_gpu_stands_for_all_its_instances() -> None:
    assert shown("2") == ["2", "2.0", "2.1"]
    assert shown(C.uuid) == ["2", "2.0", "2.1"]


@pytest.mark.parametrize(
    ("value", "indices", "said"),
    [
        ("0,-1,1", ["0"], "ignores what follows it (1)"),
        ("0,,1", ["0"], "an empty entry, and CUDA ignores what follows it (1)"),
        ("0,9,1", ["0"], "the entry '9', which names no device of this host"),
        ("7", [], "the entry '7'"),
        ("0,GPU-aaaa,3", ["0"], "the entry 'GPU-aaaa'"),
        ("GPU-zzzz", [], "the entry 'GPU-zzzz'"),
        ("0,all", ["0"], "the entry 'all'"),
    ],
)
def test_an_invalid_entry_hides_what_follows_it(value: str, indices: list[str], said: str) -> None:
    seen = visible_devices(value, None, ALL)
    assert [device.index for device in seen.devices] == indices
    (note,) = seen.notes
    assert note.code == "visible-devices-invalid"
    assert said in note.message


@pytest.mark.parametrize("value", ["0,0", "0,GPU-aaaa1", f"{B.uuid},1"])
def test_a_device_named_twice_leaves_none(value: str) -> None:
    assert shown(value) == []
    assert codes(value) == ["visible-devices-invalid"]
    assert "twice" in visible_devices(value, None, ALL).notes[0].message


def test_indices_on_a_host_with_several_models_are_taken_in_pci_order_and_called_ambiguous() -> None:
    mixed = (gpu(0, "GPU-1", "NVIDIA T4"), gpu(1, "GPU-2", "NVIDIA H100"))
    assert shown("0", None, mixed) == ["0"]
    assert codes("0", None, mixed) == ["visible-devices-ambiguous", "visible-devices"]
    assert codes("0", "FASTEST_FIRST", mixed) == ["visible-devices-ambiguous", "visible-devices"]
    assert "GPU 0" in visible_devices("0", None, mixed).notes[0].message


def test_indices_are_not_ambiguous_in_pci_order_with_one_model_or_by_uuid() -> None:
    mixed = (gpu(0, "GPU-1", "NVIDIA T4"), gpu(1, "GPU-2", "NVIDIA H100"))
    assert codes("0", "PCI_BUS_ID", mixed) == ["visible-devices"]
    assert codes("0", None, (A, B)) == ["visible-devices"]
    assert codes("GPU-1", None, mixed) == ["visible-devices"]
