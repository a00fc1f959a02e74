"""Waiting for what another process is to do, with a bound that a busy machine keeps too."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 60.0
_STEP_S = 0.05


def until(condition: Callable[[], T]) -> T:
    """What the condition gives, once that is true."""
    end = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(_STEP_S)
    return result
