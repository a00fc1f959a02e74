"""What `%gpu` shows is the same everywhere, and what comes from outside cannot act in the page or the console."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from jupyter_gpu.kernel.report import Heading, Lines, Meter, Report, Table

HOSTILE = "<img src=x onerror=alert(1)>\"'&</td><script>alert(2)</script>\x1b[2J.ipynb"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += attrs


@pytest.mark.parametrize(
    "block",
    [
        Heading(HOSTILE),
        Lines((HOSTILE,), "note"),
        Table((HOSTILE, "name"), [[HOSTILE, HOSTILE]]),
        Meter(HOSTILE, 1, 2, 1, HOSTILE),
    ],
)
def test_a_hostile_name_is_text_in_html_and_moves_no_cursor_in_a_console(block: object) -> None:
    report = Report({}, [block])
    tags = Tags()
    tags.feed(report.html())
    assert not {"img", "script"} & set(tags.seen)
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert "\x1b" not in report.text()
    assert "\x1b" not in report.html()


def test_a_meter_says_what_it_shows() -> None:
    report = Report({}, [Meter("GPU 1", 3 << 30, 8 << 30, 5 << 30)])
    assert "3 GiB of 8 GiB, peak 5 GiB" in report.text()
    assert 'role="meter"' in report.html()
    assert 'aria-valuenow="37.5"' in report.html()


def test_what_is_unknown_is_no_zero() -> None:
    assert "use unknown" in Report({}, [Meter("GPU 1", None, 8 << 30, None)]).text()


def test_it_is_data() -> None:
    report = Report({"a": [1, None]}, [Lines(("x",))], as_json=True)
    assert json.loads(report.text()) == {"a": [1, None]} == report
    assert report._repr_mimebundle_()["application/json"] == {"a": [1, None]}
