"""Made-up answers of the GPU API: as many GPUs and kernels as wanted, whose figures change with every look."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

GIB = 1 << 30
DEVICE_BYTES = 40 * GIB
NAMES = (
    *("train-resnet", "eval", "tokenizer", "finetune-llama-7b-with-a-very-long-name", "embeddings", "Untitled"),
    *("Untitled1", "diffusion", "sweep-03", "rl-agent", "segmentation", "notes"),
)
HOLDS = ("reserved", "shared", "reserved", "reserved", "shared")
RESERVED_BYTES = (2 * GIB, 4 * GIB, 4 * GIB, 8 * GIB)
IDLE_S = (0, 300, 2700, 7800, 36000)
IDLE_MINDED_S = 1800
IDLE_GRACE_S = 600


@dataclass
class FleetKernel:
    """One kernel with its lease."""

    number: int
    gpu: int
    label: str
    hold: str
    size: int
    """What it was made to use, and its reservation where it has one, in bytes."""
    share: float
    """How much of it is in use on average."""
    busy: bool
    phase: float
    idle_s: float

    @property
    def id(self) -> str:
        return f"{self.number:08x}-0000-4000-8000-{self.number:012x}"

    @property
    def lease_id(self) -> str:
        return f"lease-{self.number}"

    def used(self, tick: float) -> int:
        wave = 0.08 * math.sin(tick / 7 + self.phase) if self.busy else 0.0
        return int(self.size * min(1.0, max(0.02, self.share + wave)))

    def utilization(self, tick: float) -> float:
        return round(60 + 35 * math.sin(tick / 3 + self.phase), 1) if self.busy else 0.0


@dataclass
class Fleet:
    """GPUs and kernels that are not there. A page that has been `route`d believes in them; each of its looks at the
    devices is a second.
    """

    gpus: int
    kernels_per_gpu: list[int]
    simulated: bool = False
    restless: bool = False
    """Whether every kernel computes, so that all figures change each second."""
    foreign: bool = True
    waiting: int = 0
    without_gpu: int = 0
    idle_policy: str | None = None
    """What becomes of kernels that have been idle for half an hour; without one the server knows of no such thing."""
    kept: set[str] = field(default_factory=set)
    """The kernels that are left alone all the same, by id."""
    tick: int = 0
    began: float = field(default_factory=lambda: float(int(time.time())))
    asked: dict[str, int] = field(default_factory=dict)
    """How often each resource was asked for."""
    kernels: list[FleetKernel] = field(default_factory=list)

    def __post_init__(self) -> None:
        made = random.Random(1)
        for gpu, count in enumerate(self.kernels_per_gpu):
            for _ in range(count):
                number = len(self.kernels) + 1
                self.kernels.append(
                    FleetKernel(
                        number=number,
                        gpu=gpu,
                        label=f"{NAMES[number % len(NAMES)]}.ipynb",
                        hold=HOLDS[number % len(HOLDS)],
                        size=made.choice(RESERVED_BYTES) if count > 4 else made.choice((8, 10, 12)) * GIB,
                        share=made.uniform(0.3, 0.9),
                        busy=self.restless or made.random() < 0.5,
                        phase=made.uniform(0, 6),
                        idle_s=made.choice(IDLE_S),
                    )
                )

    @property
    def time(self) -> float:
        """Now, in the fleet's own time."""
        return self.began + self.tick

    def route(self, page: Page) -> None:
        """Answer the page's questions about GPUs."""
        answers = {
            "devices": self.devices,
            "kernels": self.kernel_table,
            "queue": self.queue,
            "status": self.status,
            "history": self.history,
        }
        live = ("devices", "kernels", "queue")

        def answer(route: Route) -> None:
            name = route.request.url.split("/gpu/api/")[1].split("?")[0]
            if route.request.method == "PATCH":
                route.fulfill(json=self.change(name.removeprefix("kernels/"), route.request.post_data_json))
                return
            parts = live if name == "live" else (name,)
            if not answers.keys() >= set(parts):
                route.continue_()
                return
            for part in parts:
                self.asked[part] = self.asked.get(part, 0) + 1
            if "devices" in parts:
                self.tick += 1
            made = {part: answers[part]() for part in parts}
            route.fulfill(json=made if name == "live" else made[name])

        page.route("**/gpu/api/**", answer)

    def uuid(self, gpu: int) -> str:
        return f"GPU-{gpu:08d}-1111-2222-3333-444444444444"

    def devices(self) -> dict[str, Any]:
        """Answer of `GET devices`."""
        devices = [self._device(gpu) for gpu in range(self.gpus)]
        return {"time": self.time, "stale": None, "simulated": self.simulated, "problems": [], "devices": devices}

    def kernel_table(self) -> dict[str, Any]:
        """Answer of `GET kernels`."""
        models = [self._kernel(kernel) for kernel in self.kernels] + self._without_gpu()
        columns = list(models[0]) if models else []
        device_columns = list(self._kernel_device(self.kernels[0])) if self.kernels else []
        rows = [
            [
                [[device[name] for name in device_columns] for device in model["devices"]]
                if column == "devices"
                else model[column]
                for column in columns
            ]
            for model in models
        ]
        return {
            "time": self.time,
            "stale": None,
            "columns": columns,
            "device_columns": device_columns,
            "rows": rows,
        }

    def change(self, kernel_id: str, change: dict[str, Any]) -> dict[str, Any]:
        """Answer of `PATCH kernels/<id>`, to what is to be kept only."""
        (self.kept.add if change["keep_when_idle"] else self.kept.discard)(kernel_id)
        kernel = next(kernel for kernel in self.kernels if kernel.id == kernel_id)
        return {**self._kernel(kernel), "applied": "now", "message": "Done."}

    def queue(self) -> dict[str, Any]:
        """Answer of `GET queue`."""
        entries = [
            {
                "id": f"q{number}",
                "request": "1:all",
                "label": f"big-model{number + 1 if number else ''}.ipynb",
                "path": f"big-model{number + 1 if number else ''}.ipynb",
                "kernel_id": f"waiting-{number}",
                "owner_kind": "kernel",
                "since": self.began - 73,
                "position": number + 1,
                "message": "waits for GPU 1, held by eval.ipynb and tokenizer.ipynb",
                "mine": True,
            }
            for number in range(self.waiting)
        ]
        return {"time": self.time, "entries": entries}

    def status(self) -> dict[str, Any]:
        """Answer of `GET status`."""
        return {
            "version": "0.1.0",
            "simulated": self.simulated,
            "backend": {"name": "nvml", "driver_version": "550", "cuda_version": "12.4"},
            "problems": [],
            "default_request": "auto",
            "device_count": self.gpus,
            "ledger": {"path": "/tmp/ledger", "ok": True, "problem": None},
            "limits": {"layers": []},
            "provisioner": {"active": True, "reason": None},
        }

    def history(self) -> dict[str, Any]:
        """Answer of `GET history`: fine for five minutes, coarse for half an hour."""
        ticks = [self.tick - back for back in range(1800, 0, -1) if back < 300 or back % 10 == 0]
        times = [self.began + tick for tick in ticks]
        kernels = {
            kernel.id: {
                self.uuid(kernel.gpu): {
                    "t": times,
                    "memory": [self._then(kernel, tick) for tick in ticks],
                    "utilization": [kernel.utilization(tick) for tick in ticks],
                }
            }
            for kernel in self.kernels
        }
        devices = {
            self.uuid(gpu): {
                "t": times,
                "memory": [sum(self._then(kernel, tick) for kernel in self._on(gpu)) for tick in ticks],
                "utilization": [self._utilization(gpu, tick) for tick in ticks],
            }
            for gpu in range(self.gpus)
        }
        return {"time": self.time, "step_s": 1, "devices": devices, "kernels": kernels}

    def _on(self, gpu: int) -> list[FleetKernel]:
        return [kernel for kernel in self.kernels if kernel.gpu == gpu]

    def _then(self, kernel: FleetKernel, tick: float) -> int:
        """What a kernel used in the past, before which it had loaded nothing yet."""
        return kernel.used(tick) if tick > 200 * kernel.phase - 1500 else GIB // 10

    def _utilization(self, gpu: int, tick: float) -> float:
        return min(100.0, max((kernel.utilization(tick) for kernel in self._on(gpu)), default=0.0))

    def _reserved(self, gpu: int) -> int:
        return sum(kernel.size for kernel in self._on(gpu) if kernel.hold == "reserved")

    def _cap(self, kernel: FleetKernel) -> int:
        return kernel.size if kernel.hold == "reserved" else DEVICE_BYTES - self._reserved(kernel.gpu)

    def _device(self, gpu: int) -> dict[str, Any]:
        kernels = self._on(gpu)
        has_foreign = self.foreign and gpu % 3 == 0
        foreign = [{"pid": 4711 + gpu, "name": "python3", "memory_bytes": 2 * GIB}] if has_foreign else []
        foreign_bytes = sum(process["memory_bytes"] for process in foreign)
        used = sum(kernel.used(self.tick) for kernel in kernels) + foreign_bytes + int(0.4 * GIB)
        return {
            "uuid": self.uuid(gpu),
            "index": str(gpu),
            "name": "NVIDIA A100-SXM4-40GB",
            "memory_bytes": DEVICE_BYTES,
            "pci_address": f"00000000:{gpu:02x}:00.0",
            "compute_capability": "8.0",
            "parent_uuid": None,
            "mig_enabled": False,
            "leasable": True,
            "simulated": self.simulated,
            "lost": False,
            "memory_used_bytes": used,
            "memory_source": "device",
            "memory_free_bytes": DEVICE_BYTES - used,
            "utilization_percent": self._utilization(gpu, self.tick),
            "temperature_celsius": 35 + gpu + (20 if kernels else 0) + self.tick % 2,
            "power_watts": 55 + 3 * gpu + (180 if kernels else 0) + self.tick % 5,
            "power_limit_watts": 400,
            "reasons": {},
            "reserved_bytes": self._reserved(gpu),
            "available_bytes": max(0, DEVICE_BYTES - self._reserved(gpu) - foreign_bytes),
            "foreign_bytes": foreign_bytes,
            "leases": [self._lease(kernel) for kernel in kernels],
            "foreign": foreign,
        }

    def _lease(self, kernel: FleetKernel) -> dict[str, Any]:
        owner = {
            "kind": "kernel",
            "kernel_id": kernel.id,
            "label": kernel.label,
            "path": f"work/{kernel.label}",
            "pid": 1000 + kernel.number,
            "mine": True,
        }
        return {
            "lease_id": kernel.lease_id,
            "kind": kernel.hold,
            "memory_bytes": kernel.size if kernel.hold == "reserved" else None,
            "cap_bytes": self._cap(kernel),
            "used_bytes": kernel.used(self.tick),
            "over_cap": kernel.used(self.tick) > self._cap(kernel),
            "owner": owner,
        }

    def _kernel(self, kernel: FleetKernel) -> dict[str, Any]:
        request = f"{kernel.gpu}:{kernel.size // GIB}GiB" if kernel.hold == "reserved" else str(kernel.gpu)
        return {
            "kernel_id": kernel.id,
            "name": "python3",
            "label": kernel.label,
            "path": f"work/{kernel.label}",
            "type": "notebook",
            "execution_state": "busy" if kernel.busy else "idle",
            "state": "running",
            "lease_id": kernel.lease_id,
            "request": request,
            "origin": "variant",
            "pending_request": None,
            "notices": [],
            "pid": 1000 + kernel.number,
            "idle_since": None if kernel.busy else self.began - kernel.idle_s,
            **self._idle(kernel),
            "layers": ["interposer"],
            "devices": [self._kernel_device(kernel)],
        }

    def _idle(self, kernel: FleetKernel) -> dict[str, Any]:
        if self.idle_policy is None:
            return {}
        if kernel.busy or kernel.idle_s < IDLE_MINDED_S:
            return {"idle": None}
        is_kept = kernel.id in self.kept
        acts = self.idle_policy != "mark" and not is_kept
        return {
            "idle": {
                "since": self.began - kernel.idle_s,
                "policy": self.idle_policy,
                "action_at": self.began + IDLE_GRACE_S if acts else None,
                "exempt": is_kept,
            }
        }

    def _kernel_device(self, kernel: FleetKernel) -> dict[str, Any]:
        return {
            "uuid": self.uuid(kernel.gpu),
            "index": str(kernel.gpu),
            "kind": kernel.hold,
            "memory_bytes": kernel.size if kernel.hold == "reserved" else None,
            "cap_bytes": self._cap(kernel),
            "used_bytes": kernel.used(self.tick),
            "peak_bytes": int(kernel.size * min(1.0, kernel.share + 0.09)),
            "peak_kind": "exact" if kernel.gpu % 2 == 0 else "sampled",
            "utilization_percent": kernel.utilization(self.tick),
            "source": "account",
            "lost": False,
            "reasons": {},
        }

    def _without_gpu(self) -> list[dict[str, Any]]:
        notice = "The kernel runs on the CPU, because there is no GPU 7; there is 0 (NVIDIA A100), 1 (NVIDIA A100)."
        return [
            {
                "kernel_id": f"ffff{number:04x}-0000-4000-8000-000000000000",
                "name": "python3",
                "label": f"notes{number or ''}.ipynb",
                "path": f"notes{number or ''}.ipynb",
                "type": "notebook",
                "execution_state": "idle",
                "state": "problem" if number == 1 else "cpu",
                "lease_id": None,
                "request": "cpu",
                "origin": "variant",
                "pending_request": "1:8GiB" if number == 2 else None,
                "notices": [notice] if number == 1 else [],
                "pid": 900 + number,
                "idle_since": self.began - 500,
                **({} if self.idle_policy is None else {"idle": None}),
                "layers": [],
                "devices": [],
            }
            for number in range(self.without_gpu)
        ]
