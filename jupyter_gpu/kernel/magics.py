"""`%gpu` and `%%gpu` as IPython sees them: reads the line, does it, shows it, returns it."""

from __future__ import annotations

import dis
import sys

from .arguments import CommandError, HelpAsked, Language
from .commands import Commands
from .completion import completions
from .measurement import Measurement
from .report import Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

    from .session import Session


class GPUMagic:
    """What `%gpu` runs.

    Args:
        session: this kernel.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.language = Language(session.frameworks())
        self.commands = Commands(session, self.language)
        self.watching = False
        self._measurement: Measurement | None = None
        self._as_json = False
        self._hooked = False

    def run(self, line: str, cell: str | None = None) -> Any:
        """Do what the line says.

        Returns:
            The `Report`, unless nobody takes it: then it is shown here, and `None` is returned.

        Raises:
            UsageError: the line cannot be done; the message is one sentence.
        """
        shell = self.session.shell
        try:
            arguments = self.language.parse(line)
            if cell is not None:
                return self._run_cell(arguments, cell)
            if arguments.measure_cell:
                self._begin(as_json=arguments.json)
                return None
            report = self._done(arguments)
        except HelpAsked as text:
            print(text)
            return None
        except CommandError as error:
            raise _usage_error(str(error)) from None
        if _is_taken(sys._getframe(), shell):  # noqa: SLF001 - the way to ask who calls
            return report
        _display(report)
        return None

    def help_text(self) -> str:
        """What `%gpu?` shows."""
        return self.language.parser.format_help()

    def complete(self, line: str, symbol: str) -> list[str]:
        """The words that the Tab key offers."""
        lease = self.session.lease
        indices = [name.index for _, name in lease.all_devices() if name.index]
        return completions(self.language, line, symbol, lease.devices(), indices)

    def _done(self, arguments: Any) -> Report:
        command, as_json = arguments.command, arguments.json
        if command is None:
            return self.commands.show(as_json=as_json)
        if command == "list":
            return self.commands.list_devices(as_json=as_json)
        if command in ("use", "cpu"):
            request = "cpu" if command == "cpu" else "".join(arguments.request)
            return self.commands.use(request, restart=arguments.restart, as_json=as_json)
        if command == "memory":
            return self.commands.memory("".join(arguments.amount), restart=arguments.restart, as_json=as_json)
        if command == "free":
            return self.commands.free(arguments.frameworks, as_json=as_json)
        if command == "watch":
            return self._watch(on=arguments.state == "on", as_json=as_json)
        framework = self.session.known_as(command)
        assert framework is not None
        return self.commands.framework(framework, arguments, as_json=as_json)

    # Measuring.

    def _watch(self, *, on: bool, as_json: bool) -> Report:
        from .report import Lines  # noqa: PLC0415

        self.watching = on
        self._hook()
        said = "Every cell from the next one on is measured." if on else "Cells are measured only with %%gpu."
        if not on:
            self._measurement = None
        return Report({"watching": on}, [Lines((said,), "ok")], as_json=as_json)

    def _hook(self) -> None:
        if not self._hooked:
            self._hooked = True
            self.session.shell.events.register("pre_run_cell", self._before_cell)
            self.session.shell.events.register("post_run_cell", self._after_cell)

    def _before_cell(self, *_: Any) -> None:
        if self.watching:
            self._begin(as_json=False)

    def _begin(self, *, as_json: bool) -> None:
        self._hook()
        self._as_json = as_json
        self._measurement = Measurement(self.session.lease)
        self._measurement.begin()

    def _after_cell(self, *_: Any) -> None:
        measurement, self._measurement = self._measurement, None
        if measurement is not None:
            _display(measurement.end().report(as_json=self._as_json))

    def _run_cell(self, arguments: Any, cell: str) -> None:
        """`%%gpu` where it could not become a part of the cell: over another cell magic, or in an old IPython."""
        if arguments.command is not None:
            raise CommandError(
                f"%%gpu measures the cell below it; write %gpu {arguments.command} on a line of its own."
            )
        if not cell.strip():
            raise CommandError("%%gpu has no cell below it to measure.")
        measurement = Measurement(self.session.lease)
        measurement.begin()
        try:
            self.session.shell.run_cell(cell, store_history=False)
        finally:
            _display(measurement.end().report(as_json=arguments.json))


def load_ipython_extension(ipython: Any) -> None:
    """Make `%gpu` available in this shell, if it is not: what `%load_ext jupyter_gpu` calls."""
    from .entrance import enter  # noqa: PLC0415 - the entrance imports this module, when it is needed

    enter(ipython)


def _is_taken(frame: FrameType | None, shell: Any) -> bool:
    """Whether the value of the running `%gpu` goes anywhere: into a name, an expression, or out as the cell's result.

    In the middle of a cell the line is a statement whose value Python drops, which shows in the instruction after the
    call. Only there is it up to us to show it.
    """
    names = getattr(shell, "user_global_ns", None)
    while frame is not None and frame.f_globals is not names:
        frame = frame.f_back
    if frame is None:
        return True
    following = (each for each in dis.get_instructions(frame.f_code) if each.offset > frame.f_lasti)
    for instruction in following:
        if instruction.opname not in ("CACHE", "EXTENDED_ARG", "NOP", "RESUME", "PRECALL", "CALL_FUNCTION"):
            return instruction.opname != "POP_TOP"
    return True


def _display(report: Report) -> None:
    display = getattr(sys.modules.get("IPython.display"), "display", None)
    if display is None:
        print(report.text())
    else:
        display(report)


def _usage_error(message: str) -> Exception:
    from IPython.core.error import UsageError  # noqa: PLC0415 - there is an IPython where this runs, not where it is read

    error: Exception = UsageError(message)
    return error
