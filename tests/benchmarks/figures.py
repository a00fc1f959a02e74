"""What every benchmark comes to: figures, each beside its floor or a peer that was measured in the same run.

A script measures, makes a list of `Figure`, and ends with `sys.exit(finish(figures, options))`, which prints them as a
table and, with `--json PATH`, writes them for `run.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One row of the table."""

    name: str
    """What was measured: "kernel start to ready"."""
    measured: str
    """Ours, with its unit; a median unless it says otherwise: "540 ms". Empty where it could not be measured."""
    against: str
    """The floor or peer and its value in the same run: "stock LocalProvisioner 535 ms"."""
    ratio: float | None
    """Ours by the other's, the median of pairs measured in turn where there are pairs; `None` where there is none."""
    spread: str
    """How far the runs differ, and in what: "0.97 to 1.05"."""
    goal: str
    """"at most 1.03 times"; empty for a figure that stands there for comparison."""
    met: bool | None
    """`None` where there is no goal, or nothing was measured."""
    reason: str = ""
    """Why it could not be measured here, in a sentence; empty if it was."""


def unmeasured(name: str, goal: str, reason: str) -> Figure:
    """The row of what cannot be measured on this machine."""
    return Figure(name, "", "", None, "", goal, None, reason)


def quantile(values: Iterable[float], part: float) -> float:
    """The value that `part` of the values (0 to 1) do not pass; one of them, never between two."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def spread(values: Sequence[float], digits: int = 2, unit: str = "") -> str:
    """Where the middle four fifths of the values lie; all of them if there are fewer than ten."""
    low, high = quantile(values, 0.1), quantile(values, 0.9)
    return f"{low:.{digits}f} to {high:.{digits}f}{unit}"


def ratios(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """Ours by theirs, pair by pair, as they were measured in turn."""
    return [a / b for a, b in zip(ours, others, strict=True)]


def median_ratio(ours: Sequence[float], others: Sequence[float]) -> float:
    """The median of the pairs' ratios."""
    return statistics.median(ratios(ours, others))


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that all scripts have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures to this file too")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it runs, not how fast we are")
    return parser


def finish(figures: Sequence[Figure], options: argparse.Namespace) -> int:
    """Print the figures and write them where the options say; the exit status, 1 if a goal was missed."""
    print(f"\n{table(figures)}")
    if options.json is not None:
        write(figures, options.json)
    return 1 if any(figure.met is False for figure in figures) else 0


def write(figures: Sequence[Figure], path: Path) -> None:
    """Write the figures as JSON."""
    path.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))


def read(path: Path) -> list[Figure]:
    """The figures that `write` wrote."""
    return [Figure(**each) for each in json.loads(path.read_text())]


def table(figures: Sequence[Figure]) -> str:
    """The figures as a table in Markdown, which is as easy to read as it is."""
    head = ("figure", "measured", "floor or peer in the same run", "ratio", "spread", "goal", "met")
    rows = [head, *map(_row, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def _row(figure: Figure) -> tuple[str, ...]:
    if figure.reason:
        return figure.name, "not measured", figure.reason, "", "", figure.goal, ""
    ratio = "" if figure.ratio is None else f"{figure.ratio:.{0 if figure.ratio >= 10 else 2}f}"
    met = {None: "", True: "yes", False: "**no**"}[figure.met]
    return figure.name, figure.measured, figure.against, ratio, figure.spread, figure.goal, met
