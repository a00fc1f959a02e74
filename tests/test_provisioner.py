"""Kernels get their own GPU when they start, keep it through restarts, and give it back whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.connect import LocalPortCache
from jupyter_client.ioloop import AsyncIOLoopKernelManager
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from kernel_client import environment_of, held, printed, running, until, waiting

from jupyter_gpu.devices.device import Inventory
from jupyter_gpu.devices.simulated import SimulatedBackend
from jupyter_gpu.host import GPUHost
from jupyter_gpu.leases.lease import Ask, Origin, Owner
from jupyter_gpu.leases.request import GPURequest
from jupyter_gpu.provisioner import GPUProvisioner
from jupyter_gpu.waiting import NotGranted


@pytest.fixture(autouse=True)
def gpu_provisioner(host: GPUHost) -> None:
    KernelProvisionerFactory.instance().default_provisioner_name = "gpu-provisioner"


@pytest.fixture
def uuids(host: GPUHost) -> list[str]:
    return [device.uuid for device in host.look_now().inventory.devices]


def manager(cls: type[AsyncKernelManager] = AsyncKernelManager, **spec: Any) -> AsyncKernelManager:
    """A manager of a Python kernel whose specification has some other parts."""
    made = cls(kernel_name="python3")
    content = made.kernel_spec.to_dict() if made.kernel_spec else {}
    made._kernel_spec = KernelSpec(**{**content, **spec})
    return made


def notebook(directory: Path, request: str | None, name: str = "work.ipynb") -> Path:
    path = directory / name
    metadata = {} if request is None else {"jupyter_gpu": {"request": request}}
    path.write_text(json.dumps({"cells": [], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    return path


def for_notebook(path: Path, **variables: str) -> dict[str, Any]:
    return {"env": {**os.environ, "JPY_SESSION_NAME": str(path), **variables}}


async def test_a_kernel_sees_its_device_by_full_uuid_and_no_other(host: GPUHost, uuids: list[str]) -> None:
    async with running(manager(env={"JUPYTER_GPU": "2:8GiB"})) as client:
        environment = await environment_of(client)
        [lease] = held(host)
        assert environment["CUDA_VISIBLE_DEVICES"] == uuids[2]
        assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert environment["JUPYTER_GPU_LEASE"] == lease.id
        assert Path(environment["JUPYTER_GPU_ACCOUNT"]).is_file()
        assert lease.process is not None
        assert lease.process.pid == int(await printed(client, "import os; print(os.getpid())"))
    assert host.leases_now() == []
    assert not Path(environment["JUPYTER_GPU_ACCOUNT"]).exists()


async def test_devices_are_named_by_index_if_so_configured(host: GPUHost) -> None:
    host.devices_by_index = True
    async with running(manager(env={"JUPYTER_GPU": "3,1"})) as client:
        assert (await environment_of(client))["CUDA_VISIBLE_DEVICES"] == "3,1"


async def test_a_kernel_on_the_cpu_sees_no_device(host: GPUHost) -> None:
    async with running(manager(env={"JUPYTER_GPU": "cpu"})) as client:
        assert (await environment_of(client))["CUDA_VISIBLE_DEVICES"] == "-1"
        assert [lease.holds for lease in held(host)] == [()]


@pytest.mark.parametrize(
    ("api", "variant", "in_notebook", "in_environment", "expected", "origin"),
    [
        ("0", "1", "2", "3", "0", Origin.API),
        (None, "1", "2", "3", "1", Origin.VARIANT),
        (None, None, "2", "3", "2", Origin.NOTEBOOK),
        (None, None, None, "3", "3", Origin.ENVIRONMENT),
        (None, None, None, None, "auto", Origin.DEFAULT),
    ],
)
async def test_the_first_request_that_somebody_made_counts(
    host: GPUHost,
    tmp_path: Path,
    api: str | None,
    variant: str | None,
    in_notebook: str | None,
    in_environment: str | None,
    expected: str,
    origin: Origin,
) -> None:
    metadata = {"jupyter_gpu": {"base": "python3", "request": variant}} if variant else {}
    made = manager(metadata=metadata)
    variables = {"JUPYTER_GPU": in_environment} if in_environment else {}
    launch = for_notebook(notebook(tmp_path, in_notebook), **variables)
    async with running(made, **launch):
        if api is not None:
            record = host.kernels.get(made.provisioner.kernel_id)
            assert record is not None
            record.wanted = api
            await made.restart_kernel(now=True)
        [lease] = held(host)
        assert (lease.request, lease.origin) == (expected, origin)


async def test_a_request_in_the_provisioner_stanza_is_a_variants(host: GPUHost) -> None:
    stanza = {"kernel_provisioner": {"provisioner_name": "gpu-provisioner", "config": {"request": "1:25%"}}}
    async with running(manager(metadata=stanza)):
        [lease] = held(host)
        assert (lease.request, lease.origin) == ("1:25%", Origin.VARIANT)


async def test_what_the_kernelspec_sets_itself_wins_and_is_noted(host: GPUHost) -> None:
    made = manager(env={"CUDA_VISIBLE_DEVICES": "7"})
    async with running(made) as client:
        assert (await environment_of(client))["CUDA_VISIBLE_DEVICES"] == "7"
        record = host.kernels.get(made.provisioner.kernel_id)
        assert record is not None
        assert any("CUDA_VISIBLE_DEVICES=7" in notice for notice in record.notices)


async def test_what_the_server_was_started_with_does_not_reach_the_kernel(
    host: GPUHost, uuids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.heed_cuda_visible_devices = False
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setenv("JUPYTER_GPU_LEASE", "of-somebody-else")
    monkeypatch.setenv("JUPYTER_GPU", "1")
    async with running(manager()) as client:
        environment = await environment_of(client)
        assert environment["CUDA_VISIBLE_DEVICES"] == uuids[1]
        assert environment["JUPYTER_GPU_LEASE"] != "of-somebody-else"


async def test_a_restart_keeps_the_lease(host: GPUHost) -> None:
    made = manager(env={"JUPYTER_GPU": "1:8GiB"})
    async with running(made) as client:
        [before] = held(host)
        await made.restart_kernel(now=True)
        await client.wait_for_ready(timeout=60)
        [after] = held(host)
        assert after.id == before.id
        assert after.process != before.process
        assert (await environment_of(client))["JUPYTER_GPU_LEASE"] == before.id


async def test_the_restarters_kill_keeps_the_lease(host: GPUHost) -> None:
    made = manager(AsyncIOLoopKernelManager, env={"JUPYTER_GPU": "1:8GiB"})
    async with running(made) as client:
        made._restarter.time_to_dead = 0.2
        made._restarter._pcallback.callback_time = 200
        [before] = held(host)
        assert before.process is not None
        os.kill(before.process.pid, signal.SIGKILL)
        after = await until(lambda: [lease for lease in held(host) if lease.process != before.process])
        assert [lease.id for lease in after] == [before.id]
        await client.wait_for_ready(timeout=60)


async def test_a_changed_request_takes_the_new_device_before_it_lets_go_of_the_old(
    host: GPUHost, uuids: list[str], tmp_path: Path
) -> None:
    path = notebook(tmp_path, "1:8GiB")
    made = manager()
    changes: list[list[str]] = []
    host.ledger._on_change = lambda leases: (
        host._ledger_changed(leases),
        changes.append([hold.uuid for lease in leases for hold in lease.holds]),
    )
    async with running(made, **for_notebook(path)) as client:
        notebook(tmp_path, "2:8GiB")
        await made.restart_kernel(now=True)
        await client.wait_for_ready(timeout=60)
        assert (await environment_of(client))["CUDA_VISIBLE_DEVICES"] == uuids[2]
        assert [hold.uuid for lease in held(host) for hold in lease.holds] == [uuids[2]]
    assert [uuids[1], uuids[2]] in changes
    assert changes.index([uuids[1], uuids[2]]) < changes.index([uuids[2]])


async def test_changed_memory_on_the_same_device_keeps_the_lease_through_a_restart(
    host: GPUHost, tmp_path: Path
) -> None:
    path = notebook(tmp_path, "1:8GiB")
    made = manager()
    async with running(made, **for_notebook(path)):
        [before] = held(host)
        notebook(tmp_path, "1:12GiB")
        await made.restart_kernel(now=True)
        [after] = held(host)
        assert (after.id, after.holds[0].bytes) == (before.id, 12 << 30)


async def test_a_start_that_fails_in_the_process_leaves_no_lease_and_no_ports(host: GPUHost) -> None:
    ports = set(LocalPortCache.instance().currently_used_ports)
    made = manager(argv=["/no/such/program", "{connection_file}"], env={"JUPYTER_GPU": "1:all"})
    with pytest.raises(FileNotFoundError):
        await made.start_kernel()
    assert host.leases_now() == []
    assert LocalPortCache.instance().currently_used_ports == ports
    assert list(host.kernels) == []


async def test_a_start_that_fails_before_the_process_leaves_no_lease_and_no_ports(host: GPUHost) -> None:
    ports = set(LocalPortCache.instance().currently_used_ports)
    made = manager(env={"JUPYTER_GPU": "1:all"})
    made.ip = "203.0.113.7"  # not an address of this host, which the launcher refuses
    with pytest.raises(RuntimeError, match="local interface"):
        await made.start_kernel()
    assert host.leases_now() == []
    assert LocalPortCache.instance().currently_used_ports == ports


@pytest.mark.parametrize("amid", ["its end", "its start"])
async def test_a_kernel_that_is_shut_down_amid_a_restart_does_not_come_back(
    host: GPUHost, amid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = set(LocalPortCache.instance().currently_used_ports)
    made = manager(env={"JUPYTER_GPU": "1:all"})
    await made.start_kernel()
    reached, go_on = asyncio.Event(), asyncio.Event()

    def held_up(method: Any) -> Any:
        async def step(*args: Any, **kwargs: Any) -> Any:
            result = await method(*args, **kwargs)
            if not reached.is_set():
                reached.set()
                await go_on.wait()
            return result

        return step

    if amid == "its end":
        place = (made.provisioner, "cleanup")
        go_on.set()  # The manager rests a moment after it.
    else:
        place = (host, "limit_variables")
    monkeypatch.setattr(*place, held_up(getattr(*place)))
    restart = asyncio.ensure_future(made.restart_kernel(now=True))
    await reached.wait()
    # The manager trips over two things being done at once.
    with contextlib.suppress(asyncio.InvalidStateError):
        await made.shutdown_kernel(now=True)
    go_on.set()
    with pytest.raises((NotGranted, asyncio.InvalidStateError)) as error:
        await restart
    causes = f"{error.value} {error.value.__context__}"
    assert f"The kernel {made.kernel_id} was shut down while it was being started." in causes
    assert not made.has_kernel
    assert (host.leases_now(), list(host.kernels)) == ([], [])
    assert LocalPortCache.instance().currently_used_ports == ports
    assert not Path(made.connection_file).exists()


async def test_ports_go_back_with_the_kernel(host: GPUHost) -> None:
    ports = set(LocalPortCache.instance().currently_used_ports)
    async with running(manager()):
        assert len(LocalPortCache.instance().currently_used_ports) == len(ports) + 5
    assert LocalPortCache.instance().currently_used_ports == ports


async def test_the_lease_ends_when_the_restarter_gives_up(host: GPUHost) -> None:
    made = manager(
        AsyncIOLoopKernelManager, argv=[sys.executable, "-c", "pass", "{connection_file}"], env={"JUPYTER_GPU": "1:all"}
    )
    await made.start_kernel()
    made._restarter.time_to_dead = 0.1
    made._restarter.restart_limit = 2
    made._restarter.random_ports_until_alive = False
    made._restarter._pcallback.callback_time = 100
    gave_up = asyncio.Event()
    made.add_restart_callback(gave_up.set, "dead")
    await asyncio.wait_for(gave_up.wait(), 30)
    await until(lambda: host.leases_now() == [], 10)
    assert list(host.kernels) == []


async def test_a_kernel_that_takes_anothers_place_takes_its_device_over(host: GPUHost, tmp_path: Path) -> None:
    """As PATCH /api/sessions does: the new kernel is started first, and both are for one notebook."""
    launch = for_notebook(notebook(tmp_path, "1:all"))
    old = manager()
    async with running(old, **launch):
        new = manager()
        await asyncio.wait_for(new.start_kernel(**launch), 30)
        assert len(held(host)) == 2
        await old.shutdown_kernel(now=True)
        [lease] = held(host)
        assert lease.owner.kernel_id == new.provisioner.kernel_id
        with pytest.raises(NotGranted):
            await host.acquire(ask_of(host, "1", wait=False))
        await new.shutdown_kernel(now=True)


async def test_kernels_of_different_notebooks_do_not_share_a_whole_device(host: GPUHost, tmp_path: Path) -> None:
    host.explicit_policy = "fail"
    async with running(manager(), **for_notebook(notebook(tmp_path, "1:all", "a.ipynb"))):
        with pytest.raises(NotGranted, match=r"b\.ipynb waits for GPU 1, held by a\.ipynb"):
            await manager().start_kernel(**for_notebook(notebook(tmp_path, "1:all", "b.ipynb")))


async def test_a_kernel_waits_for_its_device_and_starts_when_it_is_free(host: GPUHost, tmp_path: Path) -> None:
    second = manager()
    async with running(manager(), **for_notebook(notebook(tmp_path, "1:all", "a.ipynb"))):
        start = asyncio.ensure_future(second.start_kernel(**for_notebook(notebook(tmp_path, "1:all", "b.ipynb"))))
        [entry] = await until(lambda: waiting(host))
        assert entry.message == "waits for GPU 1, held by a.ipynb"
        assert [(r.label, r.state, r.waiting_id) for r in host.kernels if r.waiting_id] == [
            ("b.ipynb", "waiting", entry.id)
        ]
    await asyncio.wait_for(start, 30)
    [lease] = held(host)
    assert (lease.id, lease.owner.label) == (entry.id, "b.ipynb")
    await second.shutdown_kernel(now=True)
    assert host.leases_now() == []


async def test_a_wait_that_is_cancelled_keeps_the_kernel_from_starting(host: GPUHost, tmp_path: Path) -> None:
    async with running(manager(), **for_notebook(notebook(tmp_path, "1:all", "a.ipynb"))):
        start = asyncio.ensure_future(manager().start_kernel(**for_notebook(notebook(tmp_path, "1:all", "b.ipynb"))))
        [entry] = await until(lambda: waiting(host))
        assert host.ledger.cancel(entry.id)
        with pytest.raises(NotGranted, match=r"request 1:all for b\.ipynb was cancelled"):
            await start
        assert len(host.leases_now()) == 1


async def test_a_wait_ends_at_its_limit(host: GPUHost, tmp_path: Path) -> None:
    host.wait_limit_s = 0.5
    async with running(manager(), **for_notebook(notebook(tmp_path, "1:all", "a.ipynb"))):
        with pytest.raises(NotGranted, match=r"which is the limit"):
            await manager().start_kernel(**for_notebook(notebook(tmp_path, "1:all", "b.ipynb")))
        assert len(host.leases_now()) == 1


async def test_a_wait_ends_when_the_start_is_given_up(host: GPUHost, tmp_path: Path) -> None:
    async with running(manager(), **for_notebook(notebook(tmp_path, "1:all", "a.ipynb"))):
        start = asyncio.ensure_future(manager().start_kernel(**for_notebook(notebook(tmp_path, "1:all", "b.ipynb"))))
        await until(lambda: waiting(host))
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert waiting(host) == []


class SlowBackend(SimulatedBackend):
    """A driver that takes as long as the test wants to tell what there is."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.answers, self.asked = threading.Event(), threading.Event()
        self.answers.set()

    def inventory(self) -> Inventory:
        self.asked.set()
        self.answers.wait(60)
        return super().inventory()


