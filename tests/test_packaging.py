"""The wheel: what is in it, and that it installs and works without Node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, **variables: str) -> str:
    """What a command prints, without Node on its path."""
    path = "/usr/bin:/bin" if variables.get("NO_NODE") else os.environ["PATH"]
    environment = {**os.environ, **variables, "PATH": path}
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, env=environment, cwd="/", capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def uv() -> str:
    own = ROOT / ".cache" / "uv" / "bin" / "uv"
    found = str(own) if own.exists() else shutil.which("uv")
    assert found, "uv is not here; make test installs it"
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the tracked files as anybody would build it."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in (os.fsdecode(file) for file in files if file):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    run(uv(), "build", "--wheel", "--python", sys.executable, "--out-dir", directory, source)
    [built] = directory.glob("*.whl")
    return built


@pytest.mark.timeout(600)
def test_the_wheel_has_everything_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    data = "jupyter_gpu-0.1.0.data/data/"
    assert f"{data}etc/jupyter/jupyter_server_config.d/jupyter_gpu.json" in names
    assert f"{data}share/jupyter/labextensions/jupyter-gpu/package.json" in names
    assert f"{data}share/jupyter/labextensions/jupyter-gpu/install.json" in names
    assert any(name.startswith(f"{data}share/jupyter/labextensions/jupyter-gpu/static/remoteEntry.") for name in names)
    assert "jupyter_gpu/server/openapi.yaml" in names
    assert "jupyter_gpu/kernel/startup.py" in names
    assert "jupyter_gpu/limits/interposer/account.h" in names
    assert not any(name.startswith(("tests/", "labextension/", "binder/")) for name in names)
    assert not any(name.endswith(".pyc") for name in names)
    assert wheel.name == "jupyter_gpu-0.1.0-py3-none-any.whl"


@pytest.mark.timeout(600)
def test_it_installs_without_node_and_everything_is_switched_on(wheel: Path, tmp_path: Path) -> None:
    python = tmp_path / "env" / "bin" / "python"
    run(uv(), "venv", "--python", sys.executable, tmp_path / "env")
    run(uv(), "pip", "install", "--python", python, f"jupyter-gpu[lab] @ file://{wheel}", NO_NODE="1")
    variables = {"NO_NODE": "1", "HOME": str(tmp_path), "JUPYTER_GPU_SIMULATE": "2xNVIDIA T4:16GiB"}
    assert "jupyter_gpu enabled" in _plain(run(python, "-m", "jupyter", "server", "extension", "list", **variables))
    assert "gpu-provisioner" in run(python, "-m", "jupyter", "kernelspec", "provisioners", **variables)
    extensions = _plain(run(python, "-m", "jupyter", "labextension", "list", **variables))
    assert "jupyter-gpu v0.1.0 enabled OK" in extensions
    doctor = run(python, "-m", "jupyter", "gpu", "doctor", **variables)
    assert "[problem]" not in doctor
    assert "NVIDIA T4, 16 GiB" in doctor


def _plain(text: str) -> str:
    """Text without colours."""
    for code in ("\x1b[32m", "\x1b[33m", "\x1b[0m"):
        text = text.replace(code, "")
    return text
