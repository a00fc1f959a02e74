"""How a case talks to `run.py`: it takes memory in units, says what it got, holds it until told to go, and frees it.

    python case.py UNIT_BYTES MOST_BYTES

It prints one line of JSON when it holds what it could get, and one more when it has freed all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

UNIT = int(sys.argv[1])
MOST = int(sys.argv[2])


def say(**values: object) -> None:
    """Tell `run.py`."""
    print(json.dumps(values), flush=True)


def told_to_go() -> None:
    """Return when `run.py` has looked."""
    sys.stdin.readline()


def run(version: str, allocate: Callable[[], object], free: Callable[[list[object]], None], **more: object) -> None:
    """Take memory until there is no more, or as much as was asked for; report, hold, and free it."""
    held: list[object] = []
    error = ""
    while not error and (len(held) + 1) * UNIT <= MOST:
        try:
            held.append(allocate())
        except Exception as problem:  # noqa: BLE001 - each framework has its own
            error = f"{type(problem).__name__}: {problem}".splitlines()[0][:200]
    say(version=version, got=len(held) * UNIT, error=error, **more)
    told_to_go()
    count = len(held)
    free(held)
    held.clear()
    again = 0
    # What was freed can be had again, so nothing was lost in the books.
    while again < count // 2:
        try:
            held.append(allocate())
        except Exception:  # noqa: BLE001
            break
        again += 1
    say(again=again * UNIT, expected_again=count // 2 * UNIT)
