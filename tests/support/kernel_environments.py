"""The Python environments that kernel tests need, made once and kept under `.cache/envs`.

Run it to make them ahead of the tests::

    python tests/support/kernel_environments.py            # all
    python tests/support/kernel_environments.py theano     # some

None of them contains jupyter_gpu. An environment is complete when its mark holds the recipe that it was made by.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".cache" / "envs"
_MARK = "jupyter_gpu_recipe.json"
_INSTALL_TIMEOUT_S = 1500


@dataclass(frozen=True)
class Recipe:
    """What an environment is made of. `with_pip` is installed by pip with pip's own configuration, before the rest."""

    python: str
    packages: tuple[str, ...]
    with_pip: tuple[str, ...] = ()


RECIPES = {
    # PyTorch of this version is to be had as a CPU build through pip's configuration, where there is one.
    "frameworks": Recipe(
        "3.11", ("tensorflow-cpu==2.21.*", "jax", "keras>=3", "ipykernel"), ("torch==2.13.0", "numpy<2.4")
    ),
    "theano": Recipe(
        "3.11",
        ("Theano==1.0.5", "numpy==1.23.5", "scipy<1.12", "setuptools<70", "tensorflow-cpu==2.15.1", "ipykernel"),
    ),
    # The oldest Python that a kernel may have: the one that Theano's last users run.
    "oldest": Recipe("3.7", ("ipykernel",)),
}


class MissingPython(Exception):  # noqa: N818 - it names what is the case
    """There is no Python of that version here."""


def environment_python(name: str) -> Path:
    """The interpreter of the environment `name`, which is made if need be.

    Raises:
        MissingPython: its version of Python is not here.
    """
    recipe = RECIPES[name]
    directory = ENVIRONMENTS / name
    interpreter = directory / "bin" / "python"
    mark = directory / _MARK
    wanted = json.dumps(asdict(recipe), sort_keys=True)
    if mark.exists() and mark.read_text() == wanted and interpreter.exists():
        return interpreter
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    uv = _uv()
    base = _base_python(recipe.python)
    if uv:
        _run(uv, "venv", "--quiet", "--seed", "--python", base, str(directory))
    else:
        _run(base, "-m", "venv", str(directory))
    pip = (str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    if recipe.with_pip:
        _run(*pip, *recipe.with_pip)
    if uv:
        _run(uv, "pip", "install", "--quiet", "--python", str(interpreter), *recipe.packages)
    else:
        _run(*pip, *recipe.packages)
    mark.write_text(wanted)
    return interpreter


def _uv() -> str | None:
    own = ROOT / ".cache" / "uv" / "bin" / "uv"
    return str(own) if own.exists() else shutil.which("uv")


def _base_python(version: str) -> str:
    """An interpreter of that version: this one, one on PATH, or one that pyenv keeps."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        return sys.executable
    named = shutil.which(f"python{version}")
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [named] if named else []
    candidates += [str(path / "bin" / "python") for path in sorted(versions.glob(f"{version}.*"))]
    for candidate in candidates:
        # A shim of pyenv is on PATH for versions that are not switched on, and fails.
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    raise MissingPython(f"there is no Python {version} here")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    for each in sys.argv[1:] or list(RECIPES):
        try:
            print(each, environment_python(each))
        except MissingPython as error:
            print(each, "is left out:", error)
