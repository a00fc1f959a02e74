"""`jupyter gpu kernelspec`: GPU choices on disk, and nobody else's kernelspecs touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Command

NAMES = ["python3-cpu", "python3-gpu-auto", "python3-gpu0", "python3-gpu1", "python3-gpu2", "python3-gpu3"]


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    """Where this user's kernelspecs are."""
    return tmp_path / "data" / "kernels"


def spec(kernels: Path, name: str) -> Any:
    return json.loads((kernels / name / "kernel.json").read_text())


def write_spec(kernels: Path, name: str, **content: object) -> Path:
    directory = kernels / name
    directory.mkdir(parents=True)
    (directory / "kernel.json").write_text(
        json.dumps({"argv": ["python", "-m", "x"], "display_name": name, "language": "python", **content})
    )
    return directory


def test_all_choices_of_a_kernelspec_are_written_and_listed(gpu: Command, kernels: Path) -> None:
    installed = gpu.json("kernelspec", "install")["installed"]
    assert [entry["name"] for entry in installed] == NAMES
    assert sorted(path.name for path in kernels.iterdir()) == NAMES
    assert [entry["name"] for entry in gpu.json("kernelspec", "list")["installed"]] == NAMES
    rows = gpu("kernelspec", "list").stdout.splitlines()
    assert rows[0].split() == ["NAME", "REQUEST", "DIRECTORY"]
    assert rows[4].split() == ["python3-gpu1", "1", str(kernels / "python3-gpu1")]


def test_what_is_written_starts_a_kernel_with_the_request_wherever_it_is_read(gpu: Command, kernels: Path) -> None:
    gpu("kernelspec", "install")
    content = spec(kernels, "python3-gpu1")
    assert content["argv"][1:4] == ["-m", "ipykernel_launcher", "-f"]
    assert content["display_name"].endswith("GPU 1 · A100-SXM4-40GB")
    assert content["metadata"]["kernel_provisioner"] == {
        "provisioner_name": "gpu-provisioner",
        "config": {"request": "1"},
    }
    assert content["metadata"]["jupyter_gpu"]["base"] == "python3"
    assert content["metadata"]["jupyter_gpu"]["request"] == "1"
    assert any((kernels / "python3-gpu1").glob("logo*")), "the base's logo comes along"


def test_one_request_makes_one_variant_of_any_name(gpu: Command, kernels: Path) -> None:
    gpu("kernelspec", "install", "--request", "auto:8192MiB", "--name", "Small")
    gpu("kernelspec", "install", "--request", "2x:25%")
    assert sorted(path.name for path in kernels.iterdir()) == ["python3-gpu-2x-25", "small"]
    assert spec(kernels, "small")["metadata"]["kernel_provisioner"]["config"] == {"request": "auto:8GiB"}


def test_many_gpus_of_a_model_become_one_variant(gpu: Command) -> None:
    installed = gpu.json("kernelspec", "install", JUPYTER_GPU_SIMULATE="6xNVIDIA T4:16GiB")["installed"]
    assert [entry["name"] for entry in installed] == ["python3-cpu", "python3-gpu-auto", "python3-gpu-nvidia-t4"]


def test_to_install_again_writes_them_anew(gpu: Command, kernels: Path) -> None:
    gpu("kernelspec", "install", "--request", "1", "--name", "mine")
    gpu("kernelspec", "install", "--request", "2", "--name", "mine")
    assert spec(kernels, "mine")["metadata"]["jupyter_gpu"]["request"] == "2"


def test_all_or_some_are_removed(gpu: Command, kernels: Path) -> None:
    gpu("kernelspec", "install")
    assert gpu("kernelspec", "remove", "python3-gpu1").stdout == "removed python3-gpu1\n"
    assert not (kernels / "python3-gpu1").exists()
    assert len(gpu.json("kernelspec", "remove", "--all")["removed"]) == 5
    assert list(kernels.iterdir()) == []
    assert gpu("kernelspec", "remove", "--all").stdout == "there was nothing to remove\n"
    assert "No GPU choices are on disk" in gpu("kernelspec", "list").stdout
    assert gpu.json("kernelspec", "list") == {"installed": []}


