"""Whose use it is: real processes and leases, on the real pynvml over the NVML stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from crowd import Crowd
from nvml_stand_in import NO_PERMISSION, NOT_SUPPORTED, NVMLStandIn
from observation import Eyes, Processes, take_lease

from jupyter_gpu.devices.processes import ProcessKey, process_key
from jupyter_gpu.host import GPUHost
from jupyter_gpu.limits.account_file import AccountDevice
from jupyter_gpu.server.models import devices_model
from jupyter_gpu.usage.attribution import ACCOUNT, NVML, LeaseUse
from jupyter_gpu.usage.snapshot import Snapshot

GIB = 1 << 30
LOOKS = Callable[[GPUHost], Eyes]
_ALLOCATES = """
import pathlib, sys
from jupyter_gpu.limits.account import Account
account = Account.open(pathlib.Path(sys.argv[1]))
account.allocate(account.uuids[0], int(sys.argv[2]))
print(flush=True)
sys.stdin.read()
"""


def use_of(snapshot: Snapshot) -> LeaseUse:
    [use] = snapshot.uses.values()
    return use


def foreign_pids(snapshot: Snapshot, uuid: str) -> list[int]:
    return [process.pid for process in snapshot.foreign_on(uuid)]


@pytest.fixture
def gpu(stand_in: NVMLStandIn) -> str:
    return stand_in.add_gpu()


@pytest.fixture
def allocator() -> object:
    """A process that notes an allocation in an account, as the interposer does, and waits."""
    started: list[subprocess.Popen[bytes]] = []

    def start(account: Path, size: int) -> ProcessKey:
        process = subprocess.Popen(
            [sys.executable, "-c", _ALLOCATES, str(account), str(size)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        key = process_key(process.pid)
        assert key is not None
        return key

    yield start
    for process in started:
        process.kill()
        process.communicate()


class TestProcessTree:
    def test_memory_and_utilisation_are_those_of_the_whole_tree(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        kernel, child, grandchild = processes.tree("sh -c 'echo $$; sleep 600 & echo $!; wait' & wait", children=2)
        take_lease(nvml_host, "0:20GiB", kernel)
        for process, size, percent in ((kernel, 1, 10), (child, 2, 20), (grandchild, 4, 30)):
            stand_in.add_process(gpu, process.pid, size * GIB, utilization=percent)
        snapshot = eyes(nvml_host).look()
        assert use_of(snapshot)[:3] == (7 * GIB, "nvml", 60.0)
        assert foreign_pids(snapshot, gpu) == []
        assert snapshot.states[gpu].foreign_bytes == 0

    def test_a_reparented_worker_counts_by_the_lease_in_its_environment(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        kernel = processes.start()
        lease = take_lease(nvml_host, "0:20GiB", kernel)
        launcher, worker = processes.tree(
            "sleep 600 > /dev/null & echo $!; wait", env={**os.environ, "JUPYTER_GPU_LEASE": lease.id}
        )
        processes.end(launcher)
        stand_in.add_process(gpu, kernel.pid, GIB)
        stand_in.add_process(gpu, worker.pid, 2 * GIB)
        assert use_of(eyes(nvml_host).look()).used_bytes == 3 * GIB

    def test_a_worker_that_loses_its_parent_while_watched_stays_its_kernels(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        kernel, parent, worker = processes.tree("sh -c 'echo $$; sleep 600 & echo $!; wait' & wait", children=2)
        take_lease(nvml_host, "0:20GiB", kernel)
        stand_in.add_process(gpu, worker.pid, 2 * GIB)
        looks = eyes(nvml_host)
        assert use_of(looks.look()).used_bytes == 2 * GIB
        subprocess.run(["kill", "-9", str(parent.pid)], check=True)
        assert use_of(looks.look()).used_bytes == 2 * GIB

    def test_a_process_of_nobodys_is_foreign_and_a_lease_that_ended_owns_nothing(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        stranger = processes.start(env={**os.environ, "JUPYTER_GPU_LEASE": "one-that-ended"})
        take_lease(nvml_host, "0", processes.start())
        stand_in.add_process(gpu, stranger.pid, 2 * GIB)
        snapshot = eyes(nvml_host).look()
        assert use_of(snapshot)[:3] == (0, "nvml", 0.0)
        assert foreign_pids(snapshot, gpu) == [stranger.pid]
        assert snapshot.states[gpu].foreign_bytes == 2 * GIB

    def test_names_are_told_of_the_users_own_processes_only(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        own = processes.start()
        others_pid = processes.start(user=65534).pid if os.getuid() == 0 else 1
        stand_in.add_process(gpu, own.pid, GIB)
        stand_in.add_process(gpu, others_pid, GIB)
        names = {process.pid: process.name for process in eyes(nvml_host).look().foreign_on(gpu)}
        assert names == {own.pid: "sleep", others_pid: None}


class TestPidReuse:
    def test_a_process_with_the_pid_of_a_kernel_that_ended_is_not_the_kernel(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        other = processes.start()
        before = ProcessKey(other.pid, other.start_time - 1)
        take_lease(nvml_host, "0:20GiB", before)
        stand_in.add_process(gpu, other.pid, 2 * GIB)
        snapshot = eyes(nvml_host).look()
        assert foreign_pids(snapshot, gpu) == [other.pid]
        assert [use.used_bytes for use in snapshot.uses.values()] == [0]

    def test_a_pid_that_another_process_has_meanwhile_is_looked_up_anew(self, tmp_path: Path) -> None:
        # In a pid namespace of its own a process may say which pid Linux gives out next, and harms nobody.
        command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
        if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
            pytest.skip("no pid namespace can be made here")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        done = subprocess.run(
            [*command, sys.executable, "-c", _REUSES_A_PID, str(tmp_path)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(2 * GIB), "0", "foreign"]


_REUSES_A_PID = """
import pathlib, sys
from nvml_stand_in import NVMLStandIn
from observation import Eyes, Processes, take_lease
from jupyter_gpu.devices.nvml import NVMLBackend
from jupyter_gpu.host import GPUHost

