"""Real processes with leases, and a pair of eyes on them."""

from __future__ import annotations

import os
import subprocess
import uuid

from jupyter_gpu.devices.processes import ProcessKey, environment_block, process_key
from jupyter_gpu.host import GPUHost
from jupyter_gpu.leases.lease import Ask, Lease, Origin, Owner
from jupyter_gpu.usage.observer import Observer
from jupyter_gpu.usage.snapshot import Snapshot


class Processes:
    """Real processes. Each line that a program prints is the pid of one that it started."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []
        self._others: list[ProcessKey] = []

    def start(self, *command: str, **options: object) -> ProcessKey:
        """A process, which does nothing if no command is given."""
        process = subprocess.Popen(command or ("sleep", "600"), stdin=subprocess.DEVNULL, text=True, **options)  # type: ignore[call-overload]
        self._started.append(process)
        key = process_key(process.pid)
        assert key is not None
        while options.get("env") != {} and not environment_block(process.pid):
            os.sched_yield()  # it is still becoming the program that it was started as
        return key

    def tree(self, script: str, children: int = 1, **options: object) -> list[ProcessKey]:
        """A shell that runs `script`, and the `children` whose pids it prints."""
        process = subprocess.Popen(
            ["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, **options
        )  # type: ignore[call-overload]
        self._started.append(process)
        assert process.stdout is not None
        keys = [process_key(process.pid)]
        keys += [process_key(int(process.stdout.readline())) for _ in range(children)]
        found = [key for key in keys if key is not None]
        assert len(found) == 1 + children
        self._others += found[1:]
        return found

    def end(self, key: ProcessKey) -> None:
        """Kill one of them, and wait until it is gone."""
        subprocess.run(["kill", "-9", str(key.pid)], check=False)
        for process in self._started:
            if process.pid == key.pid:
                process.wait()

    def close(self) -> None:
        for key in self._others:
            if process_key(key.pid) == key:
                subprocess.run(["kill", "-9", str(key.pid)], check=False)
        for process in self._started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def take_lease(
    host: GPUHost, request: str, process: ProcessKey | None = None, label: str = "a.ipynb", kernel_id: str | None = None
) -> Lease:
    """A granted lease of a kernel that is `process`."""
    owner = Owner("kernel", label, kernel_id or str(uuid.uuid4()), label)
    ask = Ask(str(uuid.uuid4()), request, Origin.API, owner, host.process, wait=False)
    lease = host.ask_now(ask)
    assert isinstance(lease, Lease), lease
    return lease if process is None else host.ledger.start(lease.id, process)


class Eyes:
    """Looks at a host again and again, as the sampler does."""

    def __init__(self, host: GPUHost) -> None:
        self.host = host
        self.observer = Observer(host)

    def look(self) -> Snapshot:
        """The host now."""
        return self.observer.observe(self.host.look_now())
