"""The program that shows the interposer on real GPUs works as far as it can where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cuda_stand_in as cuda

RUN = Path(__file__).parents[1] / "gpu" / "run.py"


def test_the_self_check_holds_a_case_on_the_stand_in_driver() -> None:
    done = subprocess.run([sys.executable, str(RUN), "--self-check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| driver API | CUDA 13.0 | 1024 | 1024 | 1024 | - | 1024 | 1152 | held |" in done.stdout


def run(tmp_path: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """The whole program, with the stand-in as the driver and as NVML: its exit status, and what it wrote."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(cuda.stand_in()), **variables}
    environment["STANDIN_CUDA_DEVICES"] = str(8 * cuda.GIB)
    output = tmp_path / "results.md"
    command = [sys.executable, str(RUN), "--cap", "1", "--output", str(output), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert output.read_text().strip() == done.stdout.strip(), done.stderr
    return done.returncode, done.stdout


def test_the_report_is_written(tmp_path: Path) -> None:
    status, report = run(tmp_path, "--cases", "driver")
    assert "8.0 GiB, driver" in report
    assert "| driver API | CUDA 13.0 | 1024 | 1024 | 1024 | - | 1024 | 1152 | held |" in report
    assert "| cuMemAlloc+cuMemFree |" in report
    assert status == 0


def test_what_has_no_time_left_is_not_begun(tmp_path: Path) -> None:
    status, report = run(tmp_path, "--cases", "driver", "--no-timings", "--budget", "1")
    assert "| driver API | not run: no time was left |" in report
    assert status == 0


def test_a_case_that_fails_does_not_end_the_others(tmp_path: Path) -> None:
    modules = tmp_path / "modules"
    (modules / "numba").mkdir(parents=True)
    (modules / "numba" / "__init__.py").write_text("raise RuntimeError('no device | no numba')\n")
    status, report = run(tmp_path, "--cases", "^numba|driver", "--no-timings", PYTHONPATH=str(modules))
    assert "| driver API | CUDA 13.0 |" in report
    assert "failed: RuntimeError: no device / no numba |" in report
    assert "no device | no numba" in (tmp_path / "results.log").read_text()
    assert status == 1
