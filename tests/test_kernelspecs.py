"""The GPU choices in the kernel picker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

from jupyter_gpu.devices.device import Device, Inventory
from jupyter_gpu.kernelspecs import GPUKernelSpecManager, choices, model_slug, request_of_variant
from jupyter_gpu.leases.placement import check
from jupyter_gpu.leases.request import GPURequest

GIB = 1 << 30


def gpu(index: int, name: str = "NVIDIA A100-SXM4-40GB") -> Device:
    return Device(f"GPU-{index:08d}", str(index), name, 40 * GIB)


def mig(index: str, parent: Device) -> Device:
    return Device(f"MIG-{index}", index, f"{parent.name} MIG 3g.20gb", 20 * GIB, parent_uuid=parent.uuid)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Kernelspecs on disk: a plain one with a logo, one with a provisioner of its own."""
    for name, metadata in (("plain", {}), ("own", {"kernel_provisioner": {"provisioner_name": "local-provisioner"}})):
        made = tmp_path / "kernels" / name
        made.mkdir(parents=True)
        spec = {"argv": ["x", "{connection_file}"], "display_name": name.title(), "language": "x", "metadata": metadata}
        (made / "kernel.json").write_text(json.dumps(spec))
        (made / "logo-svg.svg").write_text("<svg/>")
    return tmp_path / "kernels"


def manager(directory: Path, devices: tuple[Device, ...] | None, **traits: Any) -> GPUKernelSpecManager:
    wrapped = KernelSpecManager(kernel_dirs=[str(directory)], ensure_native_kernel=False)
    inventory = None if devices is None else Inventory(devices)
    return GPUKernelSpecManager(wrapped, lambda: inventory, **traits)


def names(manager: GPUKernelSpecManager) -> list[str]:
    return list(manager.get_all_specs())


def test_there_is_a_choice_for_the_cpu_for_any_and_for_each_device(directory: Path) -> None:
    found = manager(directory, (gpu(0), gpu(1))).get_all_specs()
    assert [name for name in found if name != "own"] == [
        "plain",
        "plain-cpu",
        "plain-gpu-auto",
        "plain-gpu0",
        "plain-gpu1",
    ]
    chosen = found["plain-gpu1"]["spec"]
    assert chosen["display_name"] == "Plain — GPU 1 · A100-SXM4-40GB"
    assert chosen["metadata"]["jupyter_gpu"] == {
        "base": "plain",
        "request": "1",
        "choice": "GPU 1 · A100-SXM4-40GB",
    }
    assert found["plain-gpu1"]["resource_dir"] == found["plain"]["resource_dir"]
    assert "jupyter_gpu" not in found["plain"]["spec"]["metadata"]


def test_mig_instances_are_choices_and_their_gpu_is_not(directory: Path) -> None:
    parent = Device("GPU-0", "0", "NVIDIA A100", 40 * GIB, mig_enabled=True)
    found = names(manager(directory, (parent, mig("0.0", parent), mig("0.2", parent))))
    assert [name for name in found if name.startswith("plain-gpu")] == [
        "plain-gpu-auto",
        "plain-gpu0.0",
        "plain-gpu0.2",
    ]


def test_many_devices_of_a_model_fold_into_one_choice_that_can_be_granted(directory: Path) -> None:
    devices = (*(gpu(index) for index in range(8)), gpu(8, "NVIDIA T4"))
    specs = manager(directory, devices).get_all_specs()
    found = [name for name in specs if name.startswith("plain-")]
    assert found == ["plain-cpu", "plain-gpu-auto", "plain-gpu-nvidia-a100-sxm4-40gb", "plain-gpu8"]
    folded = specs["plain-gpu-nvidia-a100-sxm4-40gb"]["spec"]
    assert folded["display_name"] == "Plain — A100-SXM4-40GB (one of 8, 40 GiB)"
    request = GPURequest.parse(folded["metadata"]["jupyter_gpu"]["request"])
    check(request, devices)
    with pytest.raises(ValueError, match="no GPU's name contains"):
        check(request, [gpu(8, "NVIDIA T4")])


def test_folding_begins_where_it_is_configured(directory: Path) -> None:
    devices = tuple(gpu(index) for index in range(3))
    assert "plain-gpu2" in names(manager(directory, devices, fold_above=3))
    assert "plain-gpu2" not in names(manager(directory, devices, fold_above=2))


