"""A watched import is the user's import: it is noticed, and nothing else about it changes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyter_gpu.kernel.imports import ImportWatch


class Log:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def before(self, name: str) -> None:
        self.calls.append(f"before {name}")

    def after(self, name: str) -> None:
        self.calls.append(f"after {name} with answer={getattr(sys.modules[name], 'answer', None)}")


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before, finders = set(sys.modules), list(sys.meta_path)
    yield tmp_path
    sys.meta_path[:] = finders
    for name in set(sys.modules) - before:
        del sys.modules[name]


def watch(log: Log, *names: str) -> ImportWatch:
    made = ImportWatch(names, log.before, log.after)
    made.install()
    return made


def test_it_calls_around_the_modules_own_code(modules: Path) -> None:
    log = Log()
    (modules / "fw.py").write_text("answer = 42\n")
    watch(log, "fw")
    importlib.import_module("fw")
    assert log.calls == ["before fw", "after fw with answer=42"]


def test_a_submodule_imports_its_package_once(modules: Path) -> None:
    log = Log()
    (modules / "fw").mkdir()
    (modules / "fw" / "__init__.py").write_text("answer = 1\n")
    (modules / "fw" / "deep.py").write_text("from . import answer\n")
    watch(log, "fw")
    importlib.import_module("fw.deep")
    assert log.calls == ["before fw", "after fw with answer=1"]


def test_the_module_keeps_its_own_loader_and_spec(modules: Path) -> None:
    (modules / "fw.py").write_text("")
    watch(Log(), "fw")
    module = importlib.import_module("fw")
    assert type(module.__loader__).__name__ == "SourceFileLoader"
    assert module.__spec__ is not None
    assert module.__spec__.loader is module.__loader__
    assert module.__file__ == str(modules / "fw.py")


def test_a_module_that_fails_fails_as_it_did_and_is_not_reported(modules: Path) -> None:
    log = Log()
    (modules / "fw.py").write_text("raise RuntimeError('its own')\n")
    watch(log, "fw")
    with pytest.raises(RuntimeError, match="its own"):
        importlib.import_module("fw")
    assert log.calls == ["before fw"]
    assert "fw" not in sys.modules


def test_a_callback_that_fails_harms_no_import(modules: Path) -> None:
    def fail(_: str) -> None:
        raise ValueError("ours")

    (modules / "fw.py").write_text("answer = 3\n")
    ImportWatch(("fw",), fail, fail).install()
    assert importlib.import_module("fw").answer == 3


def test_a_module_that_is_not_there_is_not_there(modules: Path) -> None:
    watch(Log(), "fw_missing")
    with pytest.raises(ModuleNotFoundError, match="No module named 'fw_missing'"):
        importlib.import_module("fw_missing")


def test_it_answers_for_no_other_module(modules: Path) -> None:
    assert watch(Log(), "fw").find_spec("json") is None


def test_a_reload_is_noticed_again(modules: Path) -> None:
    log = Log()
    (modules / "fw.py").write_text("answer = 5\n")
    watch(log, "fw")
    importlib.reload(importlib.import_module("fw"))
    assert log.calls == ["before fw", "after fw with answer=5"] * 2


def test_installing_again_replaces_the_watch_before(modules: Path) -> None:
    first, second = Log(), Log()
    (modules / "fw.py").write_text("")
    watch(first, "fw")
    watch(second, "fw")
    importlib.import_module("fw")
    assert first.calls == []
    assert len(second.calls) == 2


def test_a_namespace_package_of_that_name_imports(modules: Path) -> None:
    (modules / "fw").mkdir()
    (modules / "fw" / "part.py").write_text("answer = 7\n")
    watch(Log(), "fw")
    assert importlib.import_module("fw.part").answer == 7
