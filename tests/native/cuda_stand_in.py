"""Builds what the tests of the interposer run: the stand-in driver, programs that use it, and the library itself.

Everything is compiled once, under a name that its sources decide, into `tests/native/build/cuda`.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_gpu.limits import interposer
from jupyter_gpu.limits.account import Account

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

NATIVE = Path(__file__).parent
BUILD = NATIVE / "build" / "cuda"
STAND_IN = NATIVE / "cuda"
PROGRAMS = NATIVE / "interposer"

MIB = 1 << 20
GIB = 1 << 30
UUIDS = tuple(f"GPU-5d5d5d5d-5d5d-5d5d-5d5d-5d5d5d5d5d{number:02x}" for number in range(8))
"""The stand-in's devices."""

VERSIONS = ("12", "13")
STAND_IN_FLAGS = {
    "12": ("-DSTANDIN_VERSION=12090",),
    "13": ("-DSTANDIN_VERSION=13000",),
    "13-versioned": ("-DSTANDIN_VERSION=13000", f"-Wl,--version-script={STAND_IN / 'versioned.map'}"),
}
SANITIZERS = {
    "": (),
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
    "thread": ("-fsanitize=thread", "-fno-omit-frame-pointer"),
}
FLAGS = ("-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-pthread")


def compiler() -> str:
    """The system's C compiler; the tests of a C library cannot do without one."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert found, "the tests of the interposer need a C compiler: install gcc"
    return found


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compiled(name: str, arguments: Sequence[str], sources: Iterable[Path], *, folder: str) -> Path:
    """The file `name` in a folder of its own, compiled with `arguments` and `-o` unless it is there already."""
    digest = hashlib.sha256("\0".join(arguments).encode())
    for source in sources:
        digest.update(source.read_bytes())
    directory = BUILD / f"{folder}-{digest.hexdigest()[:12]}"
    target = directory / name
    with _alone(directory):
        if not target.exists():
            draft = directory / f".{name}.{os.getpid()}"
            done = subprocess.run(
                ["nice", compiler(), *arguments, "-o", str(draft), "-ldl"], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            draft.rename(target)
    return target


def _headers() -> list[Path]:
    return [*STAND_IN.glob("*.[ch]"), STAND_IN / "versioned.map", *interposer.source_files()]


@functools.cache
def stand_in(version: str = "13", sanitizer: str = "") -> Path:
    """The folder with `libcuda.so.1` and `libnvidia-ml.so.1` of that CUDA version."""
    sources = [path for path in sorted(STAND_IN.glob("*.c")) if path.name != "nvml.c"]
    shared = ("-shared", "-fvisibility=hidden", "-Wl,-Bsymbolic")
    flags = [*FLAGS, *SANITIZERS[sanitizer], *shared]
    driver = compiled(
        "libcuda.so.1",
        [*flags, *STAND_IN_FLAGS[version], "-Wl,-soname,libcuda.so.1", *map(str, sources)],
        _headers(),
        folder=f"stand-in-{version}{sanitizer and '-'}{sanitizer}",
    )
    nvml = compiled(
        "libnvidia-ml.so.1",
        [*flags, "-Wl,-soname,libnvidia-ml.so.1", str(STAND_IN / "nvml.c")],
        _headers(),
        folder="nvml" + (sanitizer and f"-{sanitizer}"),
    )
    for link, to in ((driver.parent / "libcuda.so", driver), (driver.parent / nvml.name, nvml)):
        with _alone(driver.parent):
            link.unlink(missing_ok=True)
            link.symlink_to(to)
    return driver.parent


@functools.cache
def library(sanitizer: str = "") -> Path:
    """The interposer: as users build it, or with a sanitizer."""
    if not sanitizer:
        BUILD.mkdir(parents=True, exist_ok=True)
        BUILD.chmod(0o700)
        return interposer.build(BUILD)
    sources = interposer.source_files()
    flags = [flag for flag in interposer.COMPILER_FLAGS if flag not in ("-Wl,--no-undefined", "-O2")]
    exports = (interposer.SOURCES / "exports.map").read_text()
    if sanitizer == "thread":
        # This one's run time looks up functions before it can run any other code than its own.
        exports = exports.replace("        dlsym;\n        dlvsym;\n", "")
    script = BUILD / f"exports-{sanitizer}.map"
    BUILD.mkdir(parents=True, exist_ok=True)
    script.write_text(exports)
    return compiled(
        "libinterposer.so",
        [
            *flags,
            "-O1",
            *SANITIZERS[sanitizer],
            "-Wl,-soname,libinterposer.so",
            f"-Wl,--version-script={script}",
            *(str(path) for path in sources if path.suffix == ".c"),
        ],
        sources,
        folder=f"library-{sanitizer}",
    )


@functools.cache
def program(name: str, sanitizer: str = "") -> Path:
    """A program of `tests/native/interposer`, linked with the driver; with a sanitizer also with the interposer."""
    driver = stand_in("13", sanitizer)
    sources = [*sorted(PROGRAMS.glob(f"{name}.c")), *sorted(PROGRAMS.glob(f"{name}_of_*.c"))]
    sources.append(interposer.SOURCES / "account.c")
    arguments = [*FLAGS, *SANITIZERS[sanitizer], *map(str, sources)]
    if sanitizer:
        # Before the driver, as a preloaded library is; preloading it would put it before the sanitizer's own.
        where = library(sanitizer).parent
        arguments += ["-Wl,--no-as-needed", f"-L{where}", f"-Wl,-rpath,{where}", "-linterposer"]
    arguments += [f"-L{driver}", "-lcuda"]
    return compiled(
        name, arguments, [*sources, *PROGRAMS.glob("*.h"), *_headers()], folder=f"{name}{sanitizer and '-'}{sanitizer}"
    )


def new_account(directory: Path, cap: int | None = GIB, *, uuids: Sequence[str] = UUIDS[:1], slots: int = 512) -> Path:
    """An account with that cap on each device, as the server makes it; its path."""
    path = directory / "account"
    path.unlink(missing_ok=True)
    Account.create(path, "lease-of-a-test", [(uuid, cap, 4 * GIB) for uuid in uuids], slots).close()
    return path


def environment(
    account: Path | None,
    *,
    version: str = "13",
    preload: bool = True,
    devices: Sequence[int] = (4 * GIB, 4 * GIB),
    sanitizer: str = "",
    **more: str,
) -> dict[str, str]:
    """The environment of a client: the stand-in as its driver, and, unless `preload` is off, the interposer."""
    set_by_tests = ("JUPYTER_GPU", "CUDA_", "LD_", "STANDIN")
    result = {key: value for key, value in os.environ.items() if not key.startswith(set_by_tests)}
    result |= {"LD_LIBRARY_PATH": str(stand_in(version, sanitizer)), **more}
    result["STANDIN_CUDA_DEVICES"] = ",".join(map(str, devices))
    if account is not None:
        result["JUPYTER_GPU_ACCOUNT"] = str(account)
    if preload and not sanitizer:
        result["LD_PRELOAD"] = str(library())
    return result
