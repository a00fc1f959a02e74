"""`jupyter gpu doctor`: what was found, what is missing, and what to do about it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..devices.amount import readable_amount
from ..leases.ledger import LedgerError
from ..plain import plain
from .base import GPUCommand

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..leases.survey import Survey

FRAMEWORKS = ("tensorflow", "torch", "jax", "cupy", "keras", "Theano", "aesara", "pytensor")
_SHARED_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "lustre", "gpfs", "beegfs", "fuse.sshfs", "ceph", "afs")
_INTERPRETER_TIMEOUT_S = 20.0
_COMPILE_TIMEOUT_S = 180.0
_INSTALL_AGAIN = "Run pip install jupyter-gpu again."
_ASK_FOR_VERSIONS = """
import json, sys
from importlib import metadata
found = {}
for name in sys.argv[1:]:
    for variant in (name, name + "-cpu", name + "-cuda12x", name + "-cuda13x"):
        try:
            found[name] = metadata.version(variant)
            break
        except metadata.PackageNotFoundError:
            pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: str
    """`ok`, `problem` (something does not work) or `note` (something to know)."""
    found: str
    advice: str = ""


class DoctorApp(GPUCommand):
    """What works."""

    name = "jupyter gpu doctor"
    description = """Say what works, what does not, and what to do about it.

    The exit status is 1 if anything that jupyter_gpu needs is missing.
    """
    examples = """
    jupyter gpu doctor
    jupyter gpu doctor --json
    """

    def run(self) -> None:
        """Look at everything and print what was found."""
        survey = self.host.look_now()
        findings = [
            *self._devices(survey),
            self._pid_namespace(survey),
            self._ledger(),
            *self._installation(),
            self._interposer(),
            *_frameworks(),
        ]
        failed = any(finding.state == "problem" for finding in findings)
        if self.json:
            self.print_json({"ok": not failed, "findings": [asdict(finding) for finding in findings]})
        else:
            for finding in findings:
                print(f"[{finding.state:^7}] {finding.name}: {plain(finding.found)}")
                if finding.advice:
                    print(f"{'':10}{plain(finding.advice)}")
        if failed:
            raise SystemExit(1)

    def _devices(self, survey: Survey) -> Iterable[Finding]:
        inventory = survey.inventory
        source = "simulated" if self.host.simulated else f"driver {inventory.driver_version or 'unknown'}"
        for problem in inventory.problems:
            yield Finding("GPUs", "problem", problem.message, problem.advice)
        for device in inventory.devices:
            size = readable_amount(device.memory_bytes)
            usage = survey.usage.get(device.uuid)
            if usage is not None and usage.lost:
                yield Finding(f"GPU {device.index}", "problem", f"{device.name} is lost", "Reset it, or reboot.")
            else:
                yield Finding(f"GPU {device.index}", "ok", f"{device.name}, {size}, {device.uuid} ({source})")
        if not inventory.devices and not inventory.problems:
            yield Finding("GPUs", "problem", "There is none.", "Set JUPYTER_GPU_SIMULATE to try jupyter_gpu without.")

    def _pid_namespace(self, survey: Survey) -> Finding:
        hidden = sum(not process.lineage for process in survey.processes)
        if hidden and hidden == len(survey.processes):
            return Finding(
                "Processes",
                "note",
                f"none of the driver's {hidden} pids is known here: this is a container with pids of its own",
                "Use per kernel is estimated. Start the container with the host's pid namespace for exact figures.",
            )
        return Finding("Processes", "ok", f"{len(survey.processes)} on the devices, all of them known here")

    def _ledger(self) -> Finding:
        path = self.host.ledger.store.path
        try:
            self.host.ledger.store.verify()
            count = len(self.host.leases_now())
        except LedgerError as error:
            return Finding("Ledger", "problem", str(error))
        file_system = _file_system(path)
        if file_system in _SHARED_FILE_SYSTEMS:
            return Finding(
                "Ledger",
                "problem",
                f"{path} is on {file_system}, which other hosts share",
                "Set JUPYTER_GPU_RUNTIME_DIR to a directory that is local to this host.",
            )
        return Finding(
            "Ledger", "ok", f"{path} ({file_system or 'unknown file system'}), {count} lease{'' if count == 1 else 's'}"
        )

    def _installation(self) -> Iterable[Finding]:
        from jupyter_client.provisioning.factory import KernelProvisionerFactory  # noqa: PLC0415 - slow, needed here only

        factory = KernelProvisionerFactory.instance(parent=self)
        if factory._check_availability("gpu-provisioner"):  # noqa: SLF001 - there is no public way to ask
            yield Finding("Kernel provisioner", "ok", "installed; servers use it for every kernelspec")
            if factory.default_provisioner_name != "gpu-provisioner":
                yield Finding(
                    "Kernels without a server",
                    "note",
                    "nbclient, papermill and the console start kernels without us unless told otherwise",
                    "Set JUPYTER_DEFAULT_PROVISIONER_NAME=gpu-provisioner, or run jupyter gpu kernelspec install.",
                )
        else:
            yield Finding("Kernel provisioner", "problem", "it is not installed", _INSTALL_AGAIN)
        yield self._server_extension()
        directories = [Path(directory) / "labextensions" / "jupyter-gpu" for directory in self.jupyter_path]
        found = next((path for path in directories if (path / "package.json").is_file()), None)
        if found is not None:
            yield Finding("JupyterLab extension", "ok", str(found))
        else:
            yield Finding("JupyterLab extension", "problem", "it is not installed", _INSTALL_AGAIN)

    def _interposer(self) -> Finding:
        """Whether caps are kept at the driver's level; compiles the library if need be."""
        self.host.limits.library(_COMPILE_TIMEOUT_S)
        layer = self.host.limits.layers(())[0]
        if layer.active:
            return Finding("Caps at the driver's level", "ok", f"{self.host.limits.library(0)}")
        return Finding(
            "Caps at the driver's level",
            "note",
            layer.reason or "they are not kept",
            "" if self.host.simulated else "The frameworks' own settings hold without them.",
        )

    def _server_extension(self) -> Finding:
        from jupyter_server.extension.config import ExtensionConfigManager  # noqa: PLC0415

        for directory in self.config_file_paths:
            manager = ExtensionConfigManager(read_config_path=[directory])
            extensions = manager.get_jpserver_extensions()  # type: ignore[no-untyped-call]
            enabled = extensions.get("jupyter_gpu")
            if enabled is not None:
                if enabled:
                    return Finding("Server extension", "ok", f"enabled in {directory}")
                break
        return Finding(
            "Server extension", "problem", "it is not enabled", "Run jupyter server extension enable jupyter_gpu."
        )


