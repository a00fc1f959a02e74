"""`jupyter gpu kernelspec`: the GPU choices as kernelspecs on disk, for programs that start kernels without a server.

Papermill, nbclient and the Jupyter console read kernelspecs from disk only. What is written here is marked, and
nothing else is ever changed or removed.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_core.application import JupyterApp
from traitlets import Bool, Integer, Unicode

from .. import __version__
from ..kernelspecs import METADATA_KEY, PROVISIONER, Choice, choices, takes_variants, variant
from ..leases.request import GPURequest
from .base import GPUCommand, refuse_subcommand, table

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpec


_MARK = "written_by_jupyter_gpu"
"""In the metadata of what was written here."""


class _KernelSpecCommand(GPUCommand):
    """What works on the kernelspecs of this environment."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.specs = KernelSpecManager(parent=self)

    def installed(self) -> dict[str, dict[str, Any]]:
        """The variants on disk, by name."""
        found = {}
        for name, entry in self.specs.get_all_specs().items():
            ours = (entry["spec"].get("metadata") or {}).get(METADATA_KEY)
            # A request alone does not make it ours: people write that into kernelspecs of their own.
            if isinstance(ours, dict) and ours.get(_MARK) is True:
                found[name] = {**ours, "directory": entry["resource_dir"]}
        return found