async def test_a_start_that_is_given_up_amid_a_slow_look_leaves_nothing_in_the_queue(
    host: GPUHost, tmp_path: Path
) -> None:
    host.backend = slow = SlowBackend(parent=host)
    async with running(manager(), **for_notebook(notebook(tmp_path, "1:all", "a.ipynb"))):
        start = asyncio.ensure_future(manager().start_kernel(**for_notebook(notebook(tmp_path, "1:all", "b.ipynb"))))
        [entry] = await until(lambda: waiting(host))
        slow.answers.clear()
        slow.asked.clear()
        await until(slow.asked.is_set)  # by the thread that asks again
        start.cancel()
        assert host.ledger.cancel(entry.id)
        slow.answers.set()
        with pytest.raises(asyncio.CancelledError):
            await start
        # Whatever thread is still at it has to come through first.
        await asyncio.get_running_loop().shutdown_default_executor()
        assert waiting(host) == []


async def test_a_kernel_that_ends_leaves_neither_what_it_waits_for_nor_what_was_taken_for_its_next_start(
    host: GPUHost, tmp_path: Path
) -> None:
    made = manager()
    async with running(made, **for_notebook(notebook(tmp_path, "1:8GiB"))):
        record = host.kernels.get(made.provisioner.kernel_id)
        assert record is not None
        [lease] = held(host)
        prepared = host.ask_now(host.ask_for(record, GPURequest.parse("2:all"), Origin.API, before=lease))
        queued = host.ask_now(host.ask_for(record, GPURequest.parse("2:all"), Origin.API, before=lease))
        record.prepared, record.waiting_id = prepared.id, queued.id
        assert len(waiting(host)) == 1
    assert host.leases_now() == []


