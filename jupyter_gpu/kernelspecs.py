"""The GPU choices in the kernel picker: for each kernelspec on this host, variants that carry a request.

A variant is the base's specification with another name and, in its metadata, the request. Nothing is written: whoever
reads the specifications through the server sees them. `jupyter gpu kernelspec install` writes them for those who read
the disk.
"""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from traitlets import Bool, Instance, Integer

from .devices.amount import readable_amount

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .devices.device import Device, Inventory

METADATA_KEY = "jupyter_gpu"
PROVISIONER = "gpu-provisioner"
_SUFFIX = re.compile(
    r"-(?:(?P<cpu>cpu)|gpu-(?P<auto>auto)|gpu(?P<index>\d{1,4}(?:\.\d{1,4})?)|gpu-(?P<model>[a-z0-9][a-z0-9._-]*))\Z"
)


@dataclass(frozen=True)
class Choice:
    """One thing to choose in the kernel picker."""

    suffix: str
    """What is added to the base's name."""
    label: str
    """What is added to the base's display name."""
    request: str


CPU_CHOICE = Choice("-cpu", "CPU", "cpu")
AUTO_CHOICE = Choice("-gpu-auto", "GPU automatic", "auto")


def choices(devices: Sequence[Device], fold_above: int) -> list[Choice]:
    """What there is to choose: the CPU, any device, and each device, or each model of which there are many.

    Args:
        devices: the devices there are.
        fold_above: of a model with more devices than this, the devices are not listed, only the model.
    """
    leasable = [device for device in devices if device.leasable]
    found = [CPU_CHOICE]
    if leasable:
        found.append(AUTO_CHOICE)
    count = {device.name: sum(other.name == device.name for other in leasable) for device in leasable}
    folded = set()
    for device in leasable:
        if count[device.name] <= fold_above:
            kind = "MIG" if device.is_mig else "GPU"
            found.append(Choice(f"-gpu{device.index}", f"{kind} {device.index} · {_short(device.name)}", device.index))
        elif device.name not in folded:
            folded.add(device.name)
            slug = model_slug(device.name)
            memory = f", {readable_amount(device.memory_bytes)}" if device.memory_bytes else ""
            found.append(
                Choice(f"-gpu-{slug}", f"{_short(device.name)} (one of {count[device.name]}{memory})", f"1x{slug}")
            )
    return found


def model_slug(name: str) -> str:
    """A product's name as a word for kernelspec names and requests: `nvidia-a100-sxm4-40gb`."""
    return re.sub(r"[^a-z0-9._]+", "-", name.lower()).strip("-.") or "gpu"


def request_of_variant(name: str) -> tuple[str, str] | None:
    """The base's name and the request that a variant's name means; `None` for a name that is no variant's."""
    match = _SUFFIX.search(name)
    if match is None or match.start() == 0:
        return None
    base = name[: match.start()]
    if match["cpu"]:
        return base, "cpu"
    if match["auto"]:
        return base, "auto"
    return base, match["index"] or f"1x{match['model']}"


def variant(spec: dict[str, Any], base: str, choice: Choice) -> dict[str, Any]:
    """The base's specification (as `KernelSpec.to_dict` gives it) for one choice."""
    made = deepcopy(spec)
    made["display_name"] = f"{spec['display_name']} — {choice.label}"
    metadata = made.setdefault("metadata", {})
    metadata[METADATA_KEY] = {"base": base, "request": choice.request, "choice": choice.label}
    return made


def takes_variants(spec: dict[str, Any]) -> bool:
    """Whether kernels of this specification are started by us: it names no provisioner of its own."""
    metadata = spec.get("metadata") or {}
    if METADATA_KEY in metadata:
        return False  # it is a variant itself, written to disk
    named = (metadata.get("kernel_provisioner") or {}).get("provisioner_name")
    return named in (None, PROVISIONER)


class GPUKernelSpecManager(KernelSpecManager):
    """Another kernelspec manager, with the variants added. Everything else is the other's own doing."""

    wrapped = Instance(KernelSpecManager, help="The manager whose specifications these are.")

    variants = Bool(True, help="Offer GPU choices as variants of every kernelspec.").tag(config=True)

    fold_above = Integer(
        4,
        min=0,
        help="""Of a GPU model with more devices than this, the kernel picker offers the model and not every device.""",
    ).tag(config=True)

    def __init__(self, wrapped: KernelSpecManager, inventory: Callable[[], Inventory | None], **kwargs: Any) -> None:
        super().__init__(wrapped=wrapped, **kwargs)
        self._inventory = inventory

    def __getattr__(self, name: str) -> Any:
        """What only the wrapped manager has."""
        if name.startswith("__") or "wrapped" not in self.__dict__.get("_trait_values", {}):
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def find_kernel_specs(self) -> dict[str, str]:
        """The directories of all kernelspecs by name; a variant's is its base's."""
        found = dict(self.wrapped.find_kernel_specs())
        for base, entry in self._bases(self.wrapped.get_all_specs()).items():
            for choice in self._choices():
                found.setdefault(base + choice.suffix, entry["resource_dir"])
        return found

    def get_all_specs(self) -> dict[str, Any]:
        """All kernelspecs with their content, each followed by its variants."""
        specs = self.wrapped.get_all_specs()
        bases = self._bases(specs)
        found: dict[str, Any] = {}
        for name, entry in specs.items():
            found[name] = entry
            if name not in bases:
                continue
            for choice in self._choices():
                if name + choice.suffix not in specs:
                    found[name + choice.suffix] = {**entry, "spec": variant(entry["spec"], name, choice)}
        return found

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The kernelspec of that name.

        A variant's name is understood whether or not its device is there now: a saved name must still start a kernel,
        and the provisioner tells what became of the device.

        Raises:
            NoSuchKernel: there is neither such a kernelspec nor a base of which it would be a variant.
        """
        try:
            return self.wrapped.get_kernel_spec(kernel_name)
        except NoSuchKernel:
            meant = request_of_variant(kernel_name) if self.variants else None
            if meant is None:
                raise
        base, request = meant
        spec = self.wrapped.get_kernel_spec(base)
        content = spec.to_dict()
        if not takes_variants(content):
            raise NoSuchKernel(kernel_name)
        listed = {choice.suffix: choice for choice in self._choices()}
        choice = listed.get(kernel_name[len(base) :], Choice(kernel_name[len(base) :], f"GPU {request}", request))
        made = KernelSpec(**variant(content, base, choice))
        made.resource_dir = spec.resource_dir
        return made

    def remove_kernel_spec(self, name: str) -> str:
        """Remove a kernelspec from disk, and return the directory that it was in."""
        return str(self.wrapped.remove_kernel_spec(name))

    def install_kernel_spec(self, *args: Any, **kwargs: Any) -> str:
        """Install a kernelspec on disk, and return the directory that it is in."""
        return str(self.wrapped.install_kernel_spec(*args, **kwargs))

    def _bases(self, specs: dict[str, Any]) -> dict[str, Any]:
        if not self.variants:
            return {}
        return {
            name: entry
            for name, entry in specs.items()
            if isinstance(entry.get("spec"), dict) and "resource_dir" in entry and takes_variants(entry["spec"])
        }

    def _choices(self) -> list[Choice]:
        inventory = self._inventory()
        # Before the first look at the devices, and where there are none, there is nothing to choose.
        if inventory is None or not inventory.leasable:
            return []
        return choices(inventory.devices, self.fold_above)


def _short(name: str) -> str:
    return re.sub(r"^NVIDIA\s+(GeForce\s+)?", "", name)
