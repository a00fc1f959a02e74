"""What `%gpu` answers: data for programs, rich HTML in a notebook, plain text in a console, all of one content.

Everything that comes from outside (names of notebooks, devices, errors) is escaped on its way into HTML.
"""

from __future__ import annotations

import html
import json
from typing import NamedTuple

from ..devices.amount import readable_amount
from ..plain import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

_BAR_CELLS = 20
_WARN_FROM = 0.9
_MUTED = "color:var(--jp-ui-font-color2,#616161)"


class Meter(NamedTuple):
    """Memory in use against what there is, in bytes."""

    title: str
    used: int | None
    limit: int | None
    peak: int | None
    detail: str = ""

    @property
    def caption(self) -> str:
        """`3.2 GiB of 8 GiB, peak 5 GiB`."""
        words = readable_amount(self.used) if self.used is not None else "use unknown"
        if self.limit is not None:
            words += f" of {readable_amount(self.limit)}"
        if self.peak:
            words += f", peak {readable_amount(self.peak)}"
        return words

    @property
    def share(self) -> float | None:
        """How full it is, 0 to 1."""
        return None if self.used is None or not self.limit else max(0.0, min(1.0, self.used / self.limit))


class Table(NamedTuple):
    """Rows of text under headers."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


class Lines(NamedTuple):
    """Sentences. `mark` is `ok`, `note` or empty."""

    sentences: Sequence[str]
    mark: str = ""


class Heading(NamedTuple):
    """A line that stands over what follows."""

    text: str


class Report(dict):  # type: ignore[type-arg]
    """The content as a dictionary that JSON can hold, and how it looks.

    Args:
        content: the data.
        blocks: what people see of it, in order.
        as_json: whether it is to be shown as JSON text rather than for people.
    """

    def __init__(self, content: Mapping[str, Any], blocks: Iterable[Any], *, as_json: bool = False) -> None:
        super().__init__(content)
        self._blocks = tuple(blocks)
        self._as_json = as_json

    def text(self) -> str:
        """Plain text for a console."""
        if self._as_json:
            return json.dumps(self, indent=2)
        return "\n".join(plain(line) for block in self._blocks for line in _text_lines(block))

    def html(self) -> str:
        """A fragment of HTML for a notebook."""
        parts = "".join(_html(block) for block in self._blocks)
        return f'<div class="jupyter-gpu" style="line-height:1.5">{parts}</div>'

    def __repr__(self) -> str:
        return self.text()

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(self.text())

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:  # noqa: ARG002
        if self._as_json:
            return {"text/plain": self.text(), "application/json": dict(self)}
        return {"text/plain": self.text(), "text/html": self.html()}


def _text_lines(block: Any) -> list[str]:
    if isinstance(block, Heading):
        return [block.text]
    if isinstance(block, Meter):
        share = block.share
        bar = ""
        if share is not None:
            full = round(share * _BAR_CELLS)
            bar = "[" + "#" * full + "." * (_BAR_CELLS - full) + "] "
        lines = [f"{block.title}  {bar}{block.caption}"]
        if block.detail:
            lines.append("    " + block.detail)
        return lines
    if isinstance(block, Lines):
        return list(block.sentences)
    return _text_table(block)


def _text_table(table: Table) -> list[str]:
    rows = [tuple(plain(cell) for cell in row) for row in (table.headers, *table.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.headers))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _html(block: Any) -> str:
    if isinstance(block, Heading):
        return f'<div style="font-weight:600;margin-top:4px">{_safe(block.text)}</div>'
    if isinstance(block, Meter):
        return _html_meter(block)
    if isinstance(block, Lines):
        mark = {"ok": "✓ ", "note": "! "}.get(block.mark, "")
        return "".join(f"<div>{mark}{_safe(sentence)}</div>" for sentence in block.sentences)
    head = "".join(f'<th scope="col" style="text-align:left">{_safe(cell)}</th>' for cell in block.headers)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{_safe(str(cell))}</td>' for cell in row) + "</tr>"
        for row in block.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_meter(meter: Meter) -> str:
    bar = " "
    if meter.share is not None:
        percent = f"{meter.share * 100:.1f}"
        colour = "--jp-warn-color1,#f57c00" if meter.share >= _WARN_FROM else "--jp-brand-color1,#2196f3"
        bar = (
            f'<span role="meter" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}" '
            f'aria-label="{_safe(meter.title)}" style="display:inline-block;width:160px;height:0.7em;margin:0 8px;'
            'border:1px solid var(--jp-border-color1,#bdbdbd)"><span style="display:block;height:100%;'
            f'width:{percent}%;background:var({colour})"></span></span>'
        )
    detail = f'<div style="{_MUTED}">{_safe(meter.detail)}</div>' if meter.detail else ""
    return f"<div><b>{_safe(meter.title)}</b>{bar}{_safe(meter.caption)}{detail}</div>"


def _safe(text: str) -> str:
    return html.escape(plain(text), quote=True)
