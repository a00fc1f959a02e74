"""Kernels, servers and askers killed at random moments of three hundred kernel life cycles on one ledger."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from light_kernels import BARE, QUICK_RESTARTER, install_light_kernel, processes_of
from live_server import LiveServer, live_server
from until import until

from jupyter_gpu.devices.processes import ProcessKey, is_alive, process_key, processes_with
from jupyter_gpu.leases.lease import Lease, LeaseState
from jupyter_gpu.leases.ledger import Ledger
from jupyter_gpu.leases.request import Hold

GIB = 1 << 30
DEVICE_BYTES = 40 * GIB
SEED = 20140817
WORKERS = 5
ASKED_FOR = "3:all"
"""Only those whose asker is killed ask for this one, so that they wait for each other and for nobody else."""
REQUESTS = {"shared": "auto", "reserved": "auto:6GiB", "first": "0:9GiB", "pair": "0:2GiB,1:16GiB", "whole": "2:all"}
PLAN = Counter({"nothing": 172, "kernel": 108, "asker": 8, "asking server": 2, "server": 5, "both": 5})
REAL = "python3"
SERVER = "CYCLES_SERVER"
"""The variable that all processes of a server have, each with the server's root directory."""


@dataclass(frozen=True)
class Cycle:
    """What is to happen to one kernel."""

    number: int
    server: int
    spec: str
    fault: str
    delay_s: float
    restarts: bool

    @property
    def notebook(self) -> str:
        return f"cycle-{self.number}.ipynb"


def planned(seed: int) -> list[Cycle]:
    """The same three hundred for the same seed."""
    chance = random.Random(seed)
    faults = list(PLAN.elements())
    chance.shuffle(faults)
    return [
        Cycle(
            number=number,
            server=chance.randrange(2),
            spec="asked" if fault.startswith("ask") else REAL if number % 50 == 7 else chance.choice(list(REQUESTS)),
            fault=fault,
            delay_s=chance.uniform(0, 0.3),
            restarts=chance.random() < 0.3,
        )
        for number, fault in enumerate(faults)
    ]


