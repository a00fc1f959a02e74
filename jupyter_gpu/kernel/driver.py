"""What NVML tells a kernel about its devices, read through ctypes, so that no package is needed.

Reads only, and only what a driver answers in microseconds. A figure that the driver does not give is `None`.
The structures are those of nvml.h: memory in bytes, power in milliwatts, energy in millijoules.
"""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass

_LIBRARY = "libnvidia-ml.so.1"
_SUCCESS = 0
_NAME_LENGTH = 96


@dataclass(frozen=True)
class DriverDevice:
    """A device as NVML names it."""

    uuid: str
    index: str
    name: str
    memory_bytes: int | None


@dataclass(frozen=True)
class DriverReading:
    """What a device does now. `None` is unknown."""

    used_bytes: int | None
    own_bytes: int | None
    """What this process holds, as the driver counts it."""
    utilization_percent: float | None
    power_watts: float | None
    energy_joules: float | None
    """Since the driver was loaded; only differences mean something."""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class DriverError(Exception):
    """NVML cannot be used here. The message says why."""


class Driver:
    """NVML in this process.

    Args:
        library: the name or path of NVML's library.

    Raises:
        DriverError: there is none, or it cannot be initialised.
    """

    def __init__(self, library: str = _LIBRARY) -> None:
        try:
            self._nvml = ctypes.CDLL(library)
        except OSError as error:
            raise DriverError("there is no NVIDIA driver here") from error
        status = self._call("nvmlInit_v2")
        if status != _SUCCESS:
            raise DriverError(f"the NVIDIA driver cannot be asked: NVML answered {status}")

    def close(self) -> None:
        """Let go of NVML."""
        self._call("nvmlShutdown")

    def devices(self) -> list[DriverDevice]:
        """The GPUs, in NVML's order. MIG instances are not listed; `device` finds one by its UUID."""
        count = ctypes.c_uint()
        if self._call("nvmlDeviceGetCount_v2", ctypes.byref(count)) != _SUCCESS:
            return []
        found = []
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle)) == _SUCCESS:
                found.append(self._described(handle, str(index)))
        return found

    def device(self, uuid: str) -> DriverDevice | None:
        """One device by its full UUID, a MIG instance too; `None` where there is none."""
        handle = self._handle(uuid)
        if handle is None:
            return None
        index = ctypes.c_uint()
        known = self._call("nvmlDeviceGetIndex", handle, ctypes.byref(index)) == _SUCCESS
        return self._described(handle, str(index.value) if known and not uuid.startswith("MIG-") else "")

    def reading(self, uuid: str, pid: int) -> DriverReading:
        """What the device does now, and what the process `pid` holds on it."""
        handle = self._handle(uuid)
        if handle is None:
            return DriverReading(None, None, None, None, None)
        memory, utilization = _Memory(), _Utilization()
        power, energy = ctypes.c_uint(), ctypes.c_ulonglong()
        got_memory = self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory)) == _SUCCESS
        got_use = self._call("nvmlDeviceGetUtilizationRates", handle, ctypes.byref(utilization)) == _SUCCESS
        got_power = self._call("nvmlDeviceGetPowerUsage", handle, ctypes.byref(power)) == _SUCCESS
        got_energy = self._call("nvmlDeviceGetTotalEnergyConsumption", handle, ctypes.byref(energy)) == _SUCCESS
        return DriverReading(
            used_bytes=memory.used if got_memory else None,
            own_bytes=self._held_by(handle, pid),
            utilization_percent=float(utilization.gpu) if got_use else None,
            power_watts=power.value / 1000 if got_power else None,
            energy_joules=energy.value / 1000 if got_energy else None,
        )

    def _held_by(self, handle: ctypes.c_void_p, pid: int) -> int | None:
        count = ctypes.c_uint(128)
        processes = (_Process * count.value)()
        status = self._call("nvmlDeviceGetComputeRunningProcesses_v3", handle, ctypes.byref(count), processes)
        if status != _SUCCESS:
            return None
        for process in processes[: count.value]:
            if process.pid == pid:
                # All bits set is NVML's "not available", under MIG and WDDM for example.
                return None if process.used == (1 << 64) - 1 else int(process.used)
        return 0

    def _handle(self, uuid: str) -> ctypes.c_void_p | None:
        handle = ctypes.c_void_p()
        status = self._call("nvmlDeviceGetHandleByUUID", uuid.encode(), ctypes.byref(handle))
        return handle if status == _SUCCESS else None

    def _described(self, handle: ctypes.c_void_p, index: str) -> DriverDevice:
        name, uuid = ctypes.create_string_buffer(_NAME_LENGTH), ctypes.create_string_buffer(_NAME_LENGTH)
        memory = _Memory()
        self._call("nvmlDeviceGetName", handle, name, ctypes.c_uint(_NAME_LENGTH))
        self._call("nvmlDeviceGetUUID", handle, uuid, ctypes.c_uint(_NAME_LENGTH))
        known = self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory)) == _SUCCESS
        return DriverDevice(
            uuid.value.decode("ascii", "replace"),
            index,
            name.value.decode("utf-8", "replace"),
            int(memory.total) if known else None,
        )

    def _call(self, function: str, *arguments: object) -> int:
        with contextlib.suppress(AttributeError):
            return int(getattr(self._nvml, function)(*arguments))
        return -1