@pytest.mark.parametrize(
    "metadata",
    [{}, {"jupyter_gpu": {"request": "auto:8GiB"}}, {"jupyter_gpu": {"base": "x", "request": "1"}}, {"jupyter_gpu": 1}],
)
def test_others_kernelspecs_are_never_touched(gpu: Command, kernels: Path, metadata: dict[str, object]) -> None:
    theirs = write_spec(kernels, "python3-gpu1", metadata=metadata)
    before = (theirs / "kernel.json").read_bytes()
    done = gpu("kernelspec", "install", status=1)
    assert (
        "The kernelspec 'python3-gpu1' is not one of ours, so it is not replaced; choose another --name" in done.stderr
    )
    assert [path.name for path in kernels.iterdir()] == ["python3-gpu1"], "nothing is written by halves"
    done = gpu("kernelspec", "remove", "python3-gpu1", status=1)
    assert "'python3-gpu1' is not one of ours; there are none" in done.stderr
    gpu("kernelspec", "remove", "--all")
    assert (theirs / "kernel.json").read_bytes() == before
    assert gpu.json("kernelspec", "list") == {"installed": []}


def test_the_base_kernelspec_stays_as_it_is(gpu: Command, kernels: Path) -> None:
    base = write_spec(kernels, "mine", env={"A": "1"}, metadata={"debugger": True})
    before = (base / "kernel.json").read_bytes()
    gpu("kernelspec", "install", "--kernel", "mine")
    gpu("kernelspec", "remove", "--all")
    assert (base / "kernel.json").read_bytes() == before
    assert [path.name for path in kernels.iterdir()] == ["mine"]


def test_what_the_base_says_is_kept_in_its_variants(gpu: Command, kernels: Path) -> None:
    write_spec(kernels, "mine", env={"A": "1"}, metadata={"debugger": True}, interrupt_mode="message")
    gpu("kernelspec", "install", "--kernel", "mine")
    content = spec(kernels, "mine-cpu")
    assert (content["env"], content["interrupt_mode"], content["metadata"]["debugger"]) == ({"A": "1"}, "message", True)
    assert content["display_name"] == "mine — CPU"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("install", "--kernel", "nope"), 1, "There is no kernelspec 'nope'; there are "),
        (("install", "--request", "1:8"), 1, "'8' has no unit"),
        (("install", "--name", "x"), 2, "--name is for one variant; write --request too"),
        (("install", "--request", "1", "--name", "a/b"), 1, "The kernelspecs cannot be written: "),
        (("install", "--request", "1", "--name", "python3"), 1, "'python3' is not one of ours, so it is not replaced"),
        (("remove",), 2, "Name a variant, or write --all; there are none"),
        (("remove", "python3"), 1, "'python3' is not one of ours; there are none"),
    ],
)
def test_what_cannot_be_done_is_refused_with_one_sentence(
    gpu: Command, kernels: Path, arguments: tuple[str, ...], status: int, says: str
) -> None:
    done = gpu("kernelspec", *arguments, status=status)
    line = done.stderr.splitlines()[-1]
    assert says in line
    assert line.startswith(f"jupyter gpu kernelspec {arguments[0]}: ")
    assert not kernels.exists() or list(kernels.iterdir()) == []


@pytest.mark.parametrize(
    "metadata", [{"kernel_provisioner": {"provisioner_name": "local-provisioner"}}, {"jupyter_gpu": {"request": "1"}}]
)
def test_a_kernelspec_with_a_provisioner_or_a_request_of_its_own_gets_no_variants(
    gpu: Command, kernels: Path, metadata: dict[str, object]
) -> None:
    write_spec(kernels, "mine", metadata=metadata)
    done = gpu("kernelspec", "install", "--kernel", "mine", status=1)
    assert "'mine' is a variant itself, or has a provisioner of its own; name another kernelspec" in done.stderr


def test_a_kernelspec_whose_provisioner_is_missing_is_told_apart_from_none(gpu: Command, kernels: Path) -> None:
    write_spec(kernels, "mine", metadata={"kernel_provisioner": {"provisioner_name": "remote"}})
    done = gpu("kernelspec", "install", "--kernel", "mine", status=1)
    assert "The kernelspec 'mine' needs a provisioner that is not installed" in done.stderr.splitlines()[-1]


def test_a_place_that_cannot_be_written_is_one_sentence(gpu: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = gpu("kernelspec", "install", status=1, JUPYTER_DATA_DIR=str(tmp_path / "file"))
    assert "The kernelspecs cannot be written: " in done.stderr.splitlines()[-1]
