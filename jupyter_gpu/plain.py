"""Text that others chose, such as a notebook's name, made safe to print.

Standard library only: it also runs inside kernels, on every Python from 3.7.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, with which terminals begin their commands; what changes the direction of writing; other ends of
lines; and halves of characters, which cannot be written as UTF-8. Joiners stay: whole scripts need them."""
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def plain(text: object, longest: int | None = None) -> str:
    """The text as one line that moves no cursor and reads in the order in which it is written.

    Args:
        text: what is to be printed.
        longest: of a text with more characters than this, what is beyond is left out, and an ellipsis says so.
    """
    safe = _UNSAFE.sub(_REPLACEMENT, str(text))
    return safe if longest is None or len(safe) <= longest else safe[: longest - 1] + "…"
