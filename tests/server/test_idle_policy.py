"""What is done about kernels that keep GPU memory without computing: on real servers, and sample by sample."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crowd import Crowd
from jupyter_events import EventLogger
from kernel_client import TIMEOUT_S, printed, until
from nvml_stand_in import NOT_SUPPORTED
from tornado.httpclient import HTTPClientError

import jupyter_gpu
from jupyter_gpu.host import GPUHost
from jupyter_gpu.kernels import IdleMark
from jupyter_gpu.server.idle_policy import IDLE_EVENT, GPUIdlePolicy
from jupyter_gpu.usage.observer import Observer
from jupyter_gpu.usage.sampler import GPUSampler

GIB = 1 << 30
SCHEMA = Path(jupyter_gpu.__file__).parent / "server" / "events" / "idle.yaml"
_HOLDS = "import jupyter_gpu.simulated as gpu; block = gpu.allocate('2GiB')"
Events = list[dict[str, Any]]


def listen(logger: EventLogger) -> Events:
    """All idle events, as a listener gets them; one that does not fit its schema does not come."""
    events: Events = []

    async def note(logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        events.append(data)

    logger.add_listener(schema_id=IDLE_EVENT, listener=note)
    return events


@pytest.fixture
def told(jp_serverapp: Any, jp_asyncio_loop: asyncio.AbstractEventLoop) -> Events:
    jp_asyncio_loop.run_until_complete(jp_serverapp.extension_manager.start_all_extensions())
    return listen(jp_serverapp.event_logger)


class Notebook:
    """A notebook with a kernel, and what one does with it."""

    def __init__(self, fetch: Callable[..., Any], server: Any, root: Path) -> None:
        self._fetch = fetch
        self._server = server
        self._root = root
        self.session: dict[str, Any] = {}

    @contextlib.asynccontextmanager
    async def open(self, path: str = "a.ipynb", **metadata: Any) -> AsyncIterator[Callable[[str], Any]]:
        """Something that runs code in its kernel."""
        content = {"cells": [], "metadata": {"jupyter_gpu": metadata}, "nbformat": 4, "nbformat_minor": 5}
        (self._root / path).write_text(json.dumps(content))
        body = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
        answer = await self._fetch("api/sessions", method="POST", body=json.dumps(body))
        self.session = json.loads(answer.body)
        self._client = self._server.kernel_manager.get_kernel(self.kernel_id).client()
        self._client.start_channels()
        try:
            await self._until_ready()
            yield lambda code: printed(self._client, code)
        finally:
            self._client.stop_channels()

    async def _until_ready(self) -> None:
        await self._client.wait_for_ready(timeout=TIMEOUT_S)
        # The server may have begun to listen to the kernel too late for what it said until now.
        await printed(self._client, "print()")

    async def restart(self) -> None:
        """Have the kernel's process replaced."""
        restart = f"api/kernels/{self.kernel_id}/restart"
        await self._fetch(restart, method="POST", body="")
        await self._until_ready()

    @property
    def kernel_id(self) -> str:
        return str(self.session["kernel"]["id"])

    async def kernel(self) -> dict[str, Any]:
        answer = await self._fetch("gpu", "api", "kernels", self.kernel_id)
        return dict(json.loads(answer.body))

    async def patch(self, **body: Any) -> dict[str, Any]:
        answer = await self._fetch("gpu", "api", "kernels", self.kernel_id, method="PATCH", body=json.dumps(body))
        return dict(json.loads(answer.body))

    async def until(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The kernel, once it is so. This does not watch: only the policy has samples taken."""
        end = asyncio.get_running_loop().time() + TIMEOUT_S
        while asyncio.get_running_loop().time() < end:
            kernel = await self.kernel()
            if condition(kernel):
                return kernel
            await asyncio.sleep(0.05)
        raise AssertionError(kernel)


@pytest.fixture
def notebook(jp_fetch: Callable[..., Any], jp_serverapp: Any, jp_root_dir: Path) -> Notebook:
    return Notebook(jp_fetch, jp_serverapp, jp_root_dir)


def policy_of(server: Any) -> GPUIdlePolicy:
    return next(iter(server.extension_manager.extension_apps["jupyter_gpu"]))._idle_policy  # type: ignore[no-any-return]


def config(**traits: Any) -> dict[str, object]:
    return {"GPUIdlePolicy": {"after_s": 1.0, "interval_s": 0.2, "grace_s": 1.0, **traits}}


class TestByDefault:
    @pytest.fixture
    def gpu_server_config(self) -> dict[str, object]:
        return config()

    async def test_an_idle_kernel_is_marked_told_of_and_left_alone(self, told: Events, notebook: Notebook) -> None:
        async with notebook.open(request="1") as run:
            await run(_HOLDS)
            marked = await notebook.until(lambda kernel: kernel["idle"])
            assert marked["idle"] == {
                "since": marked["idle_since"], "policy": "mark", "action_at": None, "exempt": False,
            }  # fmt: skip
            [event] = await until(lambda: list(told))
            assert (event["event"], event["kernel_id"], event["label"]) == ("idle", notebook.kernel_id, "a.ipynb")
            assert (event["since"], event["action_at"]) == (marked["idle"]["since"], None)
            assert event["message"] == "a.ipynb holds GPU memory and has not computed for 1 s."
            await run("1")
            await until(lambda: len(told) >= 2)
            assert (told[1]["event"], told[1]["message"]) == ("active", "a.ipynb is not idle any more.")
            await run("block.free()")
            await notebook.until(lambda kernel: kernel["devices"][0]["used_bytes"] == 0)
            assert (await notebook.kernel())["pid"] == marked["pid"]

    async def test_a_kernel_that_has_no_memory_is_not_marked(
        self, told: Events, notebook: Notebook, jp_serverapp: Any
    ) -> None:
        async with notebook.open(request="1"):
            sampler = policy_of(jp_serverapp).sampler
            first = (await until(lambda: sampler.last)).time
            await until(lambda: sampler.last.time > first + 3)
            assert (await notebook.kernel())["idle"] is None
            assert told == []

    async def test_what_is_reserved_counts_though_nothing_is_in_use(self, told: Events, notebook: Notebook) -> None:
        async with notebook.open(request="1:8GiB"):
            await notebook.until(lambda kernel: kernel["idle"])


class TestShutDown:
    @pytest.fixture
    def gpu_server_config(self) -> dict[str, object]:
        return config(action="shut-down", after_s=2.0, grace_s=2.0)

    async def test_it_is_warned_then_shut_down_and_its_next_kernel_says_so(
        self, told: Events, notebook: Notebook, jp_fetch: Callable[..., Any]
    ) -> None:
        async with notebook.open(request="1:8GiB"):
            await until(lambda: told and told[-1]["event"] == "shut-down")
        warned, ended = told
        assert (warned["event"], warned["label"]) == ("warned", "a.ipynb")
        assert warned["action_at"] > warned["since"]
        assert warned["message"] == (
            "a.ipynb holds GPU memory and has not computed for 2 s. The kernel will be shut down in 2 s, unless it "
            "computes or is to be kept."
        )
        assert (ended["since"], ended["action_at"]) == (warned["since"], None)
        assert ended["message"] == (
            "a.ipynb was shut down, because it had not computed for 4 s while it held GPU memory."
        )
        with pytest.raises(HTTPClientError) as error:
            await notebook.kernel()
        assert error.value.code == 404
        assert json.loads((await jp_fetch("api/sessions")).body) == []
        assert GPUHost.instance().leases_now() == []
        async with notebook.open():
            notices = (await notebook.until(lambda kernel: kernel["notices"]))["notices"]
            assert notices == [f"The kernel before: {ended['message']}"]

    async def test_a_notebook_that_says_so_is_kept(self, told: Events, notebook: Notebook) -> None:
        async with notebook.open(request="1:8GiB", keep_when_idle=True):
            marked = await notebook.until(lambda kernel: kernel["idle"])
            assert (marked["idle"]["exempt"], marked["idle"]["action_at"]) == (True, None)
            assert marked["idle"]["policy"] == "shut-down"
            assert told == []


class TestGrace:
    """Long enough that nothing is done in the time that a test takes."""

    @pytest.fixture
    def gpu_server_config(self) -> dict[str, object]:
        return config(action="shut-down", grace_s=600)

    async def test_computing_in_the_grace_period_cancels(self, told: Events, notebook: Notebook) -> None:
        async with notebook.open(request="1") as run:
            await run(_HOLDS)
            warned = await notebook.until(lambda kernel: kernel["idle"] and kernel["idle"]["action_at"])
            assert warned["idle"]["policy"] == "shut-down"
            await run("with gpu.computing(): pass")
            await until(lambda: len(told) >= 2)
            assert [event["event"] for event in told[:2]] == ["warned", "active"]
            assert (told[1]["since"], told[1]["action_at"]) == (None, None)
            again = await notebook.until(lambda kernel: kernel["idle"] and kernel["idle"]["action_at"])
            assert again["idle"]["since"] > warned["idle"]["since"]
            assert again["idle"]["action_at"] > warned["idle"]["action_at"]

    async def test_an_exemption_counts_at_once_and_until_it_is_taken_back(
        self, told: Events, notebook: Notebook
    ) -> None:
        async with notebook.open(request="1:8GiB"):
            await notebook.until(lambda kernel: kernel["idle"] and kernel["idle"]["action_at"])
            kept = await notebook.patch(keep_when_idle=True)
            assert (kept["applied"], kept["message"]) == ("now", "a.ipynb is kept though idle.")
            assert (kept["idle"]["exempt"], kept["idle"]["action_at"]) == (True, None)
            await until(lambda: len(told) >= 2)
            assert told[1]["message"] == "a.ipynb is to be kept though idle: nothing is done about it."
            await notebook.restart()
            after = await notebook.until(lambda kernel: kernel["idle"])
            assert (after["idle"]["exempt"], after["idle"]["action_at"]) == (True, None)
            both = await notebook.patch(keep_when_idle=False, request="1:4GiB")
            assert both["message"] == "a.ipynb has GPU 1:4GiB now. a.ipynb is not kept when idle."
            assert both["request"] == "1:4GiB"
            await notebook.until(lambda kernel: kernel["idle"] and kernel["idle"]["action_at"])

    async def test_the_api_counts_over_the_notebook(self, notebook: Notebook, told: Events) -> None:
        async with notebook.open(request="1:8GiB", keep_when_idle=True):
            await notebook.until(lambda kernel: kernel["idle"] and kernel["idle"]["exempt"])
            await notebook.patch(keep_when_idle=False)
            await notebook.until(lambda kernel: kernel["idle"] and kernel["idle"]["action_at"])


class TestDowngrade:
    @pytest.fixture
    def gpu_server_config(self) -> dict[str, object]:
        return config(action="downgrade", after_s=3.0, grace_s=2.0)

    @pytest.mark.parametrize("request_text", ["1:8GiB", "1:all"])
    async def test_its_reservation_ends_and_what_it_has_in_use_stays(
        self, told: Events, notebook: Notebook, request_text: str, jp_fetch: Callable[..., Any]
    ) -> None:
        async with notebook.open(request=request_text) as run:
            await run(_HOLDS)
            await until(lambda: len(told) >= 2)
            assert [event["event"] for event in told] == ["warned", "downgraded"]
            kernel = await notebook.kernel()
            [device] = kernel["devices"]
            assert (device["index"], device["kind"], device["memory_bytes"]) == ("1", "shared", None)
            assert (device["used_bytes"], device["cap_bytes"]) == (2 * GIB, 40 * GIB)
            assert (kernel["request"], kernel["pending_request"]) == ("1", request_text)
            assert kernel["notices"] == [told[1]["message"]]
            assert told[1]["message"] == (
                f"a.ipynb has GPU 1 instead of GPU {request_text}, because it had not computed for 5 s. Ask again for "
                "what it needs."
            )
            assert kernel["idle"]["policy"] == "downgrade"
            assert kernel["idle"]["action_at"] is None
            devices = json.loads((await jp_fetch("gpu", "api", "devices")).body)["devices"]
            assert devices[1]["available_bytes"] == 38 * GIB
            assert await run("print(block.size)") == f"{2 * GIB}\n"
            await notebook.restart()
            assert (await notebook.kernel())["request"] == request_text

    async def test_a_kernel_that_shares_has_nothing_to_lose_and_is_only_marked(
        self, told: Events, notebook: Notebook
    ) -> None:
        async with notebook.open(request="1") as run:
            await run(_HOLDS)
            await until(lambda: list(told))
            assert told[0]["event"] == "idle"
            assert (await notebook.kernel())["idle"]["policy"] == "mark"


class TestOff:
    @pytest.fixture
    def gpu_server_config(self) -> dict[str, object]:
        return {**config(action="off"), "GPUSampler": {"interval_s": 0.1}}

    async def test_nothing_is_looked_at(self, told: Events, notebook: Notebook, jp_serverapp: Any) -> None:
        async with notebook.open(request="1:8GiB"):
            policy = policy_of(jp_serverapp)
            assert policy._need is None
            assert policy._beginning is None


class TestSamples:
    @pytest.fixture
    def gpu_server_config(self) -> dict[str, object]:
        return config()

    async def test_they_are_taken_only_while_a_kernel_holds_a_gpu(
        self, told: Events, notebook: Notebook, jp_serverapp: Any, jp_fetch: Callable[..., Any]
    ) -> None:
        sampler = policy_of(jp_serverapp).sampler
        async with notebook.open("cpu.ipynb", request="cpu") as run:
            assert policy_of(jp_serverapp)._beginning is None
            await run("%gpu use 1")
            await until(lambda: sampler._needs)
        await jp_fetch(f"api/sessions/{notebook.session['id']}", method="DELETE")
        await until(lambda: not sampler._needs)
        async with notebook.open("a.ipynb", request="1"):
            await until(lambda: sampler._needs)
        await jp_fetch(f"api/sessions/{notebook.session['id']}", method="DELETE")
        await until(lambda: not sampler._needs)


class TestSampleBySample:
    """Two kernels that share a GPU of the stand-in; time passes as the test says."""

    @pytest.fixture
    def crowd(self, tmp_path: Path) -> Iterator[Crowd]:
        crowd = Crowd(tmp_path, gpus=1, kernels=2)
        crowd.stand_in.device(crowd.uuids[0]).utilization = 0
        for process in crowd.stand_in.device(crowd.uuids[0]).processes:
            process.utilization = 0
        crowd.stand_in.write()
        crowd.stand_in.load()
        yield crowd
        crowd.close()

    @pytest.fixture
    def scene(self, crowd: Crowd) -> Iterator[Scene]:
        scene = Scene(crowd)
        yield scene
        scene.close()

    async def test_both_are_marked(self, scene: Scene) -> None:
        await scene.pass_s(2000)
        assert all(mark is not None for mark in scene.marks())

    async def test_a_busy_kernel_is_not(self, scene: Scene) -> None:
        scene.kernels[0].execution_state = "busy"
        await scene.pass_s(2000)
        first, second = scene.marks()
        assert first is None
        assert second is not None

    async def test_nor_is_one_whose_processes_keep_the_gpu_busy(self, scene: Scene, crowd: Crowd) -> None:
        crowd.stand_in.device(crowd.uuids[0]).processes[0].utilization = 20
        crowd.stand_in.write()
        await scene.pass_s(2000)
        first, second = scene.marks()
        assert first is None
        assert second is not None

    async def test_nor_is_one_that_is_another_servers(self, scene: Scene) -> None:
        scene.host.process = scene.host.process._replace(start_time=1)
        await scene.pass_s(2000)
        assert scene.marks() == [None, None]

    async def test_unknown_utilisation_goes_by_the_last_activity_and_nothing_is_done(
        self, scene: Scene, crowd: Crowd
    ) -> None:
        crowd.stand_in.device(crowd.uuids[0]).utilization = 30
        crowd.stand_in.fail("nvmlDeviceGetProcessUtilization", NOT_SUPPORTED, crowd.uuids[0])
        scene.kernels[0].execution_state = "busy"
        await scene.pass_s(20000)
        assert scene.marks()[0] is None
        mark = scene.marks()[1]
        assert mark is not None
        assert (mark.policy, mark.action_at) == ("mark", None)
        assert [event["event"] for event in scene.events] == ["idle"]
        assert scene.ended == []

    async def test_unknown_utilisation_is_enough_where_that_is_configured(self, scene: Scene, crowd: Crowd) -> None:
        crowd.stand_in.device(crowd.uuids[0]).utilization = 30
        crowd.stand_in.fail("nvmlDeviceGetProcessUtilization", NOT_SUPPORTED, crowd.uuids[0])
        scene.policy.act_on_unknown_utilization = True
        await scene.pass_s(3000)
        assert scene.ended == scene.crowd.kernel_ids

    async def test_a_gpu_that_does_nothing_at_all_has_no_busy_kernel(self, scene: Scene, crowd: Crowd) -> None:
        crowd.stand_in.fail("nvmlDeviceGetProcessUtilization", NOT_SUPPORTED, crowd.uuids[0])
        await scene.pass_s(3000)
        assert scene.ended == scene.crowd.kernel_ids

    async def test_a_lost_gpu_is_no_reason_to_act(self, scene: Scene, crowd: Crowd) -> None:
        await scene.pass_s(2000)
        crowd.stand_in.lose(crowd.uuids[0])
        await scene.pass_s(20000)
        assert scene.ended == []

    async def test_stale_figures_are_not_looked_at(self, scene: Scene) -> None:
        await scene.pass_s(20000, stale="the driver does not answer")
        assert scene.marks() == [None, None]

    async def test_who_is_idle_past_the_grace_period_is_shut_down(self, scene: Scene) -> None:
        await scene.pass_s(3000)
        assert [event["event"] for event in scene.events] == ["warned", "warned", "shut-down", "shut-down"]
        assert scene.ended == scene.crowd.kernel_ids

    async def test_a_cell_that_runs_after_the_deciding_sample_saves_the_kernel(self, scene: Scene) -> None:
        await scene.pass_s(1830)
        assert [event["event"] for event in scene.events] == ["warned", "warned"]
        for _ in range(100):
            scene.look()
            if scene.policy._tasks:
                break
        scene.kernels[0].execution_state = "busy"
        # By a clock that was set back.
        scene.kernels[1].last_activity -= dt.timedelta(hours=1)
        await scene.settle()
        await scene.pass_s(60)
        assert scene.ended == []
        assert [event["event"] for event in scene.events[2:]] == ["active", "active"]

    async def test_a_kernel_that_cannot_be_shut_down_is_tried_once_and_harms_nothing(self, scene: Scene) -> None:
        scene.fails = True
        await scene.pass_s(20000)
        assert len(scene.ended) == 2
        assert [event["event"] for event in scene.events] == ["warned", "warned"]


class Scene:
    """The policy with a clock of its own, on real leases and processes."""

    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd
        self.host = crowd.host()
        crowd.register(self.host, crowd.lease_all(self.host))
        self.now = 0.0
        self.fails = False
        self.ended: list[str] = []
        server = crowd.server()
        self.kernels = list(server.kernel_manager.values())
        server.kernel_manager.shutdown_kernel = self._shutdown
        logger = EventLogger()
        logger.register_event_schema(SCHEMA)
        self.events = listen(logger)
        self.policy = GPUIdlePolicy(
            server,
            clock=lambda: self.now,
            host=self.host,
            sampler=GPUSampler(host=self.host),
            event_logger=logger,
            action="shut-down",
        )
        self.observer = Observer(self.host)

    def look(self, stale: str | None = None) -> None:
        self.now += 30
        snapshot = self.observer.observe(self.host.look_now())
        if stale is not None:
            object.__setattr__(snapshot, "stale", stale)
        self.policy.look(snapshot)

    async def pass_s(self, seconds: float, stale: str | None = None) -> None:
        """Look every 30 seconds."""
        end = self.now + seconds
        while self.now < end:
            self.look(stale)
            await self.settle()

    async def settle(self) -> None:
        while self.policy._tasks:
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    def marks(self) -> list[IdleMark | None]:
        return [record.idle for record in self.host.kernels]

    async def _shutdown(self, kernel_id: str) -> None:
        self.ended.append(kernel_id)
        if self.fails:
            raise RuntimeError("it does not want to")
        self.host.kernels.remove(kernel_id)

    def close(self) -> None:
        self.observer.close()
        self.host.close()
