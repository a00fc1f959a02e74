"""A stand-in for NVIDIA's `libnvidia-ml.so.1`, built from nvml/*.c, and the file that tells it what to show.

The state file holds one setting per line and may change while a process has the library loaded:

    driver 570.86.15                the driver's version; `library`: NVML's; `cuda 12080`: 12.8
    broken 9                        every call, the first included, answers this code
    latency 50                      microseconds that every call takes
    wait sleep|spin                 how it passes them
    log /path/to/calls              append each call's name and device to this file
    call FUNCTION fail CODE         that function answers this code; `*` is every function
    call FUNCTION latency US        that function takes this long
    gpu GPU-…                       a GPU; `call` and what follows concern it until the next device
    name / pci / capability 8 0 / memory TOTAL RESERVED USED / utilization GPU MEMORY / temperature 40
    power MILLIWATTS LIMIT / mig on|off / lost now|until-init
    process PID compute|graphics|mps MEMORY|- PERCENT|- AGE    AGE of the utilisation sample, in microseconds
    instance MIG-…                  a MIG instance of that GPU; what follows concerns it
    placed SLOT GI CI GPU-SLICES COMPUTE-SLICES
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
import time
import uuid as uuids
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SOURCE = Path(__file__).parent / "nvml"
BUILD = Path(__file__).parent / "build"
SONAME = "libnvidia-ml.so.1"
STATE_VARIABLE = "NVML_STAND_IN_STATE"
GIB = 1 << 30

CURRENT_SERIES = 570
"""Other series that build() knows: 440 (before MIG), 470 (before reserved memory and the third process list), and 535
(its first releases, whose process entries were longer)."""

UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 1, 2, 3, 4, 6
DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND, GPU_IS_LOST, RESET_REQUIRED, VERSION_MISMATCH, UNKNOWN = 9, 13, 15, 16, 18, 999


def build(series: int = CURRENT_SERIES) -> Path:
    """The library of a driver series, compiled if it is not there or older than its source.

    Raises:
        subprocess.CalledProcessError: The compiler refused the source.
    """
    library = BUILD / f"nvml-{series}" / SONAME
    library.parent.mkdir(parents=True, exist_ok=True)
    with (library.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = max(path.stat().st_mtime_ns for path in SOURCE.iterdir())
        if not library.exists() or library.stat().st_mtime_ns < newest:
            fresh = library.with_suffix(".new")
            command = [os.environ.get("CC", "cc"), "-std=c11", "-O2", "-g", "-fPIC", "-shared", "-fvisibility=hidden"]
            command += ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", f"-DNVML_SERIES={series}"]
            command += [f"-Wl,-soname,{SONAME}", "-o", str(fresh), *map(str, sorted(SOURCE.glob("*.c"))), "-pthread"]
            subprocess.run(command, check=True)
            fresh.replace(library)
    return library


@dataclass
class StandInProcess:
    """One process on a stand-in device."""

    pid: int
    memory_bytes: int | None
    kind: str
    utilization: int | None
    age_s: float

    def line(self) -> str:
        memory = "-" if self.memory_bytes is None else self.memory_bytes
        utilization = "-" if self.utilization is None else self.utilization
        return f"process {self.pid} {self.kind} {memory} {utilization} {round(self.age_s * 1e6)}"


@dataclass
class StandInDevice:
    """One GPU or MIG instance; change it through NVMLStandIn, which writes the file."""

    uuid: str
    name: str
    memory_bytes: int
    reserved_bytes: int = 0
    used_bytes: int | None = None
    """`None`: as much as its processes have."""
    utilization: int = 0
    memory_utilization: int = 0
    temperature: int = 35
    power_watts: float = 60.0
    power_limit_watts: float = 400.0
    capability: tuple[int, int] = (8, 0)
    pci: str = ""
    mig: bool | None = None
    lost: str | None = None
    placed: tuple[int, int, int, int, int] | None = None
    processes: list[StandInProcess] = field(default_factory=list)
    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    instances: list[StandInDevice] = field(default_factory=list)

    def lines(self) -> list[str]:
        used = self.used_bytes
        if used is None:
            own = [*self.processes, *(process for instance in self.instances for process in instance.processes)]
            used = sum(process.memory_bytes or 0 for process in own)
        lines = [
            f"{'gpu' if self.placed is None else 'instance'} {self.uuid}",
            f"name {self.name}",
            f"memory {self.memory_bytes} {self.reserved_bytes} {used}",
            f"utilization {self.utilization} {self.memory_utilization}",
            f"temperature {self.temperature}",
            f"power {round(self.power_watts * 1000)} {round(self.power_limit_watts * 1000)}",
            f"capability {self.capability[0]} {self.capability[1]}",
            f"pci {self.pci}",
        ]
        if self.mig is not None:
            lines.append(f"mig {'on' if self.mig else 'off'}")
        if self.lost is not None:
            lines.append(f"lost {self.lost}")
        if self.placed is not None:
            lines.append("placed " + " ".join(map(str, self.placed)))
        lines += [f"call {function} {effect} {value}" for (function, effect), value in self.calls.items()]
        lines += [process.line() for process in self.processes]
        return lines + [line for instance in self.instances for line in instance.lines()]


class NVMLStandIn:
    """What the stand-in shows, and the state file that says so. Every method that changes it writes the file."""

    def __init__(self, state_path: Path, *, series: int = CURRENT_SERIES) -> None:
        self.state_path = Path(state_path)
        self.series = series
        self.log_path = self.state_path.with_name(self.state_path.name + ".calls")
        self.driver_version = "570.86.15"
        self.cuda_version = 12080
        self.gpus: list[StandInDevice] = []
        self._host: dict[str, str] = {}
        self._calls: dict[tuple[str, str], int] = {}
        self._written_ns = 0
        self.write()

    # How a process comes to load it

    def environment(self) -> dict[str, str]:
        """The variables with which a new process loads the stand-in instead of a driver."""
        inherited = os.environ.get("LD_LIBRARY_PATH")
        folder = str(build(self.series).parent)
        return {
            "LD_LIBRARY_PATH": folder if not inherited else f"{folder}:{inherited}",
            STATE_VARIABLE: str(self.state_path),
        }

    def load(self) -> None:
        """Make this process use the stand-in: whatever opens the driver's soname later gets this one.

        One process can hold only one, so the series must be the same for all; the state file may be another each time.
        """
        library = ctypes.CDLL(str(build(self.series)), mode=ctypes.RTLD_GLOBAL)
        opened = ctypes.CDLL(SONAME)
        if opened._handle != library._handle:
            raise RuntimeError(f"This process has already loaded another {SONAME}, so it cannot use the stand-in.")
        os.environ[STATE_VARIABLE] = str(self.state_path)

    # What there is

    def add_gpu(
        self,
        name: str = "NVIDIA A100-SXM4-40GB",
        memory_bytes: int = 40 * GIB,
        uuid: str | None = None,
        **settings: object,
    ) -> str:
        """Another GPU, and its UUID; settings are fields of StandInDevice."""
        number = len(self.gpus)
        uuid = uuid or f"GPU-{uuids.uuid5(uuids.NAMESPACE_OID, str(number))}"
        settings.setdefault("pci", f"00000000:{number + 1:02X}:00.0")
        self.gpus.append(StandInDevice(uuid, name, memory_bytes, **settings))  # type: ignore[arg-type]
        self.write()
        return uuid

    def add_instance(
        self,
        gpu: str,
        profile: str = "1g.5gb",
        memory_bytes: int = 5 * GIB,
        uuid: str | None = None,
        slot: int | None = None,
        *,
        named: bool = True,
        **settings: object,
    ) -> str:
        """A MIG instance on a GPU, whose MIG mode this turns on, and its UUID.

        Args:
            gpu: The GPU's UUID.
            profile: As in `2g.10gb`, or `1c.2g.10gb` for a part of one.
            memory_bytes: The instance's own memory.
            uuid: `MIG-…`; made up if not given.
            slot: The index NVML lists it at; the next one if not given.
            named: Whether the name holds the profile, as newer drivers' do.
            settings: Fields of StandInDevice.
        """
        parent = self.device(gpu)
        parent.mig = True
        slot = len(parent.instances) if slot is None else slot
        uuid = uuid or f"MIG-{uuids.uuid5(uuids.NAMESPACE_OID, f'{gpu}/{slot}')}"
        *compute, slices, _ = profile.replace("g.", ".").replace("c.", ".").split(".")
        placed = (slot, slot + 7, 0, int(slices), int((compute or [slices])[0]))
        name = f"{parent.name} MIG {profile}" if named else parent.name
        parent.instances.append(StandInDevice(uuid, name, memory_bytes, placed=placed, **settings))  # type: ignore[arg-type]
        self.write()
        return uuid

    def remove(self, uuid: str) -> None:
        """Take a GPU or an instance away."""
        self.gpus = [gpu for gpu in self.gpus if gpu.uuid != uuid]
        for gpu in self.gpus:
            gpu.instances = [instance for instance in gpu.instances if instance.uuid != uuid]
        self.write()

    def device(self, uuid: str) -> StandInDevice:
        """The GPU or instance of that UUID, to read; write() if you change it."""
        return next(d for gpu in self.gpus for d in (gpu, *gpu.instances) if d.uuid == uuid)

    def set(self, uuid: str, **settings: object) -> None:
        """Change fields of a StandInDevice, such as utilization, temperature, power_watts, memory_bytes, mig."""
        device = self.device(uuid)
        for name, value in settings.items():
            if not hasattr(device, name):
                raise AttributeError(f"A stand-in device has no {name!r}.")
            setattr(device, name, value)
        self.write()

    def add_process(
        self,
        uuid: str,
        pid: int,
        memory_bytes: int | None = GIB,
        *,
        kind: str = "compute",
        utilization: int | None = None,
        age_s: float = 0.0,
    ) -> None:
        """A process on a device; `None` is what the driver cannot tell. `kind`: compute, graphics or mps."""
        self.device(uuid).processes.append(StandInProcess(pid, memory_bytes, kind, utilization, age_s))
        self.write()

    def remove_process(self, uuid: str, pid: int) -> None:
        """End a process's presence on a device."""
        device = self.device(uuid)
        device.processes = [process for process in device.processes if process.pid != pid]
        self.write()

    # How it behaves

    def lose(self, uuid: str, *, until_init: bool = False) -> None:
        """Let a GPU fall off the bus; with `until_init`, found() helps only those who initialise NVML anew."""
        self.set(uuid, lost="until-init" if until_init else "now")

    def found(self, uuid: str) -> None:
        """Undo lose()."""
        self.set(uuid, lost=None)

    def fail(self, function: str, code: int, uuid: str | None = None) -> None:
        """Let a function (`*`: every one) answer an error code, for one device or altogether."""
        (self._calls if uuid is None else self.device(uuid).calls)[function, "fail"] = code
        self.write()

    def succeed(self, function: str, uuid: str | None = None) -> None:
        """Undo fail()."""
        (self._calls if uuid is None else self.device(uuid).calls).pop((function, "fail"), None)
        self.write()

    def set_latency(self, latency_us: int, function: str | None = None, *, spin: bool = False) -> None:
        """How long every call, or one function's, takes; by sleeping, or with `spin` by keeping a core busy."""
        if function is None:
            self._host.update(latency=str(latency_us), wait="spin" if spin else "sleep")
        else:
            self._calls[function, "latency"] = latency_us
        self.write()

    def break_driver(self, code: int = DRIVER_NOT_LOADED) -> None:
        """Let every call answer a code: driver not loaded, version mismatch, no permission."""
        self._host["broken"] = str(code)
        self.write()

    def repair_driver(self) -> None:
        """Undo break_driver()."""
        self._host.pop("broken", None)
        self.write()

    def log_calls(self) -> None:
        """Note every call from now on, for calls()."""
        self._host["log"] = str(self.log_path)
        self.log_path.write_text("")
        self.write()

    def calls(self) -> Counter[tuple[str, str]]:
        """How often each function was called for each device's UUID (`-` for none) since log_calls()."""
        lines = self.log_path.read_text().splitlines()
        return Counter((function, uuid) for function, _, uuid in (line.partition(" ") for line in lines))

    def forget_calls(self) -> None:
        """Begin to count anew."""
        os.truncate(self.log_path, 0)

    def write(self) -> None:
        """Replace the state file by what this object says."""
        lines = [f"driver {self.driver_version}", f"cuda {self.cuda_version}"]
        lines += [f"{word} {value}" for word, value in self._host.items()]
        lines += [f"call {function} {effect} {value}" for (function, effect), value in self._calls.items()]
        lines += [line for gpu in self.gpus for line in gpu.lines()]
        fresh = self.state_path.with_name(f"{self.state_path.name}.{os.getpid()}.new")
        fresh.write_text("".join(f"{line}\n" for line in lines))
        # A file system's clock ticks slowly and inodes are used again, so two quick changes could look alike.
        self._written_ns = max(time.time_ns(), self._written_ns + 1)
        os.utime(fresh, ns=(self._written_ns, self._written_ns))
        fresh.replace(self.state_path)
