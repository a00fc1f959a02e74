"""One GPU or MIG instance as the driver shows it between two initialisations: what it is, and what it does now."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jupyter_gpu.devices.device import Device, DeviceProcess, DeviceUsage
from jupyter_gpu.devices.nvml_errors import (
    HANDLE_IS_INVALID,
    UNSUPPORTED,
    DeviceLostError,
    HandleInvalidError,
    failure,
    reason,
    silence,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jupyter_gpu.devices.nvml_library import NVMLLibrary

POWER_LIMIT_LIFE_S = 30.0
"""An administrator changes the limit now and then; asking every time would cost one call in eight."""
EMPTY_LIST_LIFE_S = 5.0
"""Where nothing draws, nothing will in a moment either; asking every time would cost one call in seven."""

_MEMORY = "memory use"
_UTILIZATION = "utilisation"
_TEMPERATURE = "temperature"
_POWER = "power draw"
_POWER_LIMIT = "power limit"
_PROCESSES = "list of processes"
_BY_PROCESS = "utilisation by process"
_FIELDS = {
    _MEMORY: ("memory_used_bytes", "memory_free_bytes", "memory_reserved_bytes"),
    _UTILIZATION: ("utilization_percent", "memory_utilization_percent"),
    _TEMPERATURE: ("temperature_celsius",),
    _POWER: ("power_watts",),
    _POWER_LIMIT: ("power_limit_watts",),
    _PROCESSES: ("processes",),
    _BY_PROCESS: ("processes.utilization_percent",),
}
"""The fields of DeviceUsage that each metric fills; `processes.…` is a field of its DeviceProcess."""
_GPU_ONLY = (_TEMPERATURE, _POWER, _POWER_LIMIT)
_GPU_ONLY_REASON = "Measured for the GPU as a whole, not for its MIG instances."
_RESERVED_REASON = "This driver counts what it keeps for itself as used."
_PROCESS_MEMORY_REASON = "The driver does not tell the memory of some processes."
_NOT_ASKED_REASON = "Switched off by the option NVMLBackend.process_utilization."
_MIG_REASON = "The driver measures no utilisation of a GPU that is divided into MIG instances, nor of those."


@dataclass(frozen=True)
class ProcessQuestions:
    """What is asked about processes."""

    kinds: tuple[str, ...] = ("Compute", "Graphics")
    utilization_window_s: float | None = 2.0
    """How far back their utilisation is looked at; `None`: not asked."""


def unknown_usage(uuid: str, sentence: str, *, lost: bool = False) -> DeviceUsage:
    """The usage of a device of which nothing is known, and why."""
    fields = (name for names in _FIELDS.values() for name in names if "." not in name)
    return DeviceUsage(uuid, lost=lost, reasons=dict.fromkeys(fields, sentence))


def with_processes_of(usage: DeviceUsage, instances: Sequence[DeviceUsage | None]) -> DeviceUsage:
    """The usage of a GPU that is divided, with the processes of all its instances, each process once."""
    processes: dict[int, DeviceProcess] = {}
    for instance in instances:
        if instance is None:
            continue
        if instance.processes is None:
            sentence = instance.reasons.get("processes", "The processes of one of its instances are not known.")
            return replace(usage, processes=None, reasons={**usage.reasons, "processes": sentence})
        for process in instance.processes:
            before = processes.get(process.pid)
            if before is None:
                processes[process.pid] = process
            elif before.memory_bytes is None or process.memory_bytes is None:
                processes[process.pid] = before._replace(memory_bytes=None)
            else:
                processes[process.pid] = before._replace(memory_bytes=before.memory_bytes + process.memory_bytes)
    return replace(usage, processes=tuple(processes.values()))


def address_of(handle: Any) -> int | None:
    """What tells one handle from another; `None` without a handle."""
    return ctypes.cast(handle, ctypes.c_void_p).value if handle is not None else None


class NVMLDevice:
    """A device with its handle. It remembers what the driver does not support for it and asks no more."""

    def __init__(self, library: NVMLLibrary, handle: Any, device: Device) -> None:
        self.device = device
        self.address = address_of(handle)
        self.lost: int | None = None
        """NVML's code, once it stopped answering."""
        self._library = library
        self.handle = handle
        self._calls = self._metric_calls()
        self._unsupported = dict.fromkeys(_GPU_ONLY, _GPU_ONLY_REASON) if device.is_mig else {}
        self._unsupported_kinds: set[str] = set()
        self._empty_until: dict[str, float] = {}
        """Until when a list of processes other than those that compute is taken to be empty still."""
        self._power_limit: float | None = None
        self._power_limit_until = 0.0

    def memory(self) -> Any:
        """NVML's memory figures of either version, or `None` where it tells none.

        Raises:
            NVMLFailureError: The handle is no good, the device is lost, or the driver is gone.
        """
        return self._ask(_MEMORY, {}, HANDLE_IS_INVALID)

    def usage(self, questions: ProcessQuestions, now: float, wall_clock: float) -> DeviceUsage:
        """What the device does now, with a reason for everything unknown.

        `memory_used_bytes` leaves out what the driver keeps for itself, so that used, free and reserved make up the
        whole device. Drivers before the 510 series do not tell the two apart: there used and free make up the whole.

        Args:
            questions: What to ask about processes.
            now: A monotonic time in seconds.
            wall_clock: Seconds of the epoch.

        Raises:
            DriverGoneError: The driver as a whole does not answer.
            HandleInvalidError: The driver does not know the handle.
        """
        if self.handle is None:
            return self.lost_usage()
        reasons: dict[str, str] = {}
        try:
            memory = self._ask(_MEMORY, reasons, HANDLE_IS_INVALID)
            self.lost = None
            utilization = self._ask(_UTILIZATION, reasons)
            temperature = self._ask(_TEMPERATURE, reasons)
            power = self._ask(_POWER, reasons)
            power_limit = self._ask_power_limit(reasons, now)
            processes = self._ask_processes(questions, reasons, now, wall_clock)
        except DeviceLostError as lost:
            self.lost = lost.code
            return self.lost_usage()
        for metric, sentence in self._unsupported.items():
            reasons.update(dict.fromkeys(_FIELDS[metric], sentence))
        reserved = getattr(memory, "reserved", None)
        if memory is not None and reserved is None:
            reasons["memory_reserved_bytes"] = _RESERVED_REASON
        return DeviceUsage(
            uuid=self.device.uuid,
            memory_used_bytes=None if memory is None else memory.used,
            memory_free_bytes=None if memory is None else memory.free,
            memory_reserved_bytes=reserved,
            utilization_percent=None if utilization is None else float(utilization.gpu),
            memory_utilization_percent=None if utilization is None else float(utilization.memory),
            temperature_celsius=None if temperature is None else float(temperature),
            power_watts=None if power is None else power / 1000,
            power_limit_watts=power_limit,
            processes=processes,
            reasons=reasons,
        )

    def lost_usage(self) -> DeviceUsage:
        """The usage of a device that does not answer."""
        return unknown_usage(self.device.uuid, silence(self.lost or 0), lost=True)

    def _metric_calls(self) -> dict[str, list[Callable[[Any], Any]]]:
        """How to ask for each metric, the best way first; what turns out unsupported is taken off."""
        nvml = self._library.nvml
        memory = [lambda handle: nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2), nvml.nvmlDeviceGetMemoryInfo]
        temperature = [lambda handle: nvml.nvmlDeviceGetTemperature(handle, 0)]
        if hasattr(nvml, "nvmlDeviceGetTemperatureV"):
            temperature.append(lambda handle: nvml.nvmlDeviceGetTemperatureV(handle, 0))
        return {
            _MEMORY: memory,
            _UTILIZATION: [nvml.nvmlDeviceGetUtilizationRates],
            _TEMPERATURE: temperature,
            _POWER: [nvml.nvmlDeviceGetPowerUsage],
            _POWER_LIMIT: [nvml.nvmlDeviceGetEnforcedPowerLimit],
        }

    def _ask(self, metric: str, reasons: dict[str, str], invalid: Iterable[int] = ()) -> Any:
        """The driver's answer, or `None` with the reason noted; codes in `invalid` are the handle's failure."""
        if metric in self._unsupported:
            return None
        calls = self._calls[metric]
        while True:
            try:
                return calls[0](self.handle)
            except self._library.Error as error:
                code = getattr(error, "value", 0)
            if code in invalid:
                raise HandleInvalidError(code)
            if code in UNSUPPORTED and len(calls) > 1:
                del calls[0]
                continue
            self._note(metric, code, reasons)
            return None

    def _note(self, metric: str, code: int, reasons: dict[str, str]) -> None:
        severe = failure(code)
        if severe is not None:
            raise severe
        if code in UNSUPPORTED:
            divided = metric == _UTILIZATION and (self.device.is_mig or self.device.mig_enabled)
            self._unsupported[metric] = _MIG_REASON if divided else reason(metric, code)
        else:
            reasons.update(dict.fromkeys(_FIELDS[metric], reason(metric, code)))

    def _ask_power_limit(self, reasons: dict[str, str], now: float) -> float | None:
        if now >= self._power_limit_until:
            milliwatts = self._ask(_POWER_LIMIT, reasons)
            self._power_limit = None if milliwatts is None else milliwatts / 1000
            if milliwatts is not None:
                self._power_limit_until = now + POWER_LIMIT_LIFE_S
        return self._power_limit

    def _ask_processes(
        self, questions: ProcessQuestions, reasons: dict[str, str], now: float, wall_clock: float
    ) -> tuple[DeviceProcess, ...] | None:
        if self.device.mig_enabled:
            # Its processes run on its instances, and asking the GPU for them takes privileges.
            return ()
        memory_by_pid = self._ask_process_memory(questions.kinds, reasons, now)
        if not memory_by_pid:
            return None if memory_by_pid is None else ()
        if None in memory_by_pid.values():
            reasons["processes.memory_bytes"] = _PROCESS_MEMORY_REASON
        busy = None
        if questions.utilization_window_s is None:
            reasons["processes.utilization_percent"] = _NOT_ASKED_REASON
        elif _BY_PROCESS not in self._unsupported:
            since_us = int((wall_clock - questions.utilization_window_s) * 1e6)
            try:
                busy = self._library.process_utilization(self.handle, since_us)
            except self._library.Error as error:
                self._note(_BY_PROCESS, getattr(error, "value", 0), reasons)
        if busy is None:
            return tuple([DeviceProcess(pid, memory) for pid, memory in memory_by_pid.items()])
        # By NVML's reference, only processes with a utilisation other than zero have samples.
        return tuple([DeviceProcess(pid, memory, busy.get(pid, 0.0)) for pid, memory in memory_by_pid.items()])

    def _ask_process_memory(
        self, kinds: Iterable[str], reasons: dict[str, str], now: float
    ) -> dict[int, int | None] | None:
        """Memory by pid over all kinds of lists; `None` if one of them could not be had."""
        if _PROCESSES in self._unsupported:
            return None
        memory_by_pid: dict[int, int | None] = {}
        for kind in kinds:
            if kind in self._unsupported_kinds or now < self._empty_until.get(kind, 0.0):
                continue
            empty = kind != "Compute"
            try:
                for pid, memory in self._library.processes(self.handle, kind):
                    empty = False
                    known = memory_by_pid.get(pid)
                    # A process that both computes and draws is in both lists, each time with all it has.
                    memory_by_pid[pid] = memory if known is None else max(known, memory or 0)
            except self._library.Error as error:
                code = getattr(error, "value", 0)
                if code in UNSUPPORTED and kind != "Compute":
                    self._unsupported_kinds.add(kind)
                    continue
                self._note(_PROCESSES, code, reasons)
                return None
            if empty:
                self._empty_until[kind] = now + EMPTY_LIST_LIFE_S
        return memory_by_pid
