"""What the subcommands share: the host, JSON output, tables, and errors as one sentence."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from jupyter_core.application import JupyterApp, base_flags
from traitlets import Bool

from .. import __version__
from ..host import GPUHost
from ..leases.ledger import LedgerError
from ..leases.request import RequestError
from ..plain import plain

if TYPE_CHECKING:
    from collections.abc import Sequence


class GPUCommand(JupyterApp):
    """A subcommand that looks at this host."""

    version = __version__
    config_file_name = "jupyter_gpu_config"
    classes = [GPUHost]  # noqa: RUF012 - traitlets' way

    json = Bool(False, help="Print JSON, for programs.").tag(config=True)

    flags = {  # noqa: RUF012 - traitlets' way
        "debug": base_flags["debug"],
        "json": ({"GPUCommand": {"json": True}}, "Print JSON, for programs."),
    }
    aliases = {"config": "JupyterApp.config_file"}  # noqa: RUF012 - traitlets' way

    @property
    def host(self) -> GPUHost:
        """This host's devices and leases."""
        return GPUHost.instance(parent=self)

    def start(self) -> None:
        """Do what the subcommand does; errors that a person can mend are one sentence and status 1."""
        super().start()
        try:
            self.run()
            sys.stdout.flush()
        except (LedgerError, RequestError) as error:
            self.fail(str(error))
        except BrokenPipeError:
            # Whoever read has seen enough, as with `| head`. What is still to be written goes nowhere, without a word.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None

    def run(self) -> None:
        """What the subcommand does."""
        raise NotImplementedError

    def print_json(self, content: Any) -> None:
        """Print JSON to standard output."""
        print(json.dumps(content, indent=2))

    def fail(self, sentence: str, status: int = 1, *, as_it_is: bool = False) -> NoReturn:
        """End with a status and one sentence on standard error, with a capital and a full stop unless `as_it_is`."""
        if not as_it_is:
            end = "" if sentence.endswith((".", "?")) else "."
            sentence = f"{sentence[:1].upper()}{sentence[1:]}{end}"
        print(f"{self.name}: {plain(sentence)}", file=sys.stderr)
        raise SystemExit(status)


def refuse_subcommand(app: JupyterApp) -> NoReturn:
    """End with status 2 and a sentence that says which subcommands there are."""
    print(
        f"{app.name}: There is no subcommand {app.extra_args[0]!r}; there are {', '.join(app.subcommands)}.",
        file=sys.stderr,
    )
    raise SystemExit(2)


def table(header: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[int] = ()) -> str:
    """Rows under a header, in columns; those in `right` are aligned to the right."""
    cells = [list(header), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)
