"""The driver's library NVML, loaded and initialised through pynvml.

Most of it is pynvml's own functions. Only the process lists are asked for here, with buffers that are kept: pynvml
asks the driver twice for each list (once for its length) and builds an object per process with a dictionary each.
"""

from __future__ import annotations

import ctypes
from struct import Struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROCESS_KINDS = ("Compute", "Graphics", "MPSCompute")
NO_PROCESS = frozenset({0, 0xFFFFFFFF})
"""Process ids that some drivers put into their lists though no process has them."""

_NOT_AVAILABLE = 0xFFFFFFFFFFFFFFFF
_SUCCESS = 0
_INSUFFICIENT_SIZE = 7
_FUNCTION_NOT_FOUND = 13
_ENTRY_LAYOUTS = {"_v3": Struct("@IQII"), "_v2": Struct("@IQII"), "": Struct("@IQ")}
"""pid, memory, GPU instance, compute instance, as nvmlProcessInfo_v2_t (which the third version uses again)."""
_LONGEST_ENTRY = 32
_SAMPLE_LAYOUT = Struct("@IQIIII")
"""pid, time in microseconds of the epoch, percent of multiprocessors, memory, encoder, decoder."""
_FIRST_CAPACITY = 128
"""Entries. The driver wants room for its whole buffer of utilisation samples, 100 where it was looked at."""


class _Table:
    """One function of the driver that fills an array, and room for what it writes."""

    def __init__(self, function: Any, layout: Struct) -> None:
        self._function = function
        self._layout = layout
        self._count = ctypes.c_uint()
        self._count_reference = ctypes.byref(self._count)
        self._make_room(_FIRST_CAPACITY)

    def _make_room(self, entries: int) -> None:
        self._capacity = entries
        # The first 535 drivers wrote longer entries than announced: whatever they write must stay inside.
        self._buffer = ctypes.create_string_buffer(entries * _LONGEST_ENTRY)
        self._view = memoryview(self._buffer).cast("B")

    def read(self, handle: Any, *more: Any) -> tuple[int, Iterable[tuple[int, ...]]]:
        """NVML's code, and the entries if it is 0."""
        for _ in range(3):
            self._count.value = self._capacity
            code = self._call(handle, *more)
            if code == _SUCCESS:
                return code, self._layout.iter_unpack(self._view[: self._count.value * self._layout.size])
            if code != _INSUFFICIENT_SIZE:
                break
            # Processes may be starting while this asks again.
            self._make_room(max(self._capacity, self._count.value) * 2)
        return code, ()

    def _call(self, handle: Any, *more: Any) -> int:
        code: int = self._function(handle, self._count_reference, self._buffer, *more)
        return code


class _SampleTable(_Table):
    """The same for the function that takes its array before the count."""

    def _call(self, handle: Any, *more: Any) -> int:
        code: int = self._function(handle, self._buffer, self._count_reference, *more)
        return code


class NVMLLibrary:
    """NVML from one initialisation to its shutdown. Not safe for several threads at once.

    Raises:
        ImportError: There is no pynvml.
        pynvml.NVMLError: There is no library, or it refuses; `value` is NVML's code.
    """

    def __init__(self) -> None:
        import pynvml  # noqa: PLC0415 - it takes a while to load, and hosts without a GPU never need it

        self.nvml: Any = pynvml
        self.Error: type[Exception] = pynvml.NVMLError
        pynvml.nvmlInit()
        try:
            self.driver_version = self._text(pynvml.nvmlSystemGetDriverVersion)
            self.cuda_version = self._cuda_version()
            self._process_tables = {kind: self._process_table(kind) for kind in PROCESS_KINDS}
            self._samples = self._sample_table()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the driver back. Other users of NVML in this process keep it."""
        try:
            self.nvml.nvmlShutdown()
        except self.Error:
            # Somebody else in this process shut it down, or the driver is gone: either way it is given back.
            return

    def processes(self, handle: Any, kind: str) -> Iterator[tuple[int, int | None]]:
        """The processes of one of PROCESS_KINDS on a device: pid, and memory in bytes or `None` if not told.

        Raises:
            pynvml.NVMLError: As the driver answers; FUNCTION_NOT_FOUND if it has no such list.
        """
        table = self._process_tables[kind]
        code, entries = table.read(handle) if table else (_FUNCTION_NOT_FOUND, ())
        if code != _SUCCESS:
            raise self.Error(code)
        for pid, memory, *_ in entries:
            if pid not in NO_PROCESS:
                yield pid, None if memory == _NOT_AVAILABLE else memory

    def process_utilization(self, handle: Any, since_us: int) -> dict[int, float]:
        """How busy the processes on a device have been, in percent of its multiprocessors, by pid.

        The driver keeps samples of processes that did something; one that is not here did nothing in the time.
        Of several samples of a process the newest counts. Values over 100, which drivers are known to give for
        processes that ended, are left out.

        Args:
            handle: The device's.
            since_us: The time, in microseconds of the epoch, from which on samples count.

        Raises:
            pynvml.NVMLError: As the driver answers.
        """
        code, entries = self._samples.read(handle, since_us) if self._samples else (_FUNCTION_NOT_FOUND, ())
        if code == 6:  # Not found: nobody did anything.
            return {}
        if code != _SUCCESS:
            raise self.Error(code)
        newest: dict[int, tuple[int, float]] = {}
        for pid, time_us, multiprocessors, *_ in entries:
            if multiprocessors <= 100 and time_us > newest.get(pid, (0, 0.0))[0]:
                newest[pid] = (time_us, float(multiprocessors))
        return {pid: percent for pid, (_, percent) in newest.items()}

    def _text(self, call: Any) -> str | None:
        try:
            return str(call())
        except (self.Error, UnicodeDecodeError):
            return None

    def _cuda_version(self) -> str | None:
        try:
            version = self.nvml.nvmlSystemGetCudaDriverVersion()
        except self.Error:
            return None
        return f"{version // 1000}.{version % 1000 // 10}"

    def _has(self, function: str) -> bool:
        return hasattr(self.nvml.nvmlLib, function)

    def _function(self, name: str, *argument_types: Any) -> Any:
        # By item, so that it is not the object that pynvml and other users in this process share.
        function = self.nvml.nvmlLib[name]
        function.argtypes = argument_types
        function.restype = ctypes.c_int
        return function

    def _process_table(self, kind: str) -> _Table | None:
        versions = ["_v3", "_v2", ""]
        # The first drivers of the 535 series have longer entries in the third version, which nothing announces;
        # they are the ones that know confidential memory and not yet the list made for it.
        if self._has("nvmlDeviceGetConfComputeMemSizeInfo") and not self._has("nvmlDeviceGetRunningProcessDetailList"):
            versions.remove("_v3")
        for version in versions:
            name = f"nvmlDeviceGet{kind}RunningProcesses{version}"
            if self._has(name):
                function = self._function(name, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
                return _Table(function, _ENTRY_LAYOUTS[version])
        return None

    def _sample_table(self) -> _Table | None:
        name = "nvmlDeviceGetProcessUtilization"
        if not self._has(name):
            return None
        types = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulonglong)
        return _SampleTable(self._function(name, *types), _SAMPLE_LAYOUT)
