"""A busy host: eight GPUs of the stand-in, sixty-four kernels with a lease and a real process each."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

from nvml_stand_in import NVMLStandIn, StandInProcess

from jupyter_gpu.devices.nvml import NVMLBackend
from jupyter_gpu.devices.processes import process_key
from jupyter_gpu.host import GPUHost
from jupyter_gpu.leases.lease import Ask, Lease, Origin, Owner

GIB = 1 << 30


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

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
