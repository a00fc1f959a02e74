"""The interposer: a C library that answers out-of-memory at the CUDA driver API beyond a lease's cap.

Preloaded into a kernel's process tree, it holds for every framework. The wheel carries its source; it is compiled on
first use with the system's compiler and kept in a directory of the user, or taken from the wheel where that was built
with it. Where neither is possible, the reason says why, and the next layer of limits holds.

Standard library only and without imports from this package: the wheel's build hook loads this file by its path.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["BuildError", "InterposerStatus", "build", "library_path", "preload_value", "status"]

SOURCES = Path(__file__).parent
MACHINES = ("x86_64", "aarch64")
"""Where the library has been built and its atomics are the processor's own."""

COMPILER_FLAGS = (
    "-std=c11",
    "-O2",
    "-g1",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-pthread",
    # The hooks must find each other, not what another preloaded library calls by the same name. Without "-functions"
    # this library would also come first in what it looks up on behalf of others.
    "-Wl,-Bsymbolic-functions",
    "-Wl,-z,relro,-z,now",
    "-Wl,--no-undefined",
)
_BUILD_TIMEOUT_S = 180
_PROBE_TIMEOUT_S = 30
_PROBE = "import sys; sys.exit(0 if sys.argv[1] in open('/proc/self/maps').read() else 3)"
_SEPARATORS = " :\t\n$"
"""ld.so(8): LD_PRELOAD is a list separated by spaces or colons, in which `$` begins a token."""


class BuildError(Exception):
    """The library cannot be built here. The message says why and what to do."""


class InterposerStatus(NamedTuple):
    """Whether the interposer can be preloaded."""

    path: Path | None
    """The library, absolute; `None` where there is none that works."""
    origin: str | None
    """`"shipped"` in the wheel or `"built"` on this machine."""
    reason: str | None
    """Why there is none, one sentence."""

    @property
    def usable(self) -> bool:
        """Whether there is a library that works."""
        return self.path is not None


def library_path() -> tuple[Path | None, str | None]:
    """The library to preload, compiled first if need be, and a sentence why there is none.

    Compiling takes a few seconds, so call it off the event loop. It never raises.
    """
    found = status()
    if found.usable or _unsupported() is not None:
        return found.path, found.reason
    try:
        return build(), None
    except BuildError as error:
        return None, str(error)


def status() -> InterposerStatus:
    """The library that is there now; nothing is compiled. It never raises."""
    reason = _unsupported()
    if reason is not None:
        return InterposerStatus(None, None, reason)
    shipped = SOURCES / _file_name()
    problem: str | None = None
    if shipped.is_file():
        problem = _problem_with(shipped)
        if problem is None:
            return InterposerStatus(shipped, "shipped", None)
    for directory in _cache_directories():
        built = directory / _file_name()
        if _distrust(directory) is None and _distrust(built) is None:
            problem = _problem_with(built)
            if problem is None:
                return InterposerStatus(built, "built", None)
    compiler = _compiler()
    if problem is None and compiler is not None:
        problem = f"the interposer is not built yet; it is compiled with {compiler} when the first kernel needs it"
    return InterposerStatus(None, None, problem or _no_compiler())


def build(directory: Path | None = None, *, compiler: str | None = None, extra_flags: Sequence[str] = ()) -> Path:
    """Compile the library into `directory` (default: the user's cache) and return its path.

    Raises:
        BuildError: the machine is not one that it works on, there is no compiler, no directory that may hold it, it
            does not compile, or what came out cannot be preloaded.
    """
    reason = _unsupported()
    if reason is not None:
        raise BuildError(reason)
    compiler = compiler or _compiler()
    if compiler is None:
        raise BuildError(_no_compiler())
    problems = []
    for place in [directory] if directory is not None else _cache_directories():
        try:
            path = _build_in(place, compiler, extra_flags)
        except (BuildError, OSError) as error:
            problems.append(str(error))
            continue
        _problem_with.cache_clear()
        problem = _problem_with(path)
        if problem is None:
            return path
        problems.append(problem)
    raise BuildError("; ".join(problems) or "there is no directory to build the interposer in: set XDG_CACHE_HOME")


def preload_value(library: Path, existing: str | None) -> str:
    """What `LD_PRELOAD` becomes: `library` after what was there (`existing`, which may be empty or `None`)."""
    entries = [entry for entry in (existing or "").replace(" ", ":").split(":") if entry and entry != str(library)]
    return ":".join([*entries, str(library)])