async def test_what_was_taken_for_the_next_start_goes_back_if_that_wants_something_else(
    host: GPUHost, tmp_path: Path
) -> None:
    made = manager()
    async with running(made, **for_notebook(notebook(tmp_path, "1:8GiB"))) as client:
        record = host.kernels.get(made.provisioner.kernel_id)
        assert record is not None
        [lease] = held(host)
        prepared = host.ask_now(host.ask_for(record, GPURequest.parse("2:all"), Origin.API, before=lease))
        record.prepared, record.wanted = prepared.id, "3"
        await made.restart_kernel(now=True)
        await client.wait_for_ready(timeout=60)
        assert [lease.request for lease in held(host)] == ["3"]


@pytest.mark.parametrize(
    ("request_text", "sentence"),
    [
        ("9", "there is no GPU 9"),
        ("1:41GiB", "more memory than there is"),
        ("banana", "'banana' is not a GPU request"),
        ("1:8", "no unit"),
    ],
)
async def test_a_request_that_can_never_be_granted_starts_the_kernel_on_the_cpu_and_says_why(
    host: GPUHost, tmp_path: Path, request_text: str, sentence: str
) -> None:
    made = manager()
    async with running(made, **for_notebook(notebook(tmp_path, request_text))) as client:
        assert (await environment_of(client))["CUDA_VISIBLE_DEVICES"] == "-1"
        record = host.kernels.get(made.provisioner.kernel_id)
        assert record is not None
        assert record.state == "problem"
        assert sentence in record.notices[0]


