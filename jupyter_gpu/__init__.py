"""GPUs in Jupyter: every kernel with its own device and memory cap, and a live view of who uses what.

Importing this package is cheap and needs the standard library only, since kernels import it too.
"""

from __future__ import annotations

import gc
from typing import Any

__version__ = "0.1.0"


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "jupyter-gpu"}]


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    # Nothing that an import makes is garbage, but so much is made that the collector would go through all that the
    # server has loaded so far, which takes twice as long as the import itself.
    collects = gc.isenabled()
    gc.disable()
    try:
        from .extension import GPUExtension  # noqa: PLC0415 - a kernel that imports this package has no server
    finally:
        if collects:
            gc.enable()

    return [{"module": "jupyter_gpu", "app": GPUExtension}]


def load_ipython_extension(ipython: Any) -> None:
    """Make `%gpu` available: what `%load_ext jupyter_gpu` calls."""
    from .kernel.magics import load_ipython_extension as load  # noqa: PLC0415 - only kernels need it

    load(ipython)