class InstallApp(_KernelSpecCommand):
    """Write variants."""

    name = "jupyter gpu kernelspec install"
    description = """Write the GPU choices of a kernelspec to disk.

    Without --request there is one for the CPU, one for any GPU, and one for each GPU of this host.
    """
    examples = """
    jupyter gpu kernelspec install                       # all choices of python3
    jupyter gpu kernelspec install --kernel ir --sys-prefix
    jupyter gpu kernelspec install --request auto:8GiB --name python3-small
    """

    kernel = Unicode("python3", help="The kernelspec to make variants of.").tag(config=True)
    request = Unicode("", help="One request, for one variant.").tag(config=True)
    variant_name = Unicode("", help="The name of that one variant.").tag(config=True)
    sys_prefix = Bool(False, help="Install into this Python environment rather than for the user.").tag(config=True)
    fold_above = Integer(4, help="Of a model with more GPUs than this, write one variant.").tag(config=True)

    aliases = {  # noqa: RUF012 - traitlets' way
        **GPUCommand.aliases,
        "kernel": "InstallApp.kernel",
        "request": "InstallApp.request",
        "name": "InstallApp.variant_name",
    }
    flags = {  # noqa: RUF012 - traitlets' way
        **GPUCommand.flags,
        "sys-prefix": ({"InstallApp": {"sys_prefix": True}}, "Install into this Python environment."),
    }

    def run(self) -> None:
        """Write them."""
        try:
            base = self.specs.get_kernel_spec(self.kernel)
        except NoSuchKernel:
            names = self.specs.find_kernel_specs()
            if self.kernel in names:
                self.fail(
                    f"the kernelspec {self.kernel!r} needs a provisioner that is not installed; install that first"
                )
            there_are = ", ".join(sorted(names)) or "none"
            self.fail(f"there is no kernelspec {self.kernel!r}; there are {there_are}")
        if not takes_variants(base.to_dict()):
            self.fail(f"{self.kernel!r} is a variant itself, or has a provisioner of its own; name another kernelspec")
        if self.variant_name and not self.request:
            self.fail("--name is for one variant; write --request too", 2)
        named = {self._name(choice): choice for choice in self._choices()}
        for name in named:
            self._refuse_to_replace(name)
        try:
            written = [self._write(base, name, choice) for name, choice in named.items()]
        except (OSError, ValueError) as error:
            self.fail(f"the kernelspecs cannot be written: {error}")
        if self.json:
            self.print_json({"installed": written})
        else:
            print("\n".join(f"installed {entry['name']} in {entry['directory']}" for entry in written))

    def _choices(self) -> list[Choice]:
        if self.request:
            request = str(GPURequest.parse(self.request))
            slug = "".join(c if c.isalnum() or c in "._" else "-" for c in request.lower()).strip("-")
            suffix = f"-gpu-{slug}"
            return [Choice(suffix, f"GPU {request}", request)]
        return choices(self.host.look_now().inventory.devices, self.fold_above)

    def _name(self, choice: Choice) -> str:
        return (self.variant_name or self.kernel + choice.suffix).lower()

    def _write(self, base: KernelSpec, name: str, choice: Choice) -> dict[str, str]:
        made = variant(base.to_dict(), self.kernel, choice)
        made["metadata"]["kernel_provisioner"] = {
            "provisioner_name": PROVISIONER,
            "config": {"request": choice.request},
        }
        made["metadata"][METADATA_KEY][_MARK] = True
        with tempfile.TemporaryDirectory() as directory:
            source = Path(directory) / "spec"
            shutil.copytree(base.resource_dir, source)
            (source / "kernel.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
            where = self.specs.install_kernel_spec(str(source), name, user=not self.sys_prefix, prefix=self._prefix())
        return {"name": name, "request": choice.request, "directory": where}

    def _prefix(self) -> str | None:
        return sys.prefix if self.sys_prefix else None

    def _refuse_to_replace(self, name: str) -> None:
        if name in self.specs.find_kernel_specs() and name not in self.installed():
            self.fail(f"the kernelspec {name!r} is not one of ours, so it is not replaced; choose another --name")


class RemoveApp(_KernelSpecCommand):
    """Remove variants."""

    name = "jupyter gpu kernelspec remove"
    description = """Remove GPU choices that were written to disk: those named, or all.

    Kernelspecs that were not written by `jupyter gpu kernelspec install` are never removed.
    """
    examples = """
    jupyter gpu kernelspec remove python3-gpu1
    jupyter gpu kernelspec remove --all
    """
    everything = Bool(False, help="Remove all of them.").tag(config=True)
    flags = {  # noqa: RUF012 - traitlets' way
        **GPUCommand.flags,
        "all": ({"RemoveApp": {"everything": True}}, "Remove all of them."),
    }

    def run(self) -> None:
        """Remove them."""
        installed = self.installed()
        names = sorted(installed) if self.everything else self.extra_args
        if not names and not self.everything:
            self.fail(f"name a variant, or write --all; there are {', '.join(sorted(installed)) or 'none'}", 2)
        for name in names:
            if name not in installed:
                self.fail(f"{name!r} is not one of ours; there are {', '.join(sorted(installed)) or 'none'}")
        for name in names:
            try:
                self.specs.remove_kernel_spec(name)
            except OSError as error:
                self.fail(f"{name!r} cannot be removed: {error}")
        if self.json:
            self.print_json({"removed": list(names)})
        else:
            print("\n".join(f"removed {name}" for name in names) or "there was nothing to remove")


class ListInstalledApp(_KernelSpecCommand):
    """List variants."""

    name = "jupyter gpu kernelspec list"
    description = "List the GPU choices that were written to disk."

    def run(self) -> None:
        """Print them."""
        installed = self.installed()
        if self.json:
            self.print_json({"installed": [{"name": name, **entry} for name, entry in sorted(installed.items())]})
        elif installed:
            rows = [(name, entry["request"], entry["directory"]) for name, entry in sorted(installed.items())]
            print(table(("NAME", "REQUEST", "DIRECTORY"), rows))
        else:
            print("No GPU choices are on disk; Jupyter servers with jupyter_gpu offer them all the same.")


class KernelSpecApp(JupyterApp):
    """GPU choices on disk."""

    name = "jupyter gpu kernelspec"
    version = __version__
    description = """Write GPU choices to disk as kernelspecs, for programs that start kernels without a server."""
    subcommands = {  # noqa: RUF012 - traitlets' way
        "install": (InstallApp, InstallApp.description.splitlines()[0]),
        "remove": (RemoveApp, RemoveApp.description.splitlines()[0]),
        "list": (ListInstalledApp, ListInstalledApp.description),
    }

    def start(self) -> None:
        """Run the subcommand, or say which there are."""
        if self.subapp is not None:
            self.subapp.start()
            return
        if self.extra_args:
            refuse_subcommand(self)
        self.print_help()
