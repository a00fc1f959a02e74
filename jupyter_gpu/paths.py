"""Where jupyter_gpu keeps what the processes of this host share.

Standard library only: it also runs inside kernels, on every Python from 3.7.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

RUNTIME_DIRECTORY_VARIABLE = "JUPYTER_GPU_RUNTIME_DIR"
_LEDGER = "ledger.sqlite"


class UnsafeDirectory(Exception):  # noqa: N818 - it names what was found
    """The runtime directory cannot be trusted or made. The message says why and what to do."""


def runtime_directory() -> Path:
    """The directory of the ledger and the accounts: local to this host, private to this user, gone after a boot.

    It is `$JUPYTER_GPU_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/jupyter-gpu` where that is this user's (`sudo -E` and `su`
    leave another's in the environment), else `jupyter-gpu-<uid>` in the directory
    for temporary files. A home directory would not do: it may be shared with other hosts, where the ledger's locks do
    not hold. The directory is not made here.
    """
    chosen = os.environ.get(RUNTIME_DIRECTORY_VARIABLE)
    if chosen:
        return Path(chosen)
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and _is_own_directory(session):
        return Path(session) / "jupyter-gpu"
    return Path("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()) / f"jupyter-gpu-{os.getuid()}"  # noqa: PTH112, S108


def private_directory(path: Path) -> Path:
    """`path`, made if need be, once it is known to be a real directory that only this user can enter.

    Raises:
        UnsafeDirectory: it is somebody else's, a link, or cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(str(path))
    except OSError as error:
        raise UnsafeDirectory(
            f"the directory {path} cannot be made ({error.strerror}); set {RUNTIME_DIRECTORY_VARIABLE} to one that can"
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafeDirectory(f"{path} is not a directory; remove it, or set {RUNTIME_DIRECTORY_VARIABLE}")
    if status.st_uid != os.getuid():
        raise UnsafeDirectory(
            f"the directory {path} belongs to the user with uid {status.st_uid}, not to this one; "
            f"set {RUNTIME_DIRECTORY_VARIABLE} to another"
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        _close(path, status.st_mode)
    return path


def _is_own_directory(path: str) -> bool:
    try:
        status = os.stat(path)  # noqa: PTH116 - no path is made for what may not be used
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and os.access(path, os.W_OK)


def _close(path: Path, mode: int) -> None:
    """Shut others out of a directory, if nobody can have meant it for anything but ours or has put anything there."""
    try:
        names = os.listdir(str(path))
        planted = [name for name in names if (path / name).lstat().st_uid != os.getuid()]
        if planted:
            raise UnsafeDirectory(
                f"the directory {path} was open to other users, and {planted[0]!r} in it belongs to one of them; "
                f"remove the directory, or set {RUNTIME_DIRECTORY_VARIABLE} to another"
            )
        if mode & stat.S_ISVTX or (names and _LEDGER not in names):
            raise UnsafeDirectory(
                f"the directory {path} is open to other users and holds other things; "
                f"set {RUNTIME_DIRECTORY_VARIABLE} to one for jupyter_gpu alone"
            )
        path.chmod(0o700)
    except OSError as error:
        raise UnsafeDirectory(f"the directory {path} is open to other users and cannot be closed") from error