def _frameworks() -> Iterable[Finding]:
    """The frameworks in the environment of each kernelspec that runs Python."""
    from jupyter_client.kernelspec import KernelSpecManager  # noqa: PLC0415

    by_interpreter: dict[str, list[str]] = {}
    for name, entry in KernelSpecManager().get_all_specs().items():
        spec = entry["spec"]
        program = shutil.which(spec["argv"][0]) if spec.get("argv") else None
        if program and "python" in Path(program).name and "jupyter_gpu" not in (spec.get("metadata") or {}):
            by_interpreter.setdefault(program, []).append(name)
    for program, names in by_interpreter.items():
        versions = _versions(program)
        kernels = ", ".join(sorted(names))
        if versions is None:
            yield Finding(f"Frameworks of {kernels}", "note", f"{program} did not tell its packages")
        else:
            found = ", ".join(f"{name} {version}" for name, version in versions.items())
            yield Finding(f"Frameworks of {kernels}", "ok", found or "none of those that jupyter_gpu knows")


def _versions(program: str) -> dict[str, str] | None:
    try:
        done = subprocess.run(
            [program, "-c", _ASK_FOR_VERSIONS, *FRAMEWORKS],
            capture_output=True,
            timeout=_INTERPRETER_TIMEOUT_S,
            check=True,
        )
        versions = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return versions if isinstance(versions, dict) else None


def _file_system(path: Path) -> str | None:
    """The type of the file system that a path is on, from /proc/self/mountinfo; `None` if that does not tell."""
    try:
        device = os.stat(path.parent).st_dev  # noqa: PTH116 - only the number is wanted
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == number:
            return rest.split()[0]
    return None
