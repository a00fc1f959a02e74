"""Simulated GPUs as a source of devices. Their memory is what processes noted in their accounts, nothing else."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from traitlets import Unicode, default

from ..limits.account import Account, AccountError
from ..paths import runtime_directory
from .device import Device, DeviceBackend, DeviceProcess, DeviceUsage, Inventory, Problem
from .processes import ProcessKey, is_alive
from .simulation import (
    EXAMPLE,
    SPECIFICATION_VARIABLE,
    account_paths,
    parse_specification,
    unleased_directory,
    unleased_owner,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_IDLE_CELSIUS, _BUSY_CELSIUS = 32.0, 68.0
_IDLE_WATTS, _LIMIT_WATTS = 45.0, 400.0


class SimulatedBackend(DeviceBackend):
    """Devices that exist only in memory accounts. Temperature and power follow utilisation in a straight line."""

    simulated = True

    specification = Unicode(
        help=f"""The GPUs to simulate, such as `{EXAMPLE}`. The default is the value of {SPECIFICATION_VARIABLE}.""",
    ).tag(config=True)

    @default("specification")
    def _default_specification(self) -> str:
        return os.environ.get(SPECIFICATION_VARIABLE, "")

    runtime_directory = Unicode(help="Where the accounts are. The default is that of the ledger.").tag(config=True)

    @default("runtime_directory")
    def _default_runtime_directory(self) -> str:
        return str(getattr(self.parent, "runtime_directory", "") or runtime_directory())

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self._lock = threading.Lock()
        self._busy: dict[Path, tuple[int, dict[ProcessKey, int]]] = {}

    def inventory(self) -> Inventory:
        """The devices of the specification."""
        try:
            described = parse_specification(self.specification)
        except ValueError as error:
            problem = Problem("simulation-invalid", f"{error}.", f"Correct {SPECIFICATION_VARIABLE}.")
            return Inventory(problems=(problem,))
        return Inventory(
            devices=tuple(
                Device(
                    uuid=device.uuid,
                    index=device.index,
                    name=device.name,
                    memory_bytes=device.memory_bytes,
                    pci_address=f"00000000:{int(device.index.split('.')[0]) + 1:02X}:00.0",
                    parent_uuid=device.parent_uuid,
                    mig_enabled=device.mig_enabled,
                    simulated=True,
                )
                for device in described
            )
        )

    def usage(self, uuids: Sequence[str] | None = None) -> dict[str, DeviceUsage]:
        """Memory and processes from the accounts; utilisation since the call before."""
        held: dict[str, list[DeviceProcess]] = {}
        busy: dict[str, float] = {}
        runtime = Path(self.runtime_directory)
        paths = account_paths(runtime)
        with self._lock:
            self._busy = {path: before for path, before in self._busy.items() if path in paths}
        for path in paths:
            try:
                with Account.open(path) as account:
                    reading = account.read()
                    fractions = self._busy_fractions(path, account)
            except AccountError:
                continue
            if path.parent == unleased_directory(runtime) and not is_alive(unleased_owner(path)):
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            for process, amounts in reading.processes.items():
                fraction = fractions.get(process)
                percent = None if fraction is None else 100 * fraction
                for device, amount in zip(reading.devices, amounts, strict=True):
                    if amount:
                        entry = DeviceProcess(process.pid, amount, percent, reading.lease_id or None)
                        held.setdefault(device.uuid, []).append(entry)
                        busy[device.uuid] = min(1.0, busy.get(device.uuid, 0.0) + (fraction or 0.0))
        inventory = self.inventory()
        wanted = None if uuids is None else set(uuids)
        return {
            device.uuid: self._usage(device, inventory.devices, held, busy)
            for device in inventory.devices
            if wanted is None or device.uuid in wanted
        }

    def _usage(
        self,
        device: Device,
        devices: Sequence[Device],
        held: dict[str, list[DeviceProcess]],
        busy: dict[str, float],
    ) -> DeviceUsage:
        parts = [d.uuid for d in devices if d.parent_uuid == device.uuid] if device.mig_enabled else [device.uuid]
        processes = tuple(process for part in parts for process in held.get(part, ()))
        used = sum(process.memory_bytes or 0 for process in processes)
        fraction = max((busy.get(part, 0.0) for part in parts), default=0.0)
        return DeviceUsage(
            uuid=device.uuid,
            memory_used_bytes=used,
            memory_free_bytes=max(0, (device.memory_bytes or 0) - used),
            utilization_percent=round(100 * fraction, 1),
            temperature_celsius=round(_IDLE_CELSIUS + fraction * (_BUSY_CELSIUS - _IDLE_CELSIUS), 1),
            power_watts=round(_IDLE_WATTS + fraction * (_LIMIT_WATTS - _IDLE_WATTS), 1),
            power_limit_watts=_LIMIT_WATTS,
            processes=processes,
        )

    def _busy_fractions(self, path: Path, account: Account) -> dict[ProcessKey, float]:
        """The share of the time since the call before that each process computed, 0 to 1."""
        now = time.monotonic_ns()
        busy = account.busy(now)
        with self._lock:
            before_ns, before = self._busy.get(path, (0, {}))
            self._busy[path] = (now, busy)
        if not before_ns or now <= before_ns:
            return {}
        return {
            process: min(1.0, max(0.0, (spent - before.get(process, 0)) / (now - before_ns)))
            for process, spent in busy.items()
        }
