"""A busy host: eight GPUs of the stand-in, sixty-four kernels with a lease and a real process each."""

from __future__ import annotations

import datetime as dt
import subprocess
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nvml_stand_in import NVMLStandIn, StandInProcess

from jupyter_gpu.devices.nvml import NVMLBackend
from jupyter_gpu.devices.processes import process_key
from jupyter_gpu.host import GPUHost
from jupyter_gpu.kernels import KernelRecord
from jupyter_gpu.leases.lease import Ask, Lease, Origin, Owner

GIB = 1 << 30


class _Kernels(dict[str, Any]):
    list_kernel_ids = dict.keys
    get_kernel = dict.__getitem__


class Crowd:
    """Real processes that end with this object's `close`, and the GPUs and leases that they have."""

    def __init__(self, directory: Path, gpus: int = 8, kernels: int = 64) -> None:
        self.stand_in = NVMLStandIn(directory / "nvml")
        self.uuids = [self.stand_in.add_gpu(utilization=30, temperature=50) for _ in range(gpus)]
        self.processes = [subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL) for _ in range(kernels)]
        for number, process in enumerate(self.processes):
            device = self.stand_in.device(self.uuids[number % gpus])
            device.processes.append(StandInProcess(process.pid, GIB + number, "compute", 20, 0.0))
        self.stand_in.write()
        self.kernel_ids = [str(uuid.uuid4()) for _ in range(kernels)]

    def lease_all(self, host: GPUHost, request: str = "{gpu}:4GiB") -> list[Lease]:
        """A lease for every process, on the GPU that it is on."""
        survey = host.look_now()
        leases = []
        for number, process in enumerate(self.processes):
            ask = Ask(
                id=str(uuid.uuid4()),
                request=request.format(gpu=number % len(self.uuids)),
                origin=Origin.NOTEBOOK,
                owner=Owner(
                    "kernel",
                    f"train-{number:02}.ipynb",
                    self.kernel_ids[number],
                    f"projects/vision/train-{number:02}.ipynb",
                ),
                asker=host.process,
                wait=False,
            )
            lease = host.ask_now(ask, survey)
            assert isinstance(lease, Lease), lease
            key = process_key(process.pid)
            assert key is not None
            leases.append(host.ledger.start(lease.id, key))
        return leases

    def host(self) -> GPUHost:
        """A host of this process, once it has loaded the stand-in."""
        return GPUHost(backend_class=NVMLBackend)

    def register(self, host: GPUHost, leases: list[Lease]) -> None:
        """Note the kernels, as the provisioner does."""
        for lease, process in zip(leases, self.processes, strict=True):
            host.kernels.add(
                KernelRecord(
                    kernel_id=lease.owner.kernel_id or "",
                    kernel_name="python3",
                    label=lease.owner.label,
                    path=lease.owner.path,
                    state="running",
                    request=lease.request,
                    origin=Origin.NOTEBOOK,
                    lease_id=lease.id,
                    pid=process.pid,
                    layers=("interposer", "framework", "watchdog"),
                )
            )

    def server(self) -> Any:
        """What a server says of its kernels and sessions, without sixty-four ipykernels."""
        now = dt.datetime.now(dt.timezone.utc)
        kernels = {
            kernel_id: SimpleNamespace(kernel_name="python3", execution_state="idle", last_activity=now)
            for kernel_id in self.kernel_ids
        }
        sessions = [
            {
                "kernel": {"id": kernel_id},
                "path": f"projects/vision/experiments/train-{number:02}.ipynb",
                "name": f"train-{number:02}.ipynb",
                "type": "notebook",
            }
            for number, kernel_id in enumerate(self.kernel_ids)
        ]
        return SimpleNamespace(
            kernel_manager=_Kernels(kernels), session_manager=SimpleNamespace(list_sessions=lambda: sessions)
        )

    def work(self, round_number: int) -> None:
        """Let every fourth process have other memory and be as busy or idle as it is its turn to be."""
        for number, process in enumerate(self.processes):
            if number // len(self.uuids) % 4 == round_number % 4:
                device = self.stand_in.device(self.uuids[number % len(self.uuids)])
                [there] = [each for each in device.processes if each.pid == process.pid]
                there.memory_bytes = GIB + number + round_number
                there.utilization = 5 * (round_number % 5)
        self.stand_in.write()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
