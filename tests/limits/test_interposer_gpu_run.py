"""The program that shows the interposer on real GPUs works as far as it can where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parents[1] / "gpu" / "run.py"


def test_the_self_check_holds_a_case_on_the_stand_in_driver() -> None:
    done = subprocess.run([sys.executable, str(RUN), "--self-check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| driver API | CUDA 13.0 | 1024 | 1024 | 1024 | - | 1024 | 1152 | held |" in done.stdout
