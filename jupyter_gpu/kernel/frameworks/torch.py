"""PyTorch: a fraction of each device for its caching allocator, at any time, live.

The fraction is of the memory that PyTorch sees, so it is worked out from the device's own figure when CUDA is up:
where the interposer already reports the cap as the total, the fraction becomes 1 rather than capping twice.
"""

from __future__ import annotations

import gc
import sys

from ...devices.amount import readable_amount
from .framework import BY_US, BY_YOU, Framework, Holding, Outcome, Setting, sentence_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .framework import Limit

_ALLOCATOR_OPTIONS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
_FRACTION_OPTION = "per_process_memory_fraction"


class Torch(Framework):
    """PyTorch."""

    name = "torch"
    title = "PyTorch"
    aliases = ("pytorch",)
    oldest = "1.8"

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self._ours: dict[int, float] = {}
        self._waits = False

    @property
    def _cuda(self) -> Any:
        return sys.modules.get("torch.cuda")

    def cuda_up(self) -> bool | None:
        """Whether PyTorch has initialised CUDA."""
        return bool(self._cuda.is_initialized()) if self.imported and self._cuda is not None else False

    def _by_user(self) -> str | None:
        """The variable in which the user has given the allocator a fraction of their own."""
        for name in _ALLOCATOR_OPTIONS:
            if _FRACTION_OPTION in (self.session.environment.of_user(name) or ""):
                return name
        return None

    def after_import(self, limit: Limit) -> None:
        """Set the fractions when CUDA comes up; what the user's program sets after that stands."""
        if limit.limits_something:
            self._when_up()

    def limit(self, limit: Limit) -> Outcome:
        """Set the fractions now where CUDA is up, else when it comes up."""
        if not limit.limits_something:
            return Outcome((), ("There is no cap here to keep PyTorch to; say how much, with --memory or --fraction.",))
        if limit.cpu:
            return Outcome(
                (), ("PyTorch goes where the program sends it; %gpu cpu takes the GPUs away from the kernel.",)
            )
        what = f"PyTorch keeps to {self._said(limit)}"
        if not self.imported:
            return Outcome((self.not_imported(what),))
        if not self.cuda_up():
            self._when_up()
            return Outcome((f"{what} as soon as it starts CUDA.",))
        self._set(force=True)
        over = []
        for ordinal, amount in limit.amounts.items():
            if ordinal < self._cuda.device_count() and self._cuda.memory_reserved(ordinal) > amount:
                reserved = readable_amount(self._cuda.memory_reserved(ordinal))
                over.append(
                    f"It already holds {reserved} on {self.session.label(ordinal)}: it gets no more, and gives back "
                    "what it caches with %gpu free."
                )
        return Outcome((f"{what}, from now on.",), tuple(over))

    def _when_up(self) -> None:
        if self.cuda_up():
            self._set()
        elif not self._waits and hasattr(self._cuda, "_lazy_call"):
            self._waits = True
            self._cuda._lazy_call(self._set_quietly)  # noqa: SLF001 - the only way in that does not start CUDA

    def _set_quietly(self) -> None:
        self._waits = False
        try:
            self._set()
        except Exception as error:  # noqa: BLE001 - PyTorch would refuse to start CUDA at all
            self.session.note(f"PyTorch could not be limited: {type(error).__name__}: {error}.")

    def _set(self, *, force: bool = False) -> None:
        by_user = self._by_user()
        if by_user is not None and not force:
            self.session.note(f"PyTorch keeps the {_FRACTION_OPTION} that you set in {by_user}.")
            return
        limit = self.session.limit_for(self.name)
        for ordinal in range(self._cuda.device_count()):
            fraction = self._fraction(ordinal, limit)
            if fraction is not None:
                self._cuda.set_per_process_memory_fraction(fraction, ordinal)
                self._ours[ordinal] = fraction

    def _fraction(self, ordinal: int, limit: Limit) -> float | None:
        if limit.fraction is not None:
            return limit.fraction
        amount = limit.amounts.get(ordinal)
        if amount is None:
            return None
        total = self._cuda.get_device_properties(ordinal).total_memory
        return min(1.0, amount / total) if total else None

    def _said(self, limit: Limit) -> str:
        if limit.fraction is not None:
            return f"{limit.fraction:.0%} of each GPU"
        count = max(1, len(self.session.lease.devices()))
        return sentence_list(
            f"{readable_amount(amount)} on {self.session.label(ordinal)}"
            for ordinal, amount in sorted(limit.amounts.items())
            if ordinal < count
        )

    def holds(self) -> list[Holding]:
        """What tensors use and what the allocator keeps for later, per device."""
        if not self.cuda_up():
            return []
        found = []
        for ordinal in range(self._cuda.device_count()):
            used, reserved = self._cuda.memory_allocated(ordinal), self._cuda.memory_reserved(ordinal)
            if reserved or used:
                found.append(Holding(ordinal, used, reserved - used, self._cuda.max_memory_allocated(ordinal)))
        return found

    def settings(self) -> list[Setting]:
        """The allocator's options, and the fractions as PyTorch has them where it tells (2.6 on)."""
        found = self.setting_from_environment(*_ALLOCATOR_OPTIONS)
        if not self.cuda_up():
            return found
        read = getattr(self._cuda, "get_per_process_memory_fraction", None)
        for ordinal in range(self._cuda.device_count()):
            ours = self._ours.get(ordinal)
            now = ours if read is None else read(ordinal)
            if now is None or (ours is None and now == 1.0):
                continue
            origin = BY_US if ours is not None and abs(now - ours) < 1e-6 else BY_YOU
            found.append(Setting(f"memory fraction cuda:{ordinal}", f"{now:.4g}", origin))
        return found

    def free(self) -> Outcome:
        """Empty the caching allocator."""
        gc.collect()
        if not self.cuda_up():
            return Outcome()
        before = {each.ordinal: (each.used or 0) + (each.cached or 0) for each in self.holds()}
        self._cuda.empty_cache()
        collect = getattr(self._cuda, "ipc_collect", None)
        if collect is not None:
            collect()
        after = {each.ordinal: (each.used or 0) + (each.cached or 0) for each in self.holds()}
        done, remaining = [], []
        for ordinal, held in before.items():
            left = after.get(ordinal, 0)
            done.append(f"PyTorch gave back {readable_amount(held - left)} on {self.session.label(ordinal)}.")
            if left:
                where = self.session.label(ordinal)
                remaining.append(f"PyTorch holds {readable_amount(left)} on {where} in tensors that the program names.")
        return Outcome(tuple(done), tuple(remaining))

    def devices_changed(self) -> Outcome:
        """Forget the devices that it counted."""
        if hasattr(self._cuda, "_cached_device_count"):
            self._cuda._cached_device_count = None  # noqa: SLF001 - PyTorch offers no other way
        clear = getattr(getattr(self._cuda, "device_count", None), "cache_clear", None)
        if clear is not None:
            clear()
        return Outcome(("PyTorch will see the new devices.",))


FRAMEWORK = Torch