async def test_the_default_request_falls_back_to_the_cpu_when_every_device_is_taken(host: GPUHost) -> None:
    for index in range(4):
        await host.acquire(ask_of(host, f"{index}:all", name=f"whole-{index}"))
    made = manager()
    async with running(made) as client:
        assert (await environment_of(client))["CUDA_VISIBLE_DEVICES"] == "-1"
        record = host.kernels.get(made.provisioner.kernel_id)
        assert record is not None
        assert "waits for a GPU; held by whole-0" in record.notices[0]


@pytest.mark.parametrize("damage", ["not a database", "a directory", "a newer version"])
async def test_a_ledger_that_cannot_be_used_starts_kernels_without_gpus_and_says_why(
    host: GPUHost, runtime_directory: Path, damage: str
) -> None:
    ledger = runtime_directory / "ledger.sqlite"
    if damage == "a directory":
        ledger.mkdir()
    elif damage == "not a database":
        ledger.write_bytes(b"no ledger at all" * 1000)
    else:
        import sqlite3

        with sqlite3.connect(ledger) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    made = manager()
    async with running(made) as client:
        environment = await environment_of(client)
        assert environment["CUDA_VISIBLE_DEVICES"] == "-1"
        assert "JUPYTER_GPU_LEASE" not in environment
        record = host.kernels.get(made.provisioner.kernel_id)
        assert record is not None
        assert record.state == "problem"
        assert "runs without a GPU, because the ledger" in record.notices[0]


