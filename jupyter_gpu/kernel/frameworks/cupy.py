"""CuPy: a limit in bytes on the default memory pool of each device, live once CUDA is up and by variable before."""

from __future__ import annotations

import gc

from ...devices.amount import readable_amount
from .framework import BY_US, BY_YOU, Framework, Holding, Outcome, Setting, sentence_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .framework import Limit

_LIMIT = "CUPY_GPU_MEMORY_LIMIT"


class CuPy(Framework):
    """CuPy."""

    name = "cupy"
    title = "CuPy"
    oldest = "8.0"

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self._ours: dict[int, int] = {}

    def cuda_up(self) -> bool | None:
        """Whether this process has a CUDA context. CuPy does not tell of its own, so the driver is asked."""
        from .. import cuda  # noqa: PLC0415

        return self.imported and cuda.driver_state() == cuda.ACTIVE

    def before_import(self, limit: Limit) -> None:
        """Set the limit that each device's pool begins with."""
        if limit.fraction is not None:
            self.session.environment.put_default(_LIMIT, f"{limit.fraction:.0%}")
        elif limit.amounts:
            self.session.environment.put_default(_LIMIT, str(min(limit.amounts.values())))

    def after_import(self, limit: Limit) -> None:
        """Set the pools' limits where CUDA is already up."""
        if self.cuda_up() and self.session.environment.of_user(_LIMIT) is None:
            self._set(limit)

    def limit(self, limit: Limit) -> Outcome:
        """Set the pools' limits now where CUDA is up, else by the variable."""
        if not limit.amounts and limit.fraction is None:
            return Outcome((), ("There is no cap here to keep CuPy to; say how much, with --memory or --fraction.",))
        what = f"CuPy keeps to {self._said(limit)}"
        if not self.imported:
            value = f"{limit.fraction:.0%}" if limit.fraction is not None else str(min(limit.amounts.values()))
            self.session.environment.put(_LIMIT, value)
            return Outcome((self.not_imported(what),))
        self._set(limit)
        return Outcome((f"{what}, from now on.",))

    def _set(self, limit: Limit) -> None:
        runtime, pool = self.module.cuda.runtime, self.module.get_default_memory_pool()
        for ordinal in range(runtime.getDeviceCount()):
            with self.module.cuda.Device(ordinal):
                if limit.fraction is not None:
                    pool.set_limit(fraction=limit.fraction)
                elif ordinal in limit.amounts:
                    pool.set_limit(size=limit.amounts[ordinal])
                else:
                    continue
                self._ours[ordinal] = int(pool.get_limit())

    def _said(self, limit: Limit) -> str:
        if limit.fraction is not None:
            return f"{limit.fraction:.0%} of each GPU"
        count = max(1, len(self.session.lease.devices()))
        return sentence_list(
            f"{readable_amount(amount)} on {self.session.label(ordinal)}"
            for ordinal, amount in sorted(limit.amounts.items())
            if ordinal < count
        )

    def _pools(self) -> list[tuple[int, int, int, int]]:
        """Per device: ordinal, bytes in use, bytes taken from the driver, the pool's limit (0 is none)."""
        found = []
        for ordinal in range(self.module.cuda.runtime.getDeviceCount()):
            with self.module.cuda.Device(ordinal):
                pool = self.module.get_default_memory_pool()
                found.append((ordinal, int(pool.used_bytes()), int(pool.total_bytes()), int(pool.get_limit())))
        return found

    def holds(self) -> list[Holding]:
        """What each device's pool has in use and keeps for later. CuPy does not keep a peak."""
        if not self.cuda_up():
            return []
        return [Holding(ordinal, used, total - used, None) for ordinal, used, total, _ in self._pools() if total]

    def settings(self) -> list[Setting]:
        """The variable, and the pools' limits as they stand."""
        found = self.setting_from_environment(_LIMIT)
        if self.cuda_up():
            for ordinal, _, _, limit in self._pools():
                if limit:
                    origin = BY_US if self._ours.get(ordinal) == limit else BY_YOU
                    if ordinal not in self._ours and self.session.environment.is_ours(_LIMIT):
                        origin = BY_US
                    found.append(Setting(f"pool limit cuda:{ordinal}", readable_amount(limit), origin))
        return found

    def free(self) -> Outcome:
        """Free all unused blocks of the pools, those of pinned host memory too."""
        gc.collect()
        if not self.cuda_up():
            return Outcome()
        before = {ordinal: total for ordinal, _, total, _ in self._pools()}
        for ordinal in before:
            with self.module.cuda.Device(ordinal):
                self.module.get_default_memory_pool().free_all_blocks()
        self.module.get_default_pinned_memory_pool().free_all_blocks()
        done, remaining = [], []
        for ordinal, used, total, _ in self._pools():
            where = self.session.label(ordinal)
            if before.get(ordinal):
                done.append(f"CuPy gave back {readable_amount(before[ordinal] - total)} on {where}.")
            if used:
                remaining.append(f"CuPy holds {readable_amount(used)} on {where} in arrays that the program names.")
        return Outcome(tuple(done), tuple(remaining))

    def devices_changed(self) -> Outcome:
        """It counts its devices anew each time."""
        return Outcome(("CuPy will see the new devices.",))


FRAMEWORK = CuPy
