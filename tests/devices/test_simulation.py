"""The text that describes simulated GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_gpu.devices.simulation import account_paths, parse_specification, unleased_directory

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30


def test_a_count_gives_as_many_devices_with_indices_and_uuids_of_their_own() -> None:
    devices = parse_specification("4xNVIDIA A100-SXM4-40GB:40GiB")
    assert [device.index for device in devices] == ["0", "1", "2", "3"]
    assert {device.name for device in devices} == {"NVIDIA A100-SXM4-40GB"}
    assert {device.memory_bytes for device in devices} == {40 * GIB}
    assert len({device.uuid for device in devices}) == 4
    assert all(device.uuid.startswith("GPU-") and len(device.uuid) == 40 for device in devices)


def test_the_same_text_gives_the_same_devices_in_every_process() -> None:
    text = "NVIDIA H100 80GB HBM3:80GiB, 2xNVIDIA T4:16GiB"
    assert parse_specification(text) == parse_specification(text)
    assert [device.index for device in parse_specification(text)] == ["0", "1", "2"]


def test_mig_instances_follow_their_gpu_and_have_their_own_memory() -> None:
    gpu, *instances = parse_specification("NVIDIA A100-SXM4-40GB:40GiB/2x3g.20gb:20GiB/1g.5gb:5GB")
    assert gpu.mig_enabled
    assert gpu.parent_uuid is None
    assert [instance.index for instance in instances] == ["0.0", "0.1", "0.2"]
    assert [instance.memory_bytes for instance in instances] == [20 * GIB, 20 * GIB, 5 * 10**9]
    assert {instance.parent_uuid for instance in instances} == {gpu.uuid}
    assert all(instance.uuid.startswith("MIG-") and not instance.mig_enabled for instance in instances)
    assert instances[0].name == "NVIDIA A100-SXM4-40GB MIG 3g.20gb"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write something like"),
        ("A100", "write something like"),
        ("A100:", "write something like"),
        (":40GiB", "write something like"),
        ("A100:40", "has no unit"),
        ("A100:much", "not an amount"),
        ("0xA100:40GiB", "no simulated GPU"),
        ("257xA100:40GiB", "more than 256"),
        ("1000xA100:40GiB", "more than 256"),
        ("A100:40GiB,", "write something like"),
        ("A100:40GiB/", "write something like"),
    ],
)
def test_what_describes_no_gpu_is_refused_with_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_specification(text)


@given(st.text(alphabet="0123456789xXaA:,/. GiBM\n-", max_size=40))
def test_any_text_describes_devices_or_is_refused(text: str) -> None:
    try:
        devices = parse_specification(text)
    except ValueError:
        return
    assert 1 <= len(devices) <= 256
    assert len({device.uuid for device in devices}) == len(devices)


def test_accounts_of_leases_and_of_processes_without_one_are_found_but_no_drafts(tmp_path: Path) -> None:
    assert account_paths(tmp_path) == []
    (tmp_path / "accounts").mkdir()
    unleased_directory(tmp_path).mkdir()
    leased, unleased = tmp_path / "accounts" / "a", unleased_directory(tmp_path) / "1-2"
    for path in (leased, unleased, tmp_path / "accounts" / ".draft"):
        path.touch()
    assert account_paths(tmp_path) == [leased, unleased]
