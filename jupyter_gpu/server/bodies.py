"""Answers that many clients ask for again and again: made once for each state of things, sent as often as asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Body(NamedTuple):
    """An answer, ready to be sent."""

    content: bytes
    """JSON."""
    tag: str
    """Tells it from every other answer to the same question, for clients that have it already."""


class Bodies:
    """The last answer to each question."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[object, Body]] = {}
        self._count = 0

    def get(self, name: str, state: object, make: Callable[[], Any]) -> Body:
        """The answer to `name`, made anew if the state that it follows from does not equal that of the last time."""
        known = self._made.get(name)
        if known is not None and known[0] == state:
            return known[1]
        content = json.dumps(make(), separators=(",", ":")).encode()
        return self._keep(name, state, content)

    def join(self, name: str, **parts: Body) -> Body:
        """The answer to `name` that has each of the parts under its name."""
        state = tuple(part.tag for part in parts.values())
        known = self._made.get(name)
        if known is not None and known[0] == state:
            return known[1]
        members = (b'"%b":%b' % (each.encode(), part.content) for each, part in parts.items())
        return self._keep(name, state, b"{%b}" % b",".join(members))

    def _keep(self, name: str, state: object, content: bytes) -> Body:
        self._count += 1
        body = Body(content, f"{name}-{self._count}-{id(self):x}")
        self._made[name] = (state, body)
        return body
