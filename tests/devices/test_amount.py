"""Amounts of memory: what people write is read exactly, and what people read is short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_gpu.devices.amount import UNITS, exact_amount, parse_amount, readable_amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("8GiB", 8 << 30),
        ("8GB", 8 * 10**9),
        (" 1.5 GB ", 1_500_000_000),
        ("512mib", 512 << 20),
        ("0.5KiB", 512),
        ("1TiB", 1 << 40),
        ("7B", 7),
        ("1.9B", 1),
    ],
)
def test_binary_and_decimal_units_are_told_apart(text: str, amount: int) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("8", "write 8GiB or 8MiB"),
        ("8G", "did you mean 8GiB"),
        ("8gigs", "unknown unit 'gigs'"),
        ("", "is not an amount"),
        ("GiB", "is not an amount"),
        ("-8GiB", "is not an amount"),
        ("1e3MiB", "unknown unit|is not an amount"),
        ("8 GiB more", "is not an amount"),
        ("٨GiB", "is not an amount"),
        ("0GiB", "less than one byte"),
        ("0.0001B", "less than one byte"),
        ("1" * 31 + "B", "is not an amount"),
        ("8GiB\n8GiB", "is not an amount"),
    ],
)
def test_what_is_no_amount_is_refused_with_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse_amount(text)
    assert "\n" not in str(caught.value)


@given(st.integers(min_value=1, max_value=1 << 70))
def test_an_exact_amount_is_read_back_to_the_byte(amount: int) -> None:
    assert parse_amount(exact_amount(amount)) == amount


@given(st.integers(min_value=1, max_value=4096), st.sampled_from(sorted(UNITS)))
def test_an_exact_amount_is_no_longer_than_what_was_written(number: int, unit: str) -> None:
    assert len(exact_amount(number * UNITS[unit])) <= len(f"{number}{unit}")


@given(st.text())
def test_any_text_is_an_amount_or_refused(text: str) -> None:
    try:
        amount = parse_amount(text)
    except ValueError:
        return
    assert amount >= 1


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "?"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (3_435_973_836, "3.2 GiB"),
        (40 << 30, "40 GiB"),
        (150 << 30, "150 GiB"),
        ((1 << 40) + (1 << 39), "1.5 TiB"),
        (-(2 << 30), "-2 GiB"),
    ],
)
def test_a_readable_amount_is_short_and_binary(amount: int | None, text: str) -> None:
    assert readable_amount(amount) == text
