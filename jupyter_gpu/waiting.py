"""A request on its way to a lease."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .leases.lease import LeaseState, Refusal
from .leases.ledger import LeaseGone

if TYPE_CHECKING:
    from .host import GPUHost
    from .leases.lease import Ask, Lease
    from .leases.survey import Survey

POLL_S = 0.25
"""How often a waiting request looks whether the ledger has changed."""
_RETRY_S = 2.0
"""How often it asks again all the same, since foreign processes come and go without a word."""


class NotGranted(Exception):  # noqa: N818 - it names what happened
    """A request that was not granted: refused, cancelled, or waited for too long. The message is for people."""


class Waiting:
    """A request, asked when something may have changed, and now and then in any case."""

    def __init__(self, host: GPUHost, ask: Ask) -> None:
        self._host = host
        self._ask = ask
        self._seen: tuple[int, int] | None = None
        self._asked = 0.0
        self._began = time.monotonic()
        self.lease: Lease | None = None
        """The request's entry in the ledger, once it has one."""

    def step(self, survey: Survey | None = None) -> Lease | None:
        """The lease if it is granted, `None` while it waits. It blocks.

        Raises:
            NotGranted: it was refused, cancelled or waited for too long.
            RequestError: it can never be granted.
            LedgerError: the ledger cannot be used.
        """
        host, ask = self._host, self._ask
        now = time.monotonic()
        if self.lease is not None:
            seen = (host.ledger.store.revision(), host.changes)
            if seen == self._seen and now - self._asked < _RETRY_S:
                return None
        try:
            if self.lease is not None:
                # Before the devices are looked at, which may take as long as the driver likes.
                host.ledger.confirm_waiting(ask.id)
            answer = host.ask_now(ask, survey, again=self.lease is not None)
        except LeaseGone:
            raise NotGranted(f"The request {ask.request} for {ask.owner.label} was cancelled.") from None
        self._asked = now
        self._seen = (host.ledger.store.revision(), host.changes)
        if isinstance(answer, Refusal):
            raise NotGranted(f"{ask.owner.label} {answer.message}.")
        self.lease = answer
        if answer.state is LeaseState.HELD:
            return answer
        limit = host.wait_limit_s
        if limit and now - self._began > limit:
            host.ledger.cancel(ask.id)
            raise NotGranted(f"{ask.owner.label} {answer.message}; it has waited for {limit:g} s, which is the limit.")
        return None
