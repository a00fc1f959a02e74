"""The programs that `run.py` starts: their environment, what they say, how long they may take, and their end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from jupyter_gpu.limits import interposer

TIMEOUT_S = 120
"""For one program."""
LEAST_S = 20.0
"""With less time left, nothing is begun."""


class Clock:
    """How much time there is left for everything."""

    def __init__(self, budget_s: float) -> None:
        self._end = time.monotonic() + budget_s

    def left_s(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def timeout_s(self) -> float:
        """For one program."""
        return max(1.0, min(TIMEOUT_S, self.left_s()))


def base_environment(account: Path | None, library: Path | None, **more: str) -> dict[str, str]:
    """The environment of a case; `library` is preloaded."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER_GPU")}
    environment.update(more)
    if account is not None:
        environment["JUPYTER_GPU_ACCOUNT"] = str(account)
    if library is not None:
        environment["LD_PRELOAD"] = interposer.preload_value(library, environment.get("LD_PRELOAD"))
    return environment


def kill(process: subprocess.Popen[str]) -> None:
    """End a program and its workers."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def next_json(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line that a case says to us; frameworks print other things as well."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise ValueError("it ended without a word")
