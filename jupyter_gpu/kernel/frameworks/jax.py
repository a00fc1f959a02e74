"""JAX: environment variables that its back end reads once, when it starts.

`XLA_CLIENT_MEM_FRACTION` holds for every device alike, and is an error together with the older
`XLA_PYTHON_CLIENT_MEM_FRACTION`, which is the only one that an older JAX knows (`jaxlib/xla_client.py`).
"""

from __future__ import annotations

import gc
import sys

from ...devices.amount import readable_amount
from .framework import Framework, Holding, Outcome, Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from .framework import Limit

_FRACTION = "XLA_CLIENT_MEM_FRACTION"
_OLD_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
_ALLOCATOR = "XLA_PYTHON_CLIENT_ALLOCATOR"
_PLATFORMS = "JAX_PLATFORMS"
_STARTED = "JAX's back end has started, and reads its limits only then"


class Jax(Framework):
    """JAX."""

    name = "jax"
    title = "JAX"
    oldest = "0.2"

    @property
    def _backends(self) -> dict[str, Any]:
        """The back ends that run, by platform."""
        bridge = sys.modules.get("jax._src.xla_bridge") or sys.modules.get("jax.lib.xla_bridge")
        return dict(getattr(bridge, "_backends", None) or {})

    def _devices(self) -> list[Any]:
        return [
            device
            for name, backend in self._backends.items()
            if name in ("cuda", "gpu", "rocm")
            for device in backend.local_devices()
        ]

    def cuda_up(self) -> bool | None:
        """Whether a GPU back end runs."""
        return bool(self._devices())

    def before_import(self, limit: Limit) -> None:
        """Set what it reads when its back end starts."""
        environment = self.session.environment
        if limit.growth is not False:
            environment.put_default(_PREALLOCATE, "false")
        if limit.cpu:
            environment.put_default(_PLATFORMS, "cpu")
        if environment.of_user(_FRACTION) is not None or environment.of_user(_OLD_FRACTION) is not None:
            # The user's stands, and one of ours beside it would be an error.
            environment.drop(_FRACTION)
            environment.drop(_OLD_FRACTION)
            return
        fraction = self._fraction(limit)
        if fraction is not None:
            environment.put(self._fraction_variable(), f"{fraction:.4f}")

    def after_import(self, limit: Limit) -> None:
        """Set it again where the import came too early, as long as no back end runs."""
        if not self._backends:
            # Which of the two variables it knows can be told only now.
            right = self._fraction_variable()
            self.session.environment.drop(_OLD_FRACTION if right == _FRACTION else _FRACTION)
            self.before_import(limit)

    def _fraction_variable(self) -> str:
        client = sys.modules.get("jaxlib.xla_client")
        if client is None:
            return _FRACTION
        reads = getattr(client, "generate_pjrt_gpu_plugin_options", None)
        constants = getattr(getattr(reads, "__code__", None), "co_consts", ())
        return _FRACTION if _FRACTION in constants else _OLD_FRACTION

    def _fraction(self, limit: Limit) -> float | None:
        if limit.fraction is not None:
            return limit.fraction
        fractions = []
        for ordinal, amount in limit.amounts.items():
            total = self.session.visible_total(ordinal)
            if total:
                fractions.append(min(1.0, amount / total))
        return min(fractions) if fractions else None

    def limit(self, limit: Limit) -> Outcome:
        """Set the variables, if its back end has not started."""
        environment = self.session.environment
        fraction = self._fraction(limit)
        parts = []
        if fraction is not None:
            parts.append(f"{fraction:.1%} of each GPU")
        if limit.growth is not None:
            parts.append("memory as it needs it" if limit.growth else "all of its memory at once")
        if limit.cpu is not None:
            parts.append("no GPU" if limit.cpu else "the GPU")
        if not parts:
            return Outcome((), ("There is no cap here to keep JAX to; say how much, with --memory or --fraction.",))
        what = f"JAX gets {', '.join(parts)}"
        if self._backends:
            return Outcome((), (f"{_STARTED}: this can hold only after a restart (add --restart).",))
        if fraction is not None:
            environment.variables.pop(_OLD_FRACTION, None)
            environment.put(self._fraction_variable(), f"{fraction:.4f}")
        if limit.growth is not None:
            environment.put(_PREALLOCATE, "false" if limit.growth else "true")
        if limit.cpu is not None:
            environment.put(_PLATFORMS, "cpu" if limit.cpu else "")
        uneven = len(set(limit.amounts.values())) > 1
        remaining = ("JAX has one fraction for all devices, so the smallest holds on each.",) if uneven else ()
        if not self.imported:
            return Outcome((self.not_imported(what),), remaining)
        return Outcome((f"{what} when its back end starts, with the first array.",), remaining)

    def holds(self) -> list[Holding]:
        """What each GPU's client says of its memory."""
        found = []
        for device in self._devices():
            ordinal = int(getattr(device, "local_hardware_id", None) or 0)
            try:
                stats = device.memory_stats() or {}
            except Exception as error:  # noqa: BLE001
                found.append(Holding(ordinal, None, None, None, f"JAX does not tell: {error}"))
                continue
            used, pool = stats.get("bytes_in_use"), stats.get("pool_bytes")
            cached = pool - used if pool is not None and used is not None else None
            reason = "" if used is not None else "JAX does not tell"
            found.append(Holding(ordinal, used, cached, stats.get("peak_bytes_in_use"), reason))
        return found

    def settings(self) -> list[Setting]:
        """The variables that decide."""
        return self.setting_from_environment(_PREALLOCATE, _FRACTION, _OLD_FRACTION, _ALLOCATOR, _PLATFORMS)

    def free(self) -> Outcome:
        """Collect what nothing refers to. What a pool has taken stays with it."""
        gc.collect()
        held = self.holds()
        if not held:
            return Outcome()
        used = sum(each.used or 0 for each in held)
        return Outcome(
            (), (f"JAX holds {readable_amount(used)} in arrays; what its pool took stays until the kernel restarts.",)
        )

    def devices_changed(self) -> Outcome:
        """Its devices are fixed when its back end starts."""
        if self._backends:
            return Outcome((), ("JAX has started on the CPU and stays there until the kernel restarts.",))
        return Outcome(("JAX will see the new devices.",))

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """`--growth on|off`."""
        parser.add_argument(
            "--growth",
            choices=("on", "off"),
            help="take memory as it is needed (on), or all of the limit at once (off)",
        )


FRAMEWORK = Jax