class Place:
    """Where a server runs, or the next one after it was killed."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, name
        self._stack = ExitStack()
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._killed: list[LiveServer] = []
        self.server = self._start()

    def _start(self) -> LiveServer:
        root = self._directory / f"{self._name}{next(self._numbers)}"
        return self._stack.enter_context(live_server(root, *QUICK_RESTARTER, *BARE, environment={SERVER: str(root)}))

    def kill(self, and_then: Callable[[LiveServer], None]) -> None:
        """Kill the server, see to what it leaves, and have another take its place."""
        with self._lock:
            killed = self.server
            self._killed.append(killed)
            killed.process.kill()
            killed.process.wait()
            and_then(killed)
            self.server = self._start()

    @contextlib.contextmanager
    def talk(self) -> Iterator[LiveServer]:
        """The server. Whatever goes wrong is no fault of its own if it was killed meanwhile."""
        with self._lock:
            server = self.server
        try:
            yield server
        except (OSError, HTTPException, AssertionError):
            if server not in self._killed:
                raise

    def close(self) -> None:
        self._stack.close()


class Watch:
    """Looks at the ledger from a process of its own, all the time, and at whether the servers answer."""

    def __init__(self, ledger: Ledger, places: list[Place]) -> None:
        self._ledger, self._places = ledger, places
        self._stop = threading.Event()
        self.looks = self.answers = 0
        self.slowest_s = 0.0
        self.failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._guard, args=(self._look,)),
            *(threading.Thread(target=self._guard, args=(self._ask, place)) for place in places),
        ]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _guard(self, step: Callable[..., None], *args: Any) -> None:
        while not self._stop.wait(0.1) and not self.failures:
            try:
                step(*args)
            except BaseException as error:  # noqa: BLE001 - the test raises it
                self.failures.append(f"{type(error).__name__}: {error}")

    def _look(self) -> None:
        before = list(processes_of(self._ledger.store.directory))
        self._ledger.drop_dead()
        leases = self._ledger.leases()
        self.looks += 1
        self.failures += too_much(leases)
        known = {lease.id for lease in leases}
        for key, lease_id, path in before:
            if lease_id not in known and is_alive(key):
                servers = [process_key(place.server.process.pid) for place in self._places]
                rows = [lease for lease, _ in self._ledger.store.rows() if lease.id == lease_id]
                self.failures.append(f"{path or key} runs without its lease {lease_id}: {rows}, {key}, {servers}")

    def _ask(self, place: Place) -> None:
        with place.talk() as server:
            for path in ("api", "gpu/api/status", "gpu/api/devices", "gpu/api/kernels"):
                begin = time.monotonic()
                server.get(path)
                self.slowest_s = max(self.slowest_s, time.monotonic() - begin)
                self.answers += 1


def too_much(leases: list[Lease]) -> list[str]:
    """What is given away twice."""
    found = []
    held = [(lease, hold) for lease in leases if lease.state is LeaseState.HELD for hold in lease.holds]
    for uuid in {hold.uuid for _, hold in held}:
        there = [(lease, hold) for lease, hold in held if hold.uuid == uuid]
        if sum(hold.bytes or 0 for _, hold in there) > DEVICE_BYTES:
            found.append(f"more of {uuid} is reserved than there is: {there}")
        if len(there) > 1 and any(hold.hold is Hold.WHOLE for _, hold in there):
            found.append(f"{uuid} is held whole and not alone: {there}")
    return found


class Fleet:
    """Two servers on one ledger, and a killer."""

    def __init__(self, directory: Path, ledger: Ledger) -> None:
        self.directory, self.ledger = directory, ledger
        self.places = [Place(directory, name) for name in ("a", "b")]
        self.done: Counter[str] = Counter()
        self._count_lock = threading.Lock()
        self._failed = False

    def close(self) -> None:
        for place in self.places:
            place.close()

    def count(self, what: str) -> None:
        with self._count_lock:
            self.done[what] += 1

    def live(self, cycle: Cycle) -> None:
        """One kernel's life, however it ends; nothing any more once the test has failed."""
        if self._failed:
            return
        try:
            self._live(cycle)
        except BaseException:
            self._failed = True
            raise

    def _live(self, cycle: Cycle) -> None:
        strike = {"kernel": self._kill_kernel, "server": self._kill_server, "both": self._kill_both}.get(cycle.fault)
        with ThreadPoolExecutor(1) as pool:
            struck = pool.submit(strike, cycle) if strike else None
            lived = False
            while not lived:
                with self.places[cycle.server].talk() as server:
                    self._live_on(server, cycle)
                    lived = True
                # Whose server is killed by another cycle has had a life all the same, but for those still to be killed.
                lived = lived or not cycle.fault.startswith("ask")
            if struck is not None:
                struck.result()
        self.count(cycle.fault)

    def _live_on(self, server: LiveServer, cycle: Cycle) -> None:
        kernel_id = self._start(server, cycle)
        if cycle.fault == "asker":
            self._kill_asker(server, cycle)
        elif cycle.fault == "asking server":
            self._kill_asking_server(server, cycle)
        if cycle.restarts:
            # It fails where the kernel is killed, or is given a port meanwhile that another server's kernel has.
            assert server.send("POST", f"api/kernels/{kernel_id}/restart")[0] in (200, 500)
        if cycle.fault == "nothing":
            kernel = server.get(f"gpu/api/kernels/{kernel_id}")
            assert kernel["state"] == "running", kernel
            assert kernel["notices"] == [], kernel
            self.count("lived")
        time.sleep(cycle.delay_s)
        self._insist(server, "DELETE", f"api/kernels/{kernel_id}")

    @staticmethod
    def _start(server: LiveServer, cycle: Cycle) -> str:
        """The id of the kernel that a new session has."""
        notebook = {"path": cycle.notebook, "name": cycle.notebook, "type": "notebook", "kernel": {"name": cycle.spec}}
        status, answer = server.send("POST", "api/sessions", notebook)
        if status == 201:
            return str(answer["kernel"]["id"])
        # Jupyter does not expect that a kernel is started again while its start is still being answered.
        assert (status, answer["message"]) == (500, "Exception is not set."), answer
        table = server.get("gpu/api/kernels")
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
        [kernel_id] = [row["kernel_id"] for row in rows if row["label"] == cycle.notebook]
        return str(kernel_id)

    @staticmethod
    def _insist(server: LiveServer, method: str, path: str) -> None:
        """Send it until it is done. The server refuses while it is starting the kernel again by itself."""
        until(lambda: server.send(method, path)[0] in (200, 204, 404))

    def _process(self, cycle: Cycle) -> ProcessKey | None:
        """The process of the cycle's kernel, if there is one before long."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            for key, _, path in processes_of(self.ledger.store.directory):
                if path.endswith(f"/{cycle.notebook}"):
                    return key
            time.sleep(0.01)
        return None

    def _kill_kernel(self, cycle: Cycle) -> None:
        key = self._process(cycle)
        time.sleep(cycle.delay_s)
        if key is not None and self._strike(key):
            self.count("killed kernels")

    def _kill_server(self, cycle: Cycle) -> None:
        time.sleep(cycle.delay_s)
        self.places[cycle.server].kill(self._see_to_orphans)
        self.count("killed servers")

    def _kill_both(self, cycle: Cycle) -> None:
        key = self._process(cycle)
        time.sleep(cycle.delay_s)

        def and_kernel(server: LiveServer) -> None:
            if key is not None and self._strike(key):
                self.count("killed kernels")
            self._see_to_orphans(server)

        self.places[cycle.server].kill(and_kernel)
        self.count("killed servers")

    def _see_to_orphans(self, server: LiveServer) -> None:
        """Kill the kernels that a killed server left. The watch has seen to it that they kept their leases so far."""

        def none_is_left() -> bool:
            # One that was about to become a kernel's process is none yet.
            kernels = {key for key, _, _ in processes_of(self.ledger.store.directory)}
            left = processes_with(SERVER, str(server.root))
            for key in kernels.intersection(left):
                if self._strike(key):
                    self.count("killed orphans")
            return not left

        until(none_is_left)

    def _kill_asker(self, server: LiveServer, cycle: Cycle) -> None:
        """Kill a command that waits for what the cycle's kernel holds."""
        label = f"echo {cycle.notebook}"
        command = [sys.executable, "-m", "jupyter", "gpu", "run", "--gpu", ASKED_FOR, "--", *label.split()]
        asker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(lambda: label in waiting(server))
            time.sleep(cycle.delay_s)
        finally:
            asker.kill()
            asker.wait()
        until(lambda: label not in waiting(server))
        self.count("killed askers")

    def _kill_asking_server(self, server: LiveServer, cycle: Cycle) -> None:
        """Kill the other server while a start there waits for what the cycle's kernel holds."""
        label = f"other-{cycle.notebook}"
        place = self.places[1 - cycle.server]

        def ask() -> None:
            with place.talk() as other:
                other.start_session(label, cycle.spec)

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask)
            until(lambda: label in waiting(server))
            time.sleep(cycle.delay_s)
            place.kill(self._see_to_orphans)
            asking.result()
        until(lambda: label not in waiting(server))
        self.count("killed servers")
        self.count("killed askers")

    @staticmethod
    def _strike(key: ProcessKey) -> bool:
        if process_key(key.pid) != key:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(key.pid, signal.SIGKILL)
            return True
        return False


