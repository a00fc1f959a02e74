"""The GPU that `run.py` uses, and what NVML says is in use on it, through ctypes: no package is needed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from jupyter_gpu.kernel.driver import Driver, DriverError


@dataclass(frozen=True)
class GPU:
    """One GPU."""

    name: str
    uuid: str
    memory_bytes: int
    driver: str
    nvml: Driver | None = None

    def used(self) -> int | None:
        """What is in use on it, in bytes, by whomever."""
        return None if self.nvml is None else self.nvml.reading(self.uuid, 0).used_bytes

    def used_by(self, tree: set[int], before: int | None) -> tuple[int | None, str]:
        """What these processes use, in bytes, and how that is known.

        In a container NVML names processes by pids that mean nothing here: then it is what is in use more than
        `before` they began.
        """
        if self.nvml is None:
            return None, ""
        figures = [self.nvml.reading(self.uuid, pid).own_bytes for pid in tree]
        known = [figure for figure in figures if figure]
        if known:
            return sum(known), "processes"
        now = self.used()
        return (None, "") if now is None or before is None else (max(0, now - before), "device")


def find_gpu() -> GPU | None:
    """The first GPU, `None` where there is none."""
    try:
        nvml = Driver()
    except DriverError as problem:
        print(f"no GPU: {problem}", file=sys.stderr)
        return None
    for device in nvml.devices():
        if device.memory_bytes:
            return GPU(device.name, device.uuid, device.memory_bytes, driver_version(), nvml)
    print("no GPU: NVML lists none", file=sys.stderr)
    return None


def driver_version() -> str:
    """The driver's version, as the kernel module or nvidia-smi says it."""
    try:
        return Path("/sys/module/nvidia/version").read_text().strip()
    except OSError:
        pass
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.splitlines()[0].strip()
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"


def tree_of(pid: int) -> set[int]:
    """The process and all its descendants."""
    found = {pid}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            names = children.read_text().split()
        except OSError:
            continue  # it has ended meanwhile
        for child in names:
            found |= tree_of(int(child))
    return found
