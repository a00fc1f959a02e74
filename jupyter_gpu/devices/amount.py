"""Amounts of memory, as people write them and as people read them.

Standard library only: it also runs inside kernels, on every Python from 3.7.
"""

from __future__ import annotations

import re

UNITS = {
    "TiB": 1 << 40,
    "TB": 10**12,
    "GiB": 1 << 30,
    "GB": 10**9,
    "MiB": 1 << 20,
    "MB": 10**6,
    "KiB": 1 << 10,
    "KB": 10**3,
    "B": 1,
}
"""Bytes in each unit: IEC names are binary, SI names decimal."""

_BY_LOWER_CASE = {unit.lower(): size for unit, size in UNITS.items()}
_AMOUNT = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-z]*)\Z", re.ASCII)
_LONGEST_NUMBER = 30


def parse_amount(text: str) -> int:
    """The bytes that `text` means, such as `8GiB`, `1.5 GB` or `512MiB`. Case does not matter.

    Raises:
        ValueError: it is not a positive number with a unit; the message says what is.
    """
    match = _AMOUNT.match(text.strip())
    if match is None or len(match["number"]) > _LONGEST_NUMBER:
        raise ValueError(f"{text!r} is not an amount of memory; write a number and a unit, such as 8GiB or 500MB")
    number, unit = match["number"], match["unit"]
    if not unit:
        raise ValueError(f"{text!r} has no unit; write {number}GiB or {number}MiB")
    size = _BY_LOWER_CASE.get(unit.lower())
    if size is None:
        hint = ""
        if unit.lower() in ("k", "m", "g", "t"):
            hint = f" (did you mean {number}{unit.upper()}iB?)"
        raise ValueError(f"{text!r} has the unknown unit {unit!r}{hint}; there are {', '.join(UNITS)}")
    whole, _, fraction = number.partition(".")
    amount = int(whole) * size + (int(fraction) * size // 10 ** len(fraction) if fraction else 0)
    if amount < 1:
        raise ValueError(f"{text!r} is less than one byte; write an amount such as 8GiB or 500MB")
    return amount


def exact_amount(amount: int) -> str:
    """The shortest text that `parse_amount` reads back to exactly `amount` bytes, such as `8GiB` or `1536MiB`."""
    texts = (f"{amount // size}{unit}" for unit, size in UNITS.items() if amount % size == 0)
    return min(texts, key=len)


def readable_amount(amount: int | None) -> str:
    """`amount` bytes for people: binary units, rounded to three digits or so, such as `3.2 GiB`; `?` for `None`."""
    if amount is None:
        return "?"
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(amount) >= UNITS[unit]:
            number = amount / UNITS[unit]
            digits = 1 if abs(number) < 100 and not float(number).is_integer() else 0
            text = f"{number:.{digits}f}"
            return f"{text[:-2] if text.endswith('.0') else text} {unit}"  # noqa: FURB188 - Python 3.7 runs this
    return f"{amount} B"
