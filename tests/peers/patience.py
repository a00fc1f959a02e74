"""A pytest plugin for other projects' tests: a busy machine is given time, stock and with us alike."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the command line's time limit hold for all tests, in the place of their own of a few seconds."""
    for item in items:
        for node in item.listchain():
            node.own_markers[:] = [mark for mark in node.own_markers if mark.name != "timeout"]
