"""The interposer's idea of CUDA is that of NVIDIA's header files, of CUDA 12 and 13."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import cuda_packages
import cuda_stand_in as cuda
import pytest

from jupyter_gpu.limits import interposer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)  # the header files are fetched the first time


def compile_against(version: str, arguments: list[str]) -> str:
    """What the compiler says of a compilation against the real headers."""
    includes = [part for folder in cuda_packages.headers(version) for part in ("-isystem", str(folder))]
    command = [cuda.compiler(), "-std=gnu11", "-Wall", "-Wextra", "-Wno-deprecated-declarations", *includes, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


@pytest.mark.parametrize("version", cuda.VERSIONS)
def test_every_hook_has_the_signature_of_the_header_files(version: str, tmp_path: Path) -> None:
    # The hooks are defined under the names that cuda.h and nvml.h declare, so a difference does not compile, and one
    # that they do not declare is named by the warning.
    sources = [str(path) for path in interposer.source_files() if path.suffix == ".c"]
    library = tmp_path / "library.so"
    flags = ["-DJGPU_CUDA_HEADERS", "-Wmissing-prototypes", "-fPIC", "-shared", "-Wl,-Bsymbolic", "-o", str(library)]
    assert compile_against(version, [*flags, *sources, "-ldl"]) == ""
    assert library.exists()


@pytest.mark.parametrize("version", cuda.VERSIONS)
def test_every_hook_is_what_cu_get_proc_address_gives_at_its_version(version: str, tmp_path: Path) -> None:
    source = (cuda.PROGRAMS / "typedefs.c").read_text()
    source = source.replace("../../../jupyter_gpu", str(cuda.NATIVE.parents[1] / "jupyter_gpu"))
    if version == "12":
        source = source.replace(
            "JGPU_CUDA_HOOKS(IS)", "#define PFN_cuCtxSynchronize_v13000 void *\nJGPU_CUDA_HOOKS(IS)"
        )
    (tmp_path / "typedefs.c").write_text(source)
    done = compile_against(version, ["-c", "-o", str(tmp_path / "typedefs.o"), str(tmp_path / "typedefs.c")])
    assert done == ""


@pytest.mark.parametrize("version", cuda.VERSIONS)
def test_every_number_is_that_of_the_header_files(version: str, tmp_path: Path) -> None:
    source = str(cuda.PROGRAMS / "abi.c")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert compile_against(version, ["-o", str(ours), source]) == ""
    assert compile_against(version, ["-DJGPU_CUDA_HEADERS", "-o", str(theirs), source]) == ""
    printed = subprocess.run([ours], capture_output=True, text=True, check=True).stdout
    assert printed == subprocess.run([theirs], capture_output=True, text=True, check=True).stdout
    assert len(printed.splitlines()) > 50


@pytest.mark.parametrize("version", cuda.VERSIONS)
def test_the_stand_in_has_the_signatures_of_the_header_files(version: str, tmp_path: Path) -> None:
    for source in sorted(cuda.STAND_IN.glob("*.c")):
        flag = next(flag for flag in cuda.STAND_IN_FLAGS[version] if flag.startswith("-DSTANDIN_VERSION"))
        output = str(tmp_path / "object.o")
        done = compile_against(version, ["-DJGPU_CUDA_HEADERS", flag, "-fPIC", "-c", "-o", output, str(source)])
        # Functions that only clients need may be declared more loosely; those that the library uses may not.
        names = set(re.findall(r"conflicting types for .(\w+)", done))
        used = set(re.findall(r"(?:HOOK|HELPER)\((\w+)", (interposer.SOURCES / "driver.h").read_text()))
        assert not names & used, done
