"""What happens in a kernel when it starts: as little as possible, and the rest when it is asked for.

A start costs a few milliseconds: the `%gpu` and `%%gpu` magics are registered as thin functions, the import watch is
put in place, and no framework and none of the modules behind the magics is imported.
"""

from __future__ import annotations

import os
import re
import sys

from .imports import ImportWatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FRAMEWORK_FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "frameworks")  # noqa: PTH100, PTH118, PTH120
_NOT_FRAMEWORKS = ("__init__", "framework")
_MARK = "_jupyter_gpu_entrance"
_AFTER_GPU = re.compile(r"(?:^|=)\s*(%{1,2}gpu\s.*)\Z")
"""A line up to the cursor that is about `%gpu`, with or without an assignment before it."""


def framework_names() -> list[str]:
    """The frameworks that there is a file for. A file is named like the module that it watches."""
    stems = (name[:-3] for name in os.listdir(_FRAMEWORK_FILES) if name.endswith(".py"))
    return sorted(stem for stem in stems if stem not in _NOT_FRAMEWORKS)


class Entrance:
    """The parts of `%gpu` that are there from the start, and the way to the others."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.unsettled = set(framework_names())
        self._session: Any = None
        self._magic: Any = None
        self._refusals: Any = None

    @property
    def session(self) -> Any:
        """The `Session` of this kernel, made on first use."""
        if self._session is None:
            from .session import Session  # noqa: PLC0415 - not at a kernel's start

            self._session = Session(shell=self.shell, names=framework_names())
        return self._session

    @property
    def magic(self) -> Any:
        """The `GPUMagic` of this kernel, made on first use."""
        if self._magic is None:
            from .magics import GPUMagic  # noqa: PLC0415

            self._magic = GPUMagic(self.session)
        return self._magic

    def before_import(self, name: str) -> None:
        """Called right before the user's import of a framework runs its code."""
        self.session.before_import(name)

    def after_import(self, name: str) -> None:
        """Called right after it."""
        self.unsettled.discard(name)
        self.session.after_import(name)

    def settle(self, *_: Any) -> None:
        """Take up the frameworks that were imported where the watch could not see it."""
        for name in [name for name in self.unsettled if name in sys.modules]:
            self.unsettled.discard(name)
            try:
                self.session.after_import(name)
            except Exception:  # noqa: BLE001, S110 - a cell's end is no place to fail
                pass

    def tell_refusals(self, result: Any = None) -> None:
        """Explain a cell that failed at the cap."""
        if self._refusals is None:
            from .refusals import RefusalNotice  # noqa: PLC0415 - not at a kernel's start

            self._refusals = RefusalNotice(lambda uuid: self.session.lease.named(uuid).label(uuid))
        self._refusals.after_cell(result)

    def register(self) -> None:
        """Put the magics, their completion and the watches in place."""
        shell = self.shell

        def gpu(line: str, cell: str | None = None) -> Any:
            return self.magic.run(line, cell)

        # IPython shows this for `%gpu?` and asks for it only then.
        gpu.getdoc = lambda: self.magic.help_text()  # type: ignore[attr-defined]  # noqa: PLW0108 - not made before it is asked
        shell.register_magic_function(gpu, magic_kind="line_cell", magic_name="gpu")
        self._offer_completions()
        transforms = getattr(getattr(shell, "input_transformer_manager", None), "line_transforms", None)
        if transforms is not None:
            transforms[:] = [each for each in transforms if getattr(each, "__name__", "") != _measured_cell.__name__]
            transforms.insert(0, _measured_cell)
        ImportWatch(self.unsettled, self.before_import, self.after_import).install()
        shell.events.register("post_run_cell", self.settle)
        if os.environ.get("JUPYTER_GPU_ACCOUNT"):
            shell.events.register("post_run_cell", self.tell_refusals)
        self.settle()

    def _offer_completions(self) -> None:
        matchers = getattr(getattr(self.shell, "Completer", None), "custom_matchers", None)
        if matchers is None:
            # Before IPython 8.6 ours stand among its own.
            for key in ("%gpu", "%%gpu"):
                self.shell.set_hook("complete_command", lambda _, e: self._choices(e.line, e.symbol), str_key=key)
            return

        def match(context: Any) -> dict[str, Any]:
            found = _AFTER_GPU.search(context.text_until_cursor)
            if found is None:
                return {"completions": [], "suppress": False}
            from IPython.core.completer import SimpleCompletion  # noqa: PLC0415 - at the Tab key, not at the start

            choices = self._choices(found.group(1), context.token)
            return {"completions": [SimpleCompletion(each, type="param") for each in choices], "suppress": True}

        vars(match).update(matcher_api_version=2, matcher_identifier="jupyter_gpu", matcher_priority=100)
        matchers.append(match)

    def _choices(self, line: str, symbol: str) -> list[str]:
        try:
            choices: list[str] = self.magic.complete(line, symbol)
        except Exception:  # noqa: BLE001 - no completion is better than a traceback at the Tab key
            return []
        return choices


def _measured_cell(lines: list[str]) -> list[str]:
    """Turn `%%gpu` over a cell into a first statement that begins the measurement, so that the cell runs as itself.

    Top-level `await`, line numbers and the last expression's value stay what they are. Over another cell magic, or
    with anything that a plain cell cannot have, `%%gpu` is left to run as a cell magic.
    """
    if not lines or not lines[0].startswith("%%gpu") or not lines[0][5:6].isspace():
        return lines
    following = next((line for line in lines[1:] if line.strip()), "")
    if not following or following.startswith("%%") or lines[0].rstrip().endswith("?"):
        return lines
    arguments = lines[0][5:].strip()
    return [f"get_ipython().run_line_magic('gpu', {('--measure-cell ' + arguments).strip()!r})\n", *lines[1:]]


def enter(shell: Any) -> Entrance:
    """Set `%gpu` up in this IPython shell, once."""
    entrance: Entrance | None = getattr(shell, _MARK, None)
    if entrance is None:
        entrance = Entrance(shell)
        entrance.register()
        setattr(shell, _MARK, entrance)
    return entrance