async def test_a_lease_that_was_lost_while_the_kernel_ran_is_taken_anew_on_restart(host: GPUHost) -> None:
    made = manager(env={"JUPYTER_GPU": "1:8GiB"})
    async with running(made):
        [before] = held(host)
        host.ledger.release(before.id)
        await made.restart_kernel(now=True)
        [after] = held(host)
        assert after.id != before.id
        assert after.request == "1:8GiB"


async def test_a_kernel_that_is_not_python_gets_its_gpu(host: GPUHost, uuids: list[str]) -> None:
    argv = [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"]
    made = manager(argv=argv, language="bash", display_name="Bash", env={"JUPYTER_GPU": "3:1GiB", "PS1": "$"})
    async with running(made) as client:
        assert (await printed(client, "echo $CUDA_VISIBLE_DEVICES")).strip() == uuids[3]
    assert host.leases_now() == []


async def test_simulated_memory_counts_against_the_kernels_cap_and_comes_back_with_its_death(
    host: GPUHost, uuids: list[str]
) -> None:
    made = manager(env={"JUPYTER_GPU": "1:8GiB"})
    async with running(made) as client:
        await printed(client, "import jupyter_gpu.simulated as gpu; block = gpu.allocate('6GiB')")
        usage = host.backend.usage()[uuids[1]]
        assert usage.memory_used_bytes == 6 << 30
        caught = await printed(
            client, "try: gpu.allocate('3GiB')\nexcept MemoryError as error: print(type(error).__name__, error)"
        )
        assert "OutOfDeviceMemory" in caught
        assert "the cap of this kernel is 8 GiB" in caught
        os.kill(made.provisioner.pid, signal.SIGKILL)
        await until(lambda: host.backend.usage()[uuids[1]].memory_used_bytes == 0)


def ask_of(host: GPUHost, request: str, *, name: str = "test", wait: bool = True) -> Ask:
    return Ask(
        id=f"{name}-{os.urandom(4).hex()}",
        request=request,
        origin=Origin.API,
        owner=Owner("command", name),
        asker=host.process,
        wait=wait,
    )


def test_the_provisioner_is_what_its_entry_point_names() -> None:
    assert KernelProvisionerFactory.instance().provisioners["gpu-provisioner"].load() is GPUProvisioner
