"""Environments with CUDA's header files, its run time and real clients of the driver, from PyPI; none needs a GPU.

They are made by the test run itself, once, outside the environment that the tests run in.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".cache" / "envs"

PACKAGES = {
    "13": (
        "cuda-bindings==13.*",
        "cuda-core",
        "numba-cuda",
        "nvidia-cuda-runtime==13.*",
        "nvidia-nvml-dev==13.*",
    ),
    "12": (
        "cuda-bindings==12.9.*",
        "cuda-core",
        "numba-cuda",
        "nvidia-cuda-runtime-cu12==12.9.*",
        "nvidia-nvml-dev-cu12==12.9.*",
    ),
}
"""What is installed for each CUDA version."""


@functools.cache
def environment(version: str) -> Path:
    """The folder of the environment for CUDA `version`.

    Raises:
        AssertionError: the packages cannot be installed; the message is the installer's.
    """
    wanted = hashlib.sha256("\n".join(PACKAGES[version]).encode()).hexdigest()[:12]
    directory = ENVIRONMENTS / f"cuda{version}"
    done = directory / f"installed-{wanted}"
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with (ENVIRONMENTS / f".cuda{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(directory, ignore_errors=True)
            for command in _commands(directory, PACKAGES[version]):
                result = subprocess.run(["nice", *command], capture_output=True, text=True, check=False)
                assert result.returncode == 0, f"{' '.join(command)} failed:\n{result.stderr[-2000:]}"
            done.touch()
    return directory


def python(version: str) -> Path:
    """The interpreter of that environment."""
    return environment(version) / "bin" / "python"


def site_packages(version: str) -> Path:
    """Where that environment's packages are."""
    return next((environment(version) / "lib").glob("python3*")) / "site-packages"


def headers(version: str) -> list[Path]:
    """The folders that hold `cuda.h`, `cudaTypedefs.h` and `nvml.h`."""
    folders = {path.parent for name in ("cuda.h", "nvml.h") for path in site_packages(version).rglob(name)}
    assert len({name for folder in folders for name in ("cuda.h", "nvml.h") if (folder / name).exists()}) == 2
    return sorted(folders)


def runtime(version: str) -> Path:
    """The CUDA run time library."""
    return next(site_packages(version).rglob(f"libcudart.so.{version}"))


def _commands(directory: Path, packages: tuple[str, ...]) -> list[list[str]]:
    local = ROOT / ".cache" / "uv" / "bin" / "uv"
    uv = shutil.which("uv") or (str(local) if local.exists() else None)
    if uv:
        return [
            [uv, "venv", "--quiet", "--python", sys.executable, str(directory)],
            [uv, "pip", "install", "--quiet", "--python", str(directory / "bin" / "python"), *packages],
        ]
    return [
        [sys.executable, "-m", "venv", str(directory)],
        [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages],
    ]


if __name__ == "__main__":
    for each in PACKAGES:
        print(f"CUDA {each}", environment(each))
