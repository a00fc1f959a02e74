"""The benchmarks run and make their table; how fast anything is is not looked at here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

from figures import Figure, arguments, finish, read, table, unmeasured, write  # noqa: E402
from run import Script, document  # noqa: E402

MET = Figure("launch", "540 ms", "stock 535 ms", 1.01, "0.98 to 1.04", "at most 1.03 times", met=True)
MISSED = Figure("ledger", "31 ms", "empty 20 ms", 1.55, "", "at most 5 ms more", met=False)
WITHOUT_GOAL = Figure("peer", "332 ms", "with none 6 ms", 55.3, "40.00 to 60.00", "", met=None)


def test_figures_come_back_as_they_were_written(tmp_path: Path) -> None:
    figures = [MET, MISSED, unmeasured("panel", "at most 8 ms", "There is no Chromium.")]
    write(figures, tmp_path / "figures.json")
    assert read(tmp_path / "figures.json") == figures


def test_the_table_says_of_each_figure_whether_its_goal_is_met() -> None:
    lines = table(
        [MET, MISSED, WITHOUT_GOAL, unmeasured("panel", "at most 8 ms", "There is no Chromium.")]
    ).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[-1] for row in cells[2:]] == ["yes", "**no**", "", ""]
    assert cells[2][:4] == ["launch", "540 ms", "stock 535 ms", "1.01"]
    assert cells[5][1:3] == ["not measured", "There is no Chromium."]


def test_only_a_missed_goal_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    options = arguments("").parse_args([])
    assert finish([MET, WITHOUT_GOAL, unmeasured("panel", "", "There is no Chromium.")], options) == 0
    assert finish([MET, MISSED], options) == 1
    assert "31 ms" in capsys.readouterr().out


def test_the_page_names_the_machine_but_no_path_of_it() -> None:
    page = document([MET, MISSED], [1.0, 7.0], ())
    assert "Goals met: 1; missed: 1." in page
    assert "CPUs" in page
    assert str(Path.home()) not in page
    assert str(BENCHMARKS.parent) not in page


def test_a_benchmark_that_cannot_run_here_is_a_row_that_says_why(tmp_path: Path) -> None:
    [row] = Script("launch", needs=(lambda: "There is no C compiler.",)).figures([], ())
    assert (row.met, row.reason) == (None, "There is no C compiler.")
    [row] = Script("no_such_script", needs=()).figures([], ())
    assert row.reason.startswith("It failed with status 2: ")


@pytest.mark.slow
def test_every_benchmark_without_a_browser_still_runs_and_the_page_is_written(tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    names = ["launch", "ledger", "server_start", "sampler", "event_loop", "interposer"]
    command = [sys.executable, BENCHMARKS / "run.py", "--quick", "--only", *names, "--output", page]
    done = subprocess.run(
        [*command, "--json", tmp_path / "figures.json"], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-4000:]
    figures = read(tmp_path / "figures.json")
    assert len(figures) >= 10
    assert [figure for figure in figures if figure.reason and "left out of this run" not in figure.reason] == []
    assert all(figure.measured for figure in figures if not figure.reason)
    text = page.read_text()
    assert all(figure.name in text for figure in figures)
