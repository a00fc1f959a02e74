"""Builds the interposer into the wheel, when asked to.

By default the wheel is pure: it carries the library's source, which is compiled on first use. With
`JUPYTER_GPU_PREBUILT_INTERPOSER=1` it also carries the library for the machine that builds it, and says so in its tag;
`JUPYTER_GPU_WHEEL_PLATFORM` (such as `manylinux_2_34_x86_64`) says it otherwise.
"""

from __future__ import annotations

import importlib.util
import os
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from types import ModuleType


class InterposerBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles `jupyter_gpu/limits/interposer` where the environment asks for it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the library to the wheel, and make its tag that of one platform.

        Raises:
            RuntimeError: it was asked for and cannot be built.
        """
        if version == "editable" or os.environ.get("JUPYTER_GPU_PREBUILT_INTERPOSER", "") not in ("1", "true"):
            return
        interposer = _interposer(Path(self.root))
        library = interposer.build(interposer.SOURCES)
        relative = library.relative_to(self.root).as_posix()
        build_data["artifacts"].append(relative)
        build_data["pure_python"] = False
        platform = os.environ.get("JUPYTER_GPU_WHEEL_PLATFORM") or sysconfig.get_platform()
        build_data["tag"] = f"py3-none-{platform.replace('-', '_').replace('.', '_')}"


def _interposer(root: Path) -> ModuleType:
    """The module by its path: the package cannot be imported, because what it depends on is not there at build time."""
    path = root / "jupyter_gpu" / "limits" / "interposer" / "__init__.py"
    spec = importlib.util.spec_from_file_location("interposer", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} cannot be loaded, so the interposer cannot be built into the wheel")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
