"""Other projects that show GPUs, installed beside ours for benchmarks: an environment of their own, made once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

_ENVIRONMENT = Path(__file__).parents[2] / ".cache" / "envs" / "peers"
_PACKAGES = ("nvitop", "gpustat", "nvidia-ml-py", "jupyterlab-nvdashboard", "jupyter_server")


def peer_python() -> Path:
    """The Python that has them, once they are installed.

    Raises:
        subprocess.CalledProcessError: they cannot be installed.
    """
    python = _ENVIRONMENT / "bin" / "python"
    done = _ENVIRONMENT / "installed"
    if not done.exists():
        print(f"installing {', '.join(_PACKAGES)} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(_ENVIRONMENT)], check=True)
        _install(python)
        done.touch()
    return python


def _install(python: Path) -> None:
    uv = shutil.which("uv") or next((Path(__file__).parents[2] / ".cache" / "uv" / "bin").glob("uv"), None)
    if uv is not None:
        subprocess.run([str(uv), "pip", "install", "-q", "--python", str(python), *_PACKAGES], check=True)
        return
    subprocess.run([str(python), "-m", "ensurepip", "--upgrade"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([str(python), "-m", "pip", "install", "-q", *_PACKAGES], check=True)