@pytest.mark.parametrize("devices", [None, ()])
def test_without_devices_there_is_nothing_to_choose(directory: Path, devices: Any) -> None:
    assert sorted(names(manager(directory, devices))) == ["own", "plain"]


def test_choices_can_be_switched_off(directory: Path) -> None:
    made = manager(directory, (gpu(0),), variants=False)
    assert sorted(names(made)) == ["own", "plain"]
    with pytest.raises(NoSuchKernel):
        made.get_kernel_spec("plain-gpu0")


def test_a_kernelspec_with_a_provisioner_of_its_own_has_no_variants(directory: Path) -> None:
    made = manager(directory, (gpu(0),))
    assert not any(name.startswith("own-") for name in names(made))
    with pytest.raises(NoSuchKernel):
        made.get_kernel_spec("own-gpu0")


def test_every_listed_name_can_be_had_with_the_same_content_and_the_bases_directory(directory: Path) -> None:
    devices = (*(gpu(index) for index in range(8)), gpu(8, "NVIDIA T4"))
    made = manager(directory, devices)
    listed = made.get_all_specs()
    directories = made.find_kernel_specs()
    assert set(listed) == set(directories)
    for name, entry in listed.items():
        spec = made.get_kernel_spec(name)
        assert spec.to_dict() == entry["spec"]
        assert spec.resource_dir == entry["resource_dir"] == directories[name]


def test_a_saved_name_starts_a_kernel_also_where_its_device_is_not(directory: Path) -> None:
    for devices in (None, (), (gpu(0),)):
        spec = manager(directory, devices).get_kernel_spec("plain-gpu7")
        assert spec.metadata["jupyter_gpu"]["request"] == "7"


@pytest.mark.parametrize("name", ["nothing", "nothing-gpu1", "plain-gpux", "plain-", "-cpu", "plain-gpu1.2.3"])
def test_other_names_are_unknown(directory: Path, name: str) -> None:
    with pytest.raises(NoSuchKernel):
        manager(directory, (gpu(0),)).get_kernel_spec(name)


def test_a_kernelspec_on_disk_goes_before_a_variant_of_that_name(directory: Path) -> None:
    made = directory / "plain-cpu"
    made.mkdir()
    (made / "kernel.json").write_text(json.dumps({"argv": ["y"], "display_name": "Mine", "language": "x"}))
    found = manager(directory, (gpu(0),))
    assert found.get_kernel_spec("plain-cpu").display_name == "Mine"
    assert found.get_all_specs()["plain-cpu"]["spec"]["display_name"] == "Mine"


def test_what_only_the_wrapped_manager_has_can_be_reached(directory: Path) -> None:
    class Special(KernelSpecManager):
        flavour = "special"

        def find_kernel_specs(self) -> dict[str, str]:
            return {"renamed": str(directory / "plain")}

        def get_all_specs(self) -> dict[str, Any]:
            [(name, path)] = self.find_kernel_specs().items()
            spec = json.loads((Path(path) / "kernel.json").read_text())
            return {name: {"resource_dir": path, "spec": spec}}

    made = GPUKernelSpecManager(Special(), lambda: Inventory((gpu(0),)))
    assert made.flavour == "special"
    assert names(made) == ["renamed", "renamed-cpu", "renamed-gpu-auto", "renamed-gpu0"]
    assert isinstance(made, KernelSpecManager)


def test_every_choices_suffix_means_its_request() -> None:
    devices = (*(gpu(index) for index in range(8)), gpu(8, "NVIDIA T4"), mig("9.1", gpu(9)))
    for choice in choices(devices, 4):
        assert request_of_variant(f"ir{choice.suffix}") == ("ir", choice.request)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("NVIDIA A100-SXM4-40GB", "nvidia-a100-sxm4-40gb"),
        ("NVIDIA RTX 6000 Ada Generation", "nvidia-rtx-6000-ada-generation"),
        ("Tesla T4 (rev. 2)", "tesla-t4-rev.-2"),
        ("!!!", "gpu"),
    ],
)
def test_a_model_is_a_word(name: str, slug: str) -> None:
    assert model_slug(name) == slug
