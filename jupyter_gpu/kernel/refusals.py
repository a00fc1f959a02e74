"""One sentence after a cell that failed at the cap: which cap, what was asked for, what is held, how to raise it.

A framework says no more than that it is out of memory, with figures of the whole device at best.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..devices.amount import readable_amount
from ..limits.account import Account, AccountError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ACCOUNT_VARIABLE = "JUPYTER_GPU_ACCOUNT"


class RefusalNotice:
    """Watches the account's count of refused allocations from cell to cell.

    Args:
        label: a device's name for people, by its UUID.
    """

    def __init__(self, label: Any) -> None:
        self._label = label
        self._path = ""
        self._account: Account | None = None
        self._counts: dict[str, int] = {}

    def after_cell(self, result: Any = None) -> None:
        """Say so if an allocation was refused while a cell ran that failed."""
        try:
            refused = self._refused_since()
            failed = result is not None and not getattr(result, "success", True)
            for sentence in [self._sentence(device) for device in refused] if failed else ():
                print(sentence, file=sys.stderr)
        except (AccountError, OSError, ValueError):
            self._account = None  # the file is gone or replaced; the next cell looks again

    def _refused_since(self) -> list[Any]:
        """The devices on which an allocation was refused since the cell before."""
        path = os.environ.get(_ACCOUNT_VARIABLE, "")
        if path != self._path or self._account is None:
            self._path = path
            self._account = Account.open(Path(path)) if path else None
            self._counts = {} if self._account is None else dict(self._account.refusals())
            return []
        counts = self._account.refusals()
        if counts == self._counts:
            return []
        before, self._counts = self._counts, counts
        devices = self._account.read().devices
        return [device for device in devices if counts.get(device.uuid, 0) > before.get(device.uuid, 0)]

    def _sentence(self, device: Any) -> str:
        limits = [each for each in (device.cap, device.total) if each is not None]
        cap = readable_amount(min(limits, default=None))
        asked, held = readable_amount(device.refused_size), readable_amount(device.refused_used)
        # It is off the cap, so without it the figures would not add up.
        own = f" and the driver had {readable_amount(device.overhead)} for itself" if device.overhead else ""
        return (
            f"This kernel's cap on {self._label(device.uuid)} is {cap}: "
            f"{asked} was asked for while {held} was held{own}. "
            "Give memory back with %gpu free, or raise the cap with %gpu memory AMOUNT."
        )
