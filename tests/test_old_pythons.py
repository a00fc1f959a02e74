"""What runs inside kernels runs on Python 3.7, with nothing but the standard library."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import jupyter_gpu

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(jupyter_gpu.__file__).parent
IN_KERNELS = (
    "__init__.py",
    "paths.py",
    "plain.py",
    "simulated.py",
    "devices/__init__.py",
    "devices/amount.py",
    "devices/processes.py",
    "devices/simulation.py",
    "limits/__init__.py",
    "limits/account.py",
    "limits/account_file.py",
)
WHEEL_FREE = sys.stdlib_module_names | {"IPython", "ipykernel", "jupyter_gpu"}


def imports(path: Path) -> Iterator[str]:
    """What a module imports when it is imported, relative imports as paths in the package."""
    tree = ast.parse(path.read_text(), feature_version=(3, 7))
    for node in tree.body:  # those inside `if TYPE_CHECKING:` and functions are not met
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module is not None
            yield node.module.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1].relative_to(PACKAGE)
            module = base / (node.module or "").replace(".", "/")
            yield f"{module}.py" if (PACKAGE / f"{module}.py").exists() else f"{module}/__init__.py"


@pytest.mark.parametrize("name", IN_KERNELS)
def test_it_needs_the_standard_library_and_its_own_kind_only(name: str) -> None:
    for imported in imports(PACKAGE / name):
        assert imported in WHEEL_FREE or imported in IN_KERNELS, imported


def test_it_uses_nothing_that_python_3_7_lacks() -> None:
    pytest.importorskip("vermin")
    paths = [str(PACKAGE / name) for name in IN_KERNELS]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import vermin; vermin.main()",
            "-t=3.7-",
            "--no-tips",
            "--violations",
            "--backport",
            "typing",
            *paths,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def old_pythons() -> list[str]:
    """Interpreters of 3.7 to 3.9 on this machine."""
    versions = ("3.7", "3.8", "3.9")
    found = [shutil.which(f"python{version}") for version in versions]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += [str(path) for version in versions for path in sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]
    return [path for path in found if path is not None and _works(path)]


def _works(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("python", old_pythons() or [pytest.param("", marks=pytest.mark.skip("there is none here"))])
def test_memory_is_taken_and_refused_on_an_old_python(python: str, simulated_gpus: str) -> None:
    program = """
    import os, sys
    sys.path.insert(0, sys.argv[1])
    import jupyter_gpu.simulated as gpu
    with gpu.computing(), gpu.allocate("2GiB") as block:
        assert block.size == 2 << 30
        try:
            gpu.allocate("39GiB")
        except gpu.OutOfDeviceMemory as error:
            assert "38 GiB of the device's 40 GiB is free" in str(error), error
        else:
            sys.exit("nothing was refused")
    print(sys.version_info[:2])
    """
    done = subprocess.run(
        [python, "-c", textwrap.dedent(program), str(PACKAGE.parent)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(3, ")
