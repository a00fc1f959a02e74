"""NVIDIA GPUs, through the driver's library NVML."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Float, default

from jupyter_gpu.devices.device import DeviceBackend, DeviceUsage, Inventory, Problem
from jupyter_gpu.devices.nvml_device import ProcessQuestions, unknown_usage, with_processes_of
from jupyter_gpu.devices.nvml_enumeration import NVMLEnumeration
from jupyter_gpu.devices.nvml_errors import PYNVML_MISSING, DriverGoneError, HandleInvalidError, driver_problem, silence
from jupyter_gpu.devices.nvml_library import NVMLLibrary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jupyter_gpu.devices.nvml_device import NVMLDevice

_LONGEST_BACK_OFF = 32
"""Times retry_interval_s, between attempts to bring back a lost GPU by initialising NVML anew."""


class NVMLBackend(DeviceBackend):
    """The NVIDIA GPUs and MIG instances of this host.

    Nothing is loaded before the first question. The driver stays initialised until close(); when it goes away, or a
    GPU is lost, the questions after that try again.
    """

    retry_interval_s = Float(
        10.0,
        min=0.0,
        help="""Seconds to wait before trying again after the driver failed, or before initialising NVML anew to get a
        lost GPU back (each time in vain doubles that wait, up to 32 times as long).""",
    ).tag(config=True)
    inventory_interval_s = Float(
        5.0,
        min=0.0,
        help="Seconds for which the list of GPUs and MIG instances is taken to be up to date.",
    ).tag(config=True)
    graphics_processes = Bool(
        True,
        help="Whether to ask for processes that draw, such as a display server, besides those that compute.",
    ).tag(config=True)
    mps_processes = Bool(
        help="""Whether to ask for the clients of NVIDIA's Multi-Process Service too: one more call per GPU. By default
        where its control daemon's pipe directory exists (CUDA_MPS_PIPE_DIRECTORY, else /tmp/nvidia-mps).""",
    ).tag(config=True)
    process_utilization = Bool(
        True,
        help="Whether to ask how busy each process keeps a GPU: one more call per GPU.",
    ).tag(config=True)
    process_utilization_window_s = Float(
        2.0,
        min=0.5,
        help="How many seconds back the utilisation of processes is looked at; the driver samples about once a second.",
    ).tag(config=True)

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.RLock()
        self._enumeration: NVMLEnumeration | None = None
        self._library: NVMLLibrary | None = None
        self._inventory = Inventory()
        self._stale = True
        self._fresh_until = 0.0
        self._invalid_until = 0.0
        self._retry_at = 0.0
        self._vain_retries = 0
        self._reported: tuple[Problem, ...] = ()

    @default("mps_processes")
    def _default_mps_processes(self) -> bool:
        # The directory's default name is NVIDIA's, and only its existence is looked at.
        return Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")).is_dir()  # noqa: S108

    def inventory(self) -> Inventory:
        """The GPUs and MIG instances now, or what keeps them from being seen."""
        with self._lock:
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - whatever a driver does, the server goes on
                self._fail(error)
            self._report()
            return self._inventory

    def usage(self, uuids: Sequence[str] | None = None) -> dict[str, DeviceUsage]:
        """What the named devices (default: all) do now, by UUID.

        A GPU divided into MIG instances has the processes of all of them. While the driver does not answer, the
        named devices that it had before are there without figures.
        """
        with self._lock:
            try:
                usages = self._usage(uuids)
            except Exception as error:  # noqa: BLE001 - whatever a driver does, the server goes on
                self._fail(error)
                usages = self._unknown(uuids)
            self._report()
            return usages

    def close(self) -> None:
        """Let go of the driver. The next call takes it up again, without waiting."""
        with self._lock:
            self._shut()
            self._retry_at = 0.0

    # The driver: there, or not, or to be tried again

    def _look(self) -> NVMLEnumeration | None:
        """Bring the inventory up to date; `None` while there is no driver."""
        for _ in range(2):
            library = self._open()
            if library is None:
                return None
            try:
                return self._enumerate(library)
            except DriverGoneError as gone:
                self._drop(gone)
        # It came up and went away again: that is no state to be asked for with every call.
        self._retry_at = self._clock() + self.retry_interval_s
        return None

    def _open(self) -> NVMLLibrary | None:
        now = self._clock()
        if self._library is not None:
            if now < self._retry_at or self._enumeration is None or not self._enumeration.any_lost:
                return self._library
            # A handle of a lost GPU stays dead: only a new initialisation can find the GPU again.
            self._retry_at = now + self.retry_interval_s * min(2**self._vain_retries, _LONGEST_BACK_OFF)
            self._vain_retries += 1
            self._shut()
        elif now < self._retry_at:
            return None
        try:
            self._library = NVMLLibrary()
        except ImportError:
            self._refuse(PYNVML_MISSING)
        except Exception as error:
            code = getattr(error, "value", None)
            if code is None:
                raise
            self._refuse(driver_problem(code))
        return self._library

    def _enumerate(self, library: NVMLLibrary) -> NVMLEnumeration:
        if self._enumeration is None or self._enumeration.library is not library:
            self._enumeration = NVMLEnumeration(library, self._enumeration)
        elif not self._stale and self._clock() < self._fresh_until:
            return self._enumeration
        self._inventory = self._enumeration.refresh()
        self._stale = False
        self._fresh_until = self._clock() + self.inventory_interval_s
        if not self._enumeration.any_lost:
            self._vain_retries = 0
        return self._enumeration

    def _refuse(self, problem: Problem) -> None:
        self._inventory = Inventory(problems=(problem,))
        self._retry_at = self._clock() + self.retry_interval_s

    def _drop(self, gone: DriverGoneError) -> None:
        """The driver went away while it was asked: begin anew with the next question, without waiting."""
        self._shut()
        self._inventory = Inventory(problems=(driver_problem(gone.code),))
        self._retry_at = 0.0

    def _shut(self) -> None:
        self._stale = True
        if self._library is not None:
            self._library.close()
            self._library = None

    def _fail(self, error: Exception) -> None:
        """What no driver is known to do. Nothing may come of it but a Problem."""
        self.log.error("The NVIDIA driver answered in a way that is not understood.", exc_info=error)
        self._shut()
        message = f"The NVIDIA driver answered in a way that is not understood: {error!r}."
        self._refuse(Problem("driver-failed", message, "Run nvidia-smi; if it works, report this with the log."))

    def _report(self) -> None:
        """Log what stands in the way, once, and that it is gone."""
        problems = self._inventory.problems
        for problem in problems:
            if problem not in self._reported:
                self.log.warning("%s %s", problem.message, problem.advice)
        if self._reported and not problems:
            self.log.info("The NVIDIA driver and all its GPUs answer again.")
        self._reported = problems

    # What the devices do

    def _usage(self, uuids: Sequence[str] | None) -> dict[str, DeviceUsage]:
        for attempt in range(2):
            enumeration = self._ready(uuids)
            if enumeration is None:
                break
            try:
                return self._sample(enumeration, uuids, final=attempt > 0 or self._clock() < self._invalid_until)
            except DriverGoneError as gone:
                self._drop(gone)
                if attempt > 0:
                    self._retry_at = self._clock() + self.retry_interval_s
            except HandleInvalidError:
                # Somebody else in this process restarted NVML, or a MIG instance is gone.
                self._stale = True
        return self._unknown(uuids)

    def _ready(self, uuids: Sequence[str] | None) -> NVMLEnumeration | None:
        """The devices as last seen; looked at anew only if something asked for is missing, or a GPU is lost."""
        if self._open() is None:
            return None
        known = self._enumeration
        if known is None or self._stale or known.any_lost:
            return self._look()
        if uuids is not None and not known.devices.keys() >= set(uuids):
            return self._look()
        return known

    def _sample(
        self, enumeration: NVMLEnumeration, uuids: Sequence[str] | None, *, final: bool
    ) -> dict[str, DeviceUsage]:
        """What the devices do.

        Args:
            enumeration: The devices.
            uuids: Those of interest; `None`: all.
            final: Whether a handle that is no good must be put up with.
        """
        now, wall_clock = self._clock(), self._wall_clock()
        questions = self._questions()
        asked: dict[str, DeviceUsage | None] = {}

        def ask(known: NVMLDevice) -> DeviceUsage | None:
            uuid = known.device.uuid
            if uuid not in asked:
                lost_before = known.lost
                asked[uuid] = self._ask(known, questions, now, wall_clock, final=final)
                # The next inventory has to say so.
                self._stale = self._stale or known.lost != lost_before
            return asked[uuid]

        usages: dict[str, DeviceUsage] = {}
        for uuid in enumeration.devices if uuids is None else uuids:
            known = enumeration.devices.get(uuid)
            usage = None if known is None else ask(known)
            if usage is None or known is None:
                continue
            if known.device.mig_enabled:
                usage = with_processes_of(usage, [ask(instance) for instance in enumeration.instances_of(uuid)])
            usages[uuid] = usage
        return usages

    def _ask(
        self, known: NVMLDevice, questions: ProcessQuestions, now: float, wall_clock: float, *, final: bool
    ) -> DeviceUsage | None:
        try:
            return known.usage(questions, now, wall_clock)
        except HandleInvalidError as invalid:
            if not final:
                raise
            if now >= self._invalid_until:
                self._invalid_until = now + self.inventory_interval_s
            # An instance that is gone is left out; a GPU is there, or the inventory would not have it.
            return None if known.device.is_mig else unknown_usage(known.device.uuid, silence(invalid.code))

    def _questions(self) -> ProcessQuestions:
        kinds = {"Compute": True, "Graphics": self.graphics_processes, "MPSCompute": self.mps_processes}
        return ProcessQuestions(
            kinds=tuple(kind for kind, wanted in kinds.items() if wanted),
            utilization_window_s=self.process_utilization_window_s if self.process_utilization else None,
        )

    def _unknown(self, uuids: Sequence[str] | None) -> dict[str, DeviceUsage]:
        """The usage of devices that the driver had before, while it does not answer."""
        known = {device.uuid for device in self._enumeration.seen()} if self._enumeration is not None else set()
        sentence = " ".join(problem.message for problem in self._inventory.problems) or "The driver does not answer."
        return {uuid: unknown_usage(uuid, sentence) for uuid in uuids or () if uuid in known}
