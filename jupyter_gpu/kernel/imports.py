"""Noticing that the user imports a framework, without importing anything.

A finder at the head of `sys.meta_path` answers for the watched names only: it asks the finders behind it, hands their
answer on, and calls back right before and right after the module's own code runs. What a callback raises is swallowed:
an import is the user's.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class ImportWatch:
    """Calls `before(name)` and `after(name)` around the import of each of the top-level modules `names`."""

    def __init__(self, names: Collection[str], before: Callable[[str], None], after: Callable[[str], None]) -> None:
        self.names = frozenset(names)
        self.before = before
        self.after = after

    def install(self) -> None:
        """Begin to watch. A watch that an earlier load of this file left is replaced."""
        sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != type(self).__name__]
        sys.meta_path.insert(0, self)

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec that the other finders have for a watched module; `None` for every other module."""
        if fullname not in self.names:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: ModuleSpec | None = find(fullname, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _WatchedLoader(spec.loader, self)  # type: ignore[assignment]
                return spec
        return None


class _WatchedLoader:
    """A loader that calls back around `exec_module`, and then leaves no trace of itself on the module."""

    def __init__(self, loader: Any, watch: ImportWatch) -> None:
        self._loader = loader
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """What the real loader makes."""
        create = getattr(self._loader, "create_module", None)
        module: ModuleType | None = None if create is None else create(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code as the real loader does."""
        spec = module.__spec__
        assert spec is not None
        spec.loader = self._loader
        module.__loader__ = self._loader
        _quietly(self._watch.before, spec.name)
        self._loader.exec_module(module)
        _quietly(self._watch.after, spec.name)


def _quietly(callback: Callable[[str], None], name: str) -> None:
    try:
        callback(name)
    except Exception:  # noqa: BLE001, S110 - whatever it is, it is not the import's fault
        pass