def waiting(server: LiveServer) -> list[str]:
    """The names of those that wait."""
    return [entry["label"] for entry in server.get("gpu/api/queue")["entries"]]


def is_free(server: LiveServer) -> bool:
    """Whether nobody holds or uses any GPU."""
    devices = server.get("gpu/api/devices")["devices"]
    return [(each["reserved_bytes"], each["memory_used_bytes"], each["leases"]) for each in devices] == [(0, 0, [])] * 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_lease_is_lost_left_or_given_twice_whoever_is_killed_when(
    tmp_path: Path, simulated_gpus: str, runtime_directory: Path
) -> None:
    data = tmp_path / "data"
    for name, request in REQUESTS.items():
        install_light_kernel(data, name, request, takes="1GiB")
    install_light_kernel(data, "asked", ASKED_FOR)
    ledger = Ledger(runtime_directory)
    fleet = Fleet(tmp_path, ledger)
    try:
        with Watch(ledger, fleet.places) as watch, ThreadPoolExecutor(WORKERS) as pool:
            for _ in pool.map(fleet.live, planned(SEED)):
                pass
        assert watch.failures == []
        print(f"{dict(fleet.done)}, {watch.looks} looks at the ledger, slowest answer {watch.slowest_s:.2f} s")
        assert {fault: fleet.done[fault] for fault in PLAN} == PLAN
        # Whose server is killed by another cycle at the wrong moment does it once more.
        assert fleet.done["killed servers"] >= PLAN["server"] + PLAN["both"] + PLAN["asking server"]
        assert fleet.done["killed askers"] >= PLAN["asker"] + PLAN["asking server"]
        assert fleet.done["killed kernels"] > PLAN["kernel"] // 2

        servers = [place.server for place in fleet.places]
        until(lambda: not list(processes_of(runtime_directory)))
        for server in servers:
            # Accounts are put in order when something changes.
            server.end_session(server.start_session("last.ipynb", "shared"))
        assert ledger.leases() == ledger.store.rows() == []
        assert list((runtime_directory / "accounts").iterdir()) == []
        assert len(list(runtime_directory.glob("server-*.sock"))) == len(servers)
        for server in servers:
            assert server.get("api/kernels") == []
            assert waiting(server) == []
            # What another server has done is known a moment later.
            until(functools.partial(is_free, server))
    finally:
        fleet.close()
        ledger.close()
