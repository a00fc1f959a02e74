"""What every test of faults asks of a host that several of them share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

import pytest


class Host(Protocol):
    """One server, which a module of tests shares as `shared_host`."""

    def expect_well(self) -> None:
        """Fail unless all is as it was in the beginning."""


H = TypeVar("H", bound=Host)


@pytest.fixture
def host(shared_host: H) -> Iterator[H]:
    """It is well before, and has to be after."""
    shared_host.expect_well()
    yield shared_host
    shared_host.expect_well()
