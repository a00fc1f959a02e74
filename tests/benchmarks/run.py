"""All benchmarks, and one table of what they come to: `python tests/benchmarks/run.py`, or `make bench`.

The table goes to tests/benchmarks/RESULTS.md too. Each script also runs alone, and tells more then. On a machine that
does other things at the same time those that measure time are given real-time priority, where that is allowed.
`--quick` shows that everything runs, not how fast it is; it writes a file only where one is asked for.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "browser"))

from figures import Figure, arguments, read, table, unmeasured, write

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
REAL_TIME = ("chrt", "-r", "5")
LIMIT_S = 1800
READING = """\
A ratio is ours by the floor's or the peer's, both measured in turn in the same run; it and the spread are of those
pairs: the median, and where the middle four fifths lie. Times are medians unless p99 is said. Nothing here needs a GPU:
the driver is a stand-in in C whose every call takes 50 µs, and asking for PCIe throughput 20 ms, as NVML documents.
"""


def no_compiler() -> str | None:
    """Why there is no C compiler; `None` if there is one."""
    name = os.environ.get("CC", "cc").split()[0]
    return None if shutil.which(name) else f"There is no C compiler ({name}), which the stand-in drivers need."


def no_browser() -> str | None:
    """Why no page can be opened; `None` if one can."""
    try:
        from conftest import chromium
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            chromium(playwright.chromium.executable_path)
    except (ImportError, AssertionError) as error:
        return f"There is no browser: {error}."
    return None


@dataclass(frozen=True)
class Script:
    """One of the benchmarks."""

    name: str
    needs: tuple[Callable[[], str | None], ...] = (no_compiler,)
    real_time: bool = True
    """Whether it measures what other work on the machine would make slower."""

    def figures(self, options: Sequence[str], priority: Sequence[str]) -> list[Figure]:
        """What it comes to here: one row that says why, if it cannot be measured."""
        print(f"\n== {self.name}", flush=True)
        for need in self.needs:
            reason = need()
            if reason is not None:
                return [unmeasured(self.name, "", reason)]
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "figures.json"
            command = [*(priority if self.real_time else ()), sys.executable, str(HERE / f"{self.name}.py")]
            failed = self._run([*command, *options, "--json", str(path)])
            if path.exists():
                return read(path)
        return [unmeasured(self.name, "", failed)]

    def _run(self, command: list[str]) -> str:
        """Run it, showing what it prints; what is to be said if it left no figures."""
        try:
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False)
        except subprocess.TimeoutExpired:
            return f"It did not end within {LIMIT_S} s."
        sys.stderr.write(done.stderr)
        lines = done.stderr.strip().splitlines()
        return f"It failed with status {done.returncode}: {lines[-1] if lines else 'it did not say why'}"


SCRIPTS = (
    Script("launch"),
    Script("ledger", needs=()),
    Script("server_start"),
    Script("sampler"),
    Script("event_loop"),
    Script("interposer"),
    # It measures processor time, which other work does not change; and a browser is much to put before all else.
    Script("panel", needs=(no_browser,), real_time=False),
)


def priority() -> tuple[str, ...]:
    """What to put before a command for real-time priority; nothing where that is not allowed."""
    try:
        allowed = subprocess.run([*REAL_TIME, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return ()
    return REAL_TIME if allowed else ()


def document(figures: Sequence[Figure], loads: Sequence[float], first: Sequence[str]) -> str:
    """The results as a page."""
    day = dt.datetime.now(dt.timezone.utc).date().isoformat()
    where = f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    how = f"under real-time priority (`{' '.join(first)}`)" if first else "at ordinary priority"
    missed = sum(figure.met is False for figure in figures)
    met = sum(figure.met is True for figure in figures)
    return (
        f"# Results of the benchmarks\n\n{day}; {where}; timed {how}; load average {min(loads):.0f} to "
        f"{max(loads):.0f}, its own included. `make bench` makes this page anew.\n\n"
        f"Goals met: {met}; missed: {missed}.\n\n"
        f"{table(figures)}\n\n{READING}"
    )


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = arguments(__doc__)
    names = [script.name for script in SCRIPTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--output", type=Path, help="where the page goes, if not to RESULTS.md beside this script")
    return parser.parse_args()


def main() -> int:
    """Run them, and write what they come to; 1 if a goal was missed, except in a quick run."""
    asked = options()
    first = () if asked.quick else priority()
    figures: list[Figure] = []
    loads = [os.getloadavg()[0]]
    for script in SCRIPTS:
        if script.name in asked.only:
            figures += script.figures(["--quick"] if asked.quick else [], first)
            loads.append(os.getloadavg()[0])
    page = document(figures, loads, first)
    print(f"\n{page}")
    whole = not asked.quick and len(asked.only) == len(SCRIPTS)
    path = asked.output or (RESULTS if whole else None)
    if path is not None:
        path.write_text(page)
    if asked.json is not None:
        write(figures, asked.json)
    return 1 if not asked.quick and any(figure.met is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
