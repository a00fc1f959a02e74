"""Which layers of limits hold a kernel to its lease, and why the others do not.

There are four, strongest first: the interposer, the framework's own setting, the watchdog, and the hardware itself
where the device is a MIG instance. Simulated devices keep their caps themselves.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import interposer

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from ..devices.device import Device

PRELOAD_VARIABLE = "LD_PRELOAD"
_NO_SERVER = "it is part of a Jupyter server"


@dataclass(frozen=True)
class Layer:
    """One layer of limits."""

    name: str
    """`interposer`, `framework`, `watchdog` or `mig`."""
    active: bool
    reason: str | None = None
    """Why it does not hold, or what is to be known about it."""


class LimitLayers:
    """The layers of one process. The interposer is compiled in the background when it is first needed."""

    def __init__(self, log: logging.Logger, *, simulated: bool, use_interposer: bool) -> None:
        self._log = log
        self._simulated = simulated
        self._use_interposer = use_interposer
        self._lock = threading.Lock()
        self._compiler: threading.Thread | None = None
        self._compiled = threading.Event()
        self._library: Path | None = None
        self._reason: str | None = "it is being compiled; kernels that start meanwhile do without it"

    def prepare(self) -> None:
        """Have the interposer compiled in the background, unless that was begun before or it is not wanted."""
        with self._lock:
            if self._compiler is None and self._wanted() is None:
                self._compiler = threading.Thread(target=self._compile, daemon=True, name="gpu-interposer")
                self._compiler.start()

    def library(self, timeout_s: float) -> Path | None:
        """The interposer's library; `None` where there is none, or none within `timeout_s`. Blocks meanwhile."""
        if self._wanted() is not None:
            return None
        self.prepare()
        self._compiled.wait(timeout_s)
        return self._library

    def preload(self, environment: Mapping[str, str], timeout_s: float) -> dict[str, str]:
        """What to set in an environment so that its process tree is held by the interposer; may be nothing.

        Blocks for `timeout_s` at most, and no longer than compiling takes.
        """
        library = self.library(timeout_s)
        if library is None:
            return {}
        return {PRELOAD_VARIABLE: interposer.preload_value(library, environment.get(PRELOAD_VARIABLE))}

    def layers(self, devices: Iterable[Device], watchdog_reason: str | None = _NO_SERVER) -> list[Layer]:
        """All layers, strongest first, for this host with these devices.

        Args:
            devices: the devices there are.
            watchdog_reason: why no watchdog looks after the caps; `None` if one does.
        """
        unwanted = self._wanted()
        migs = [device for device in devices if device.is_mig]
        return [
            Layer("interposer", unwanted is None and self._library is not None, unwanted or self._reason),
            Layer("framework", active=True, reason="in Python kernels, for the frameworks that jupyter_gpu knows"),
            Layer("watchdog", active=watchdog_reason is None, reason=watchdog_reason),
            Layer("mig", bool(migs), None if migs else "no device here is a MIG instance"),
        ]

    def _wanted(self) -> str | None:
        """Why the interposer is not wanted; `None` if it is."""
        if self._simulated:
            return "simulated devices keep their caps themselves"
        if not self._use_interposer:
            return "GPUHost.interposer is false"
        return None

    def _compile(self) -> None:
        try:
            self._library, self._reason = interposer.library_path()
        except Exception as error:  # noqa: BLE001 - the other layers hold without it
            self._reason = f"it failed to load: {error}"
        if self._library is None:
            self._log.warning("Memory caps are not kept at the driver's level: %s", self._reason)
        self._compiled.set()