stand_in = NVMLStandIn(pathlib.Path(sys.argv[1]) / "state")
stand_in.load()
gpu = stand_in.add_gpu()
host = GPUHost(backend_class=NVMLBackend)
processes, eyes = Processes(), Eyes(host)

def used():
    snapshot = eyes.look()
    return sum(use.used_bytes or 0 for use in snapshot.uses.values()), snapshot.foreign_on(gpu)

worker = processes.start()
take_lease(host, "0:20GiB", worker)
stand_in.add_process(gpu, worker.pid, 2 << 30)
print(used()[0])
processes.end(worker)
pathlib.Path("/proc/sys/kernel/ns_last_pid").write_text(str(worker.pid - 1))
again = processes.start()
assert again.pid == worker.pid, (again, worker)
size, [foreign] = used()
print(size, "foreign" if foreign.pid == again.pid else foreign)
processes.close()
"""


class TestWhatTheDriverDoesNotTell:
    def test_a_lost_gpu_says_so_and_the_others_go_on(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        second = stand_in.add_gpu()
        lost, well = processes.start(), processes.start()
        lease = take_lease(nvml_host, "0:20GiB", lost)
        take_lease(nvml_host, "1:20GiB", well)
        stand_in.add_process(gpu, lost.pid, GIB)
        stand_in.add_process(second, well.pid, 3 * GIB)
        looks = eyes(nvml_host)
        looks.look()
        stand_in.lose(gpu)
        snapshot = looks.look()
        assert snapshot.is_lost(gpu)
        assert not snapshot.is_lost(second)
        use = snapshot.uses[lease.id, gpu]
        assert (use.used_bytes, use.utilization_percent) == (None, None)
        assert "lost" in use.reasons["used_bytes"]
        assert sorted(use.used_bytes or 0 for use in snapshot.uses.values()) == [0, 3 * GIB]
        stand_in.found(gpu)

    def test_without_permission_for_the_list_of_processes_use_is_unknown_and_says_why(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        stand_in.set(gpu, used_bytes=5 * GIB)
        stand_in.fail("nvmlDeviceGetComputeRunningProcesses_v3", NO_PERMISSION)
        take_lease(nvml_host, "0:20GiB", processes.start())
        snapshot = eyes(nvml_host).look()
        use = use_of(snapshot)
        assert (use.used_bytes, use.source) == (None, None)
        assert use.reasons["used_bytes"] == (
            "The list of processes is unknown: the driver tells it to administrators only."
        )
        [device] = devices_model(snapshot, simulated=False)["devices"]
        assert device["memory_used_bytes"] == 5 * GIB
        assert device["foreign_bytes"] == 5 * GIB, "what is nobody's own counts as taken"

    def test_an_empty_list_of_processes_is_not_believed_where_memory_is_in_use(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        stand_in.set(gpu, used_bytes=5 * GIB)
        take_lease(nvml_host, "0", processes.start())
        looks = eyes(nvml_host)
        snapshot = looks.look()
        use = use_of(snapshot)
        assert (use.used_bytes, use.source, use.utilization_percent) == (None, None, None)
        assert "lists no process" in use.reasons["used_bytes"]
        assert "lists no process" in use.reasons["utilization_percent"]
        assert snapshot.states[gpu].foreign_bytes == 5 * GIB, "it could not be reserved"
        stand_in.set(gpu, used_bytes=4 << 20)
        use = use_of(looks.look())
        assert (use.used_bytes, use.source, use.utilization_percent) == (0, "nvml", 0.0)

    def test_under_mig_an_instance_of_ones_own_tells_what_is_used(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        instances = [stand_in.add_instance(gpu, used_bytes=size * GIB) for size in (1, 3)]
        kernels = [processes.start(), processes.start()]
        leases = [take_lease(nvml_host, f"0.{n}", kernel) for n, kernel in enumerate(kernels)]
        for instance, kernel in zip(instances, kernels, strict=True):
            stand_in.add_process(instance, kernel.pid, None)
        snapshot = eyes(nvml_host).look()
        for lease, instance, size in zip(leases, instances, (1, 3), strict=True):
            use = snapshot.uses[lease.id, instance]
            assert (use.used_bytes, use.source) == (size * GIB, "device")
            assert use.utilization_percent is None
            assert "utilisation by process" in use.reasons["utilization_percent"]

    def test_under_mig_a_shared_instance_tells_nobody_apart(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        instance = stand_in.add_instance(gpu, used_bytes=3 * GIB)
        for _ in range(2):
            kernel = processes.start()
            take_lease(nvml_host, "0.0", kernel)
            stand_in.add_process(instance, kernel.pid, None)
        for use in eyes(nvml_host).look().uses.values():
            assert (use.used_bytes, use.source) == (None, None)
            assert "several share it" in use.reasons["used_bytes"]

    def test_gpus_that_share_the_hosts_memory_have_the_use_of_their_processes(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        stand_in.fail("nvmlDeviceGetMemoryInfo", NOT_SUPPORTED)
        stand_in.fail("nvmlDeviceGetMemoryInfo_v2", NOT_SUPPORTED)
        kernel = processes.start()
        take_lease(nvml_host, "0", kernel)
        stand_in.add_process(gpu, kernel.pid, 2 * GIB)
        stand_in.add_process(gpu, processes.start().pid, GIB)
        snapshot = eyes(nvml_host).look()
        assert use_of(snapshot)[:2] == (2 * GIB, "nvml")
        [device] = devices_model(snapshot, simulated=False)["devices"]
        assert (device["memory_used_bytes"], device["memory_source"]) == (3 * GIB, "processes")
        assert "share the host's memory" in device["reasons"]["memory_used_bytes"]


class TestPidsOfAnotherNamespace:
    """A container sees the driver's pids, and none of them is a process that it knows."""

    HIDDEN = 4194301
    """Above any pid that this host gives out by itself."""

    @pytest.fixture(autouse=True)
    def _nobody_has_it(self) -> None:
        assert process_key(self.HIDDEN) is None

    def test_use_is_unknown_and_says_what_to_do(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        take_lease(nvml_host, "0", processes.start())
        stand_in.add_process(gpu, self.HIDDEN, 2 * GIB, utilization=50)
        use = use_of(eyes(nvml_host).look())
        assert (use.used_bytes, use.source, use.utilization_percent) == (None, None, None)
        assert "--pid=host" in use.reasons["used_bytes"]
        assert "--pid=host" in use.reasons["utilization_percent"]

    def test_what_an_account_counts_is_told_instead_and_is_not_foreign(
        self,
        nvml_host: GPUHost,
        stand_in: NVMLStandIn,
        gpu: str,
        processes: Processes,
        eyes: LOOKS,
        allocator: Callable[[Path, int], ProcessKey],
    ) -> None:
        lease = take_lease(nvml_host, "0:20GiB", processes.start())
        allocator(nvml_host.accounts.path(lease.id), 2 * GIB)
        stand_in.add_process(gpu, self.HIDDEN, 2 * GIB)
        looks = eyes(nvml_host)
        snapshot = looks.look()
        assert use_of(snapshot)[:2] == (2 * GIB, "account")
        assert snapshot.states[gpu].foreign_bytes == 0
        assert foreign_pids(snapshot, gpu) == [], "it may be the kernel itself"
        stand_in.add_process(gpu, self.HIDDEN + 1, 7 * GIB)
        snapshot = looks.look()
        assert snapshot.states[gpu].foreign_bytes == 7 * GIB
        assert {process.name for process in snapshot.foreign_on(gpu)} == {None}

    def test_a_number_that_is_a_process_here_too_is_not_taken_for_it(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        nvml_host.kinship.other_namespace = True
        kernel = processes.start()
        take_lease(nvml_host, "0", kernel)
        stand_in.add_process(gpu, kernel.pid, 2 * GIB)
        looks = eyes(nvml_host)
        assert use_of(looks.look()).used_bytes == 2 * GIB, "all are known, so the driver counts as this container does"
        stand_in.add_process(gpu, self.HIDDEN, 2 * GIB)
        assert use_of(looks.look()).used_bytes is None, "it has no GPU open, so the number is another's"


class TestAccounts:
    def test_the_larger_of_what_is_seen_and_what_is_counted_is_told(
        self,
        nvml_host: GPUHost,
        stand_in: NVMLStandIn,
        gpu: str,
        eyes: LOOKS,
        processes: Processes,
        allocator: Callable[[Path, int], ProcessKey],
    ) -> None:
        lease = take_lease(nvml_host, "0:20GiB", processes.start())
        worker = allocator(nvml_host.accounts.path(lease.id), 3 * GIB)
        nvml_host.ledger.start(lease.id, worker)
        stand_in.add_process(gpu, worker.pid, 2 * GIB)
        looks = eyes(nvml_host)
        assert use_of(looks.look())[:2] == (3 * GIB, "account"), "an allocation may be younger than the driver's list"
        stand_in.remove_process(gpu, worker.pid)
        stand_in.add_process(gpu, worker.pid, 4 * GIB)
        assert use_of(looks.look())[:2] == (4 * GIB, "nvml"), "the driver counts its own contexts too"

    def test_what_a_process_held_goes_with_it(
        self, nvml_host: GPUHost, gpu: str, eyes: LOOKS, processes: Processes, allocator: Callable[..., ProcessKey]
    ) -> None:
        lease = take_lease(nvml_host, "0:20GiB", processes.start())
        worker = allocator(nvml_host.accounts.path(lease.id), 3 * GIB)
        looks = eyes(nvml_host)
        assert use_of(looks.look())[:2] == (3 * GIB, "account")
        subprocess.run(["kill", "-9", str(worker.pid)], check=True)
        _until_gone(worker)
        assert use_of(looks.look())[:2] == (0, "nvml")

    def test_a_changed_cap_is_told_at_once(
        self, nvml_host: GPUHost, gpu: str, eyes: LOOKS, processes: Processes
    ) -> None:
        lease = take_lease(nvml_host, "0:20GiB", processes.start())
        looks = eyes(nvml_host)
        assert looks.look().caps[lease.id, gpu] == 20 * GIB
        take_lease(nvml_host, "0", processes.start())
        caps = looks.look().caps
        assert sorted(caps.values()) == [20 * GIB, 20 * GIB], "a shared lease has what is not reserved"


def _until_gone(key: ProcessKey) -> None:
    # It is this process's child, and a zombie has ended as far as memory goes.
    while process_key(key.pid) == key:
        os.sched_yield()


class TestPeaks:
    def test_without_an_account_that_counts_the_peak_is_the_most_of_all_samples(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        kernel = processes.start()
        lease = take_lease(nvml_host, "0:20GiB", kernel)
        looks = eyes(nvml_host)
        for size in (2, 5, 3):
            stand_in.remove_process(gpu, kernel.pid)
            stand_in.add_process(gpu, kernel.pid, size * GIB)
            snapshot = looks.look()
        assert snapshot.marks[lease.id, gpu] == (5 * GIB, "sampled")

    def test_an_account_that_counts_has_the_exact_peak(
        self, nvml_host: GPUHost, gpu: str, eyes: LOOKS, processes: Processes, allocator: Callable[..., ProcessKey]
    ) -> None:
        lease = take_lease(nvml_host, "0:20GiB", processes.start())
        allocator(nvml_host.accounts.path(lease.id), 3 * GIB)
        assert eyes(nvml_host).look().marks[lease.id, gpu] == (3 * GIB, "exact")

    def test_a_peak_begins_anew_with_the_kernels_process(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        first, second = processes.start(), processes.start()
        lease = take_lease(nvml_host, "0:20GiB", first)
        stand_in.add_process(gpu, first.pid, 5 * GIB)
        looks = eyes(nvml_host)
        looks.look()
        stand_in.remove_process(gpu, first.pid)
        stand_in.add_process(gpu, second.pid, GIB)
        nvml_host.ledger.start(lease.id, second)
        assert looks.look().marks[lease.id, gpu] == (GIB, "sampled")

    def test_the_last_time_it_kept_the_gpu_busy_is_remembered(
        self, nvml_host: GPUHost, stand_in: NVMLStandIn, gpu: str, processes: Processes, eyes: LOOKS
    ) -> None:
        kernel = processes.start()
        lease = take_lease(nvml_host, "0:20GiB", kernel)
        looks = eyes(nvml_host)
        assert looks.look().busy_at == {}
        stand_in.add_process(gpu, kernel.pid, GIB, utilization=40)
        busy = looks.look()
        assert busy.busy_at == {(lease.id, gpu): busy.time}
        stand_in.remove_process(gpu, kernel.pid)
        stand_in.add_process(gpu, kernel.pid, GIB)
        idle = looks.look()
        assert idle.busy_at == {(lease.id, gpu): busy.time}
        assert busy.time < idle.time


def test_sixty_four_kernels_on_eight_gpus_are_told_apart(tmp_path: Path, eyes: LOOKS) -> None:
    crowd = Crowd(tmp_path)
    crowd.stand_in.load()
    host = crowd.host()
    try:
        crowd.lease_all(host)
        snapshot = eyes(host).look()
        by_kernel = {
            snapshot.lease_of[lease_id].owner.kernel_id: (uuid, use.used_bytes, use.utilization_percent)
            for (lease_id, uuid), use in snapshot.uses.items()
        }
        assert by_kernel == {
            kernel_id: (crowd.uuids[number % 8], GIB + number, 20.0)
            for number, kernel_id in enumerate(crowd.kernel_ids)
        }
        assert [snapshot.foreign_on(uuid) for uuid in crowd.uuids] == [[]] * 8
    finally:
        host.close()
        crowd.close()


class TestPassingTheCap:
    """Nobody is above a cap because of what the driver takes for itself."""

    CAP = 4 * GIB

    def use(self, used: int, source: str = NVML, counted: int | None = None, overhead: int = 0) -> LeaseUse:
        account = None
        if counted is not None:
            account = AccountDevice("GPU-1", self.CAP, 40 * GIB, counted, counted, 0, 0, 0, overhead, 0)
        return LeaseUse(used, source, account=account, counted=counted is not None)

    def test_what_is_counted_is_known_to_the_byte(self) -> None:
        assert not self.use(self.CAP, ACCOUNT, counted=self.CAP).passes(self.CAP)
        assert self.use(self.CAP + 1, ACCOUNT, counted=self.CAP + 1).passes(self.CAP)
        assert self.use(self.CAP, NVML, counted=self.CAP - GIB, overhead=GIB + 1).passes(self.CAP)

    def test_the_drivers_figures_have_contexts_in_them(self) -> None:
        assert not self.use(self.CAP + GIB).passes(self.CAP)
        assert self.use(self.CAP + GIB + 1).passes(self.CAP)
        assert not self.use(self.CAP + GIB, counted=self.CAP).passes(self.CAP)
        assert self.use(self.CAP + GIB + 1, counted=GIB).passes(self.CAP)  # something went past the account

    def test_who_has_no_cap_or_is_not_seen_passes_none(self) -> None:
        assert not self.use(40 * GIB).passes(None)
        assert not LeaseUse().passes(self.CAP)