def source_files() -> list[Path]:
    """What the library is compiled from, in a fixed order."""
    return sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h"), SOURCES / "exports.map"])


@functools.lru_cache(maxsize=1)
def _file_name() -> str:
    digest = hashlib.sha256("\0".join(COMPILER_FLAGS).encode())
    for path in source_files():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    # A home directory may be shared by machines of several kinds.
    return f"interposer-{digest.hexdigest()[:16]}-{platform.machine()}.so"


def _unsupported() -> str | None:
    if sys.platform != "linux":
        return f"the interposer works on Linux only, and this is {sys.platform}"
    if platform.machine() not in MACHINES or sys.maxsize < 2**32:
        return f"the interposer works on {' and '.join(MACHINES)}, and this is {platform.machine()}"
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):
        libc = None
    if not libc:
        return "the interposer needs the GNU C library, and this Python runs on another one"
    return None


def _compiler() -> str | None:
    for name in (os.environ.get("CC", "").split(" ")[0], "cc", "gcc", "clang"):
        found = shutil.which(name) if name else None
        if found:
            return found
    return None


def _no_compiler() -> str:
    return (
        "the interposer cannot be built, because there is no C compiler (cc, gcc or clang): install one, "
        "or a wheel that was built with JUPYTER_GPU_PREBUILT_INTERPOSER=1"
    )


def _cache_directories() -> Iterator[Path]:
    # Path.home() raises where there is none; expanduser then leaves the path as it is.
    for base in (Path(os.environ.get("XDG_CACHE_HOME", "")), Path(os.path.expanduser("~/.cache"))):  # noqa: PTH111
        if base.is_absolute():
            yield base / "jupyter-gpu" / "interposer"
    # A home that is read-only, mounted without leave to execute, or spelled with a space.
    yield Path(tempfile.gettempdir()) / f"jupyter-gpu-{os.getuid()}" / "interposer"


def _distrust(path: Path) -> str | None:
    """Why code from `path`, a directory or a library, may not be loaded; `None` where it may."""
    try:
        found = path.lstat()
    except OSError as error:
        return f"{path} cannot be used: {error.strerror}"
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a symbolic link, so others may decide what it leads to"
    if found.st_uid != os.getuid():
        return f"{path} belongs to another user (uid {found.st_uid})"
    if found.st_mode & 0o022:
        return f"{path} can be written by others (mode {stat.S_IMODE(found.st_mode):o})"
    return None


def _build_in(directory: Path, compiler: str, extra_flags: Sequence[str]) -> Path:
    # The last two levels are ours alone; what is above belongs to the user's own arrangement.
    for level in (directory.parent, directory):
        level.mkdir(mode=0o700, parents=True, exist_ok=True)
        reason = _distrust(level) if level == directory or level.name.startswith("jupyter-gpu") else None
        if reason is not None:
            raise BuildError(reason)
    target = directory / _file_name()
    with tempfile.TemporaryDirectory(dir=directory, prefix=".build-") as scratch:
        draft = Path(scratch) / target.name
        sources = [str(path) for path in source_files() if path.suffix == ".c"]
        version_script = f"-Wl,--version-script={SOURCES / 'exports.map'}"
        command = [compiler, *COMPILER_FLAGS, version_script, *extra_flags, "-o", str(draft), *sources, "-ldl"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildError(f"the interposer could not be compiled with {compiler}: {error}") from error
        if done.returncode != 0:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            raise BuildError(f"{compiler} could not compile the interposer: {lines[0] if lines else 'it said nothing'}")
        draft.chmod(0o700)
        draft.replace(target)
    return target


@functools.lru_cache(maxsize=16)
def _problem_with(path: Path) -> str | None:
    """Why `path` cannot be preloaded; `None` where a process started with it ran, and said nothing of it."""
    if any(separator in str(path) for separator in _SEPARATORS):
        return f"{path} cannot be preloaded, because LD_PRELOAD takes no path with a space, a colon or a dollar sign"
    environment = {**os.environ, "LD_PRELOAD": str(path)}
    environment.pop("JUPYTER_GPU_ACCOUNT", None)
    command = [sys.executable, "-I", "-S", "-c", _PROBE, str(path)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} could not be tried: {error}"
    if done.returncode == 0 and not done.stderr:
        return None
    said = done.stderr.strip().splitlines()
    return f"{path} cannot be preloaded here: {said[0] if said else f'exit status {done.returncode}'}"
