"""What happens to kernels is told to whoever listens to the server's events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel_client import printed, until
from nvml_stand_in import STATE_VARIABLE, NVMLStandIn

from jupyter_gpu.host import GPUHost
from jupyter_gpu.server.kernel_events import LEASE_EVENT, MEMORY_EVENT

GIB = 1 << 30
_HOLDS = "import jupyter_gpu.simulated as gpu; {name} = gpu.allocate({amount!r})"


@pytest.fixture
def gpu_server_config() -> dict[str, object]:
    return {"GPUSampler": {"interval_s": 0.2}}


@pytest.fixture
def told(jp_serverapp: Any, jp_asyncio_loop: asyncio.AbstractEventLoop) -> list[dict[str, Any]]:
    """All events of ours, as a listener gets them; one that does not fit its schema does not come."""
    jp_asyncio_loop.run_until_complete(jp_serverapp.extension_manager.start_all_extensions())
    events: list[dict[str, Any]] = []

    async def listen(logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        events.append({"schema_id": schema_id, **data})

    for schema_id in (MEMORY_EVENT, LEASE_EVENT):
        assert schema_id in jp_serverapp.event_logger.schemas
        jp_serverapp.event_logger.add_listener(schema_id=schema_id, listener=listen)
    return events


class Notebooks:
    def __init__(self, fetch: Callable[..., Any], server: Any) -> None:
        self.fetch = fetch
        self.server = server
        self._clients: list[Any] = []

    async def start(self, path: str, kernel: str = "python3-gpu1") -> dict[str, Any]:
        body = {"path": path, "name": path, "type": "notebook", "kernel": {"name": kernel}}
        answer = await self.fetch("api/sessions", method="POST", body=json.dumps(body))
        return dict(json.loads(answer.body))

    async def run(self, session: dict[str, Any], code: str) -> None:
        client = self.server.kernel_manager.get_kernel(session["kernel"]["id"]).client()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=60)
            await printed(client, code)
        finally:
            client.stop_channels()

    async def change(self, session: dict[str, Any], request: str) -> None:
        path = f"gpu/api/kernels/{session['kernel']['id']}"
        await self.fetch(path, method="PATCH", body=json.dumps({"request": request}))

    async def watch_until(self, condition: Callable[[], Any], seconds: float = 20.0) -> Any:
        """What the condition gives, asking as a watching client meanwhile."""
        for _ in range(int(seconds / 0.1)):
            await self.fetch("gpu/api/devices")
            result = condition()
            if result:
                return result
            await asyncio.sleep(0.1)
        raise AssertionError(f"waited {seconds} s in vain for {condition}")


@pytest.fixture
def notebooks(jp_fetch: Callable[..., Any], jp_serverapp: Any) -> Notebooks:
    return Notebooks(jp_fetch, jp_serverapp)


async def test_a_kernel_that_waits_and_gets_its_gpu(told: list[dict[str, Any]], notebooks: Notebooks) -> None:
    holder = await notebooks.start("a.ipynb")
    await notebooks.change(holder, "1:all")
    start = asyncio.ensure_future(notebooks.start("b.ipynb"))
    [waiting] = await until(lambda: list(told))
    assert (waiting["schema_id"], waiting["event"], waiting["label"]) == (LEASE_EVENT, "waiting", "b.ipynb")
    assert (waiting["path"].endswith("b.ipynb"), waiting["devices"]) == (True, [])
    assert waiting["message"] == "b.ipynb waits for GPU 1, held by a.ipynb."
    await notebooks.fetch(f"api/sessions/{holder['id']}", method="DELETE")
    session = await start
    granted = (await until(lambda: told[1:]))[0]
    assert (granted["event"], granted["kernel_id"]) == ("granted", session["kernel"]["id"])
    assert granted["kernel_id"] == waiting["kernel_id"]
    assert [device["index"] for device in granted["devices"]] == ["1"]
    assert granted["message"] == "b.ipynb has GPU 1."
    assert len(told) == 2


async def test_a_kernel_that_need_not_wait_is_no_event(told: list[dict[str, Any]], notebooks: Notebooks) -> None:
    await notebooks.start("a.ipynb")
    await notebooks.watch_until(lambda: True)
    assert told == []


async def test_a_kernel_that_nears_its_cap_is_told_of_once_until_it_has_had_less(
    told: list[dict[str, Any]], notebooks: Notebooks
) -> None:
    session = await notebooks.start("a.ipynb")
    await notebooks.change(session, "1:10GiB")
    await notebooks.run(session, _HOLDS.format(name="a", amount="8GiB"))
    await notebooks.run(session, _HOLDS.format(name="b", amount="1GiB"))
    event = await notebooks.watch_until(lambda: told and told[0])
    assert (event["schema_id"], event["event"], event["kernel_id"]) == (
        MEMORY_EVENT, "near-cap", session["kernel"]["id"],
    )  # fmt: skip
    assert (event["used_bytes"], event["cap_bytes"], event["device"]["index"]) == (9 * GIB, 10 * GIB, "1")
    assert event["message"] == "a.ipynb nears its cap on GPU 1: it uses 9 GiB of 10 GiB."
    await notebooks.run(session, _HOLDS.format(name="c", amount="512MiB"))
    await _after_samples(notebooks, 3)
    assert len(told) == 1
    await notebooks.run(session, "b.free(); c.free()")
    await _after_samples(notebooks, 3)
    await notebooks.run(session, _HOLDS.format(name="b", amount="1GiB"))
    await notebooks.watch_until(lambda: len(told) == 2)
    assert told[1]["event"] == "near-cap"


async def test_a_kernel_whose_cap_is_lowered_below_what_it_uses_is_over_it(
    told: list[dict[str, Any]], notebooks: Notebooks
) -> None:
    session = await notebooks.start("a.ipynb")
    await notebooks.change(session, "1:10GiB")
    await notebooks.run(session, _HOLDS.format(name="a", amount="4GiB"))
    await notebooks.change(session, "1:3GiB")
    event = await notebooks.watch_until(lambda: told and told[0])
    assert (event["event"], event["used_bytes"], event["cap_bytes"]) == ("over-cap", 4 * GIB, 3 * GIB)
    assert event["message"] == "a.ipynb is over its cap on GPU 1: it uses 4 GiB of 3 GiB."
    await _after_samples(notebooks, 3)
    assert len(told) == 1


async def test_a_kernel_that_loses_its_lease(told: list[dict[str, Any]], notebooks: Notebooks) -> None:
    session = await notebooks.start("a.ipynb")
    await notebooks.watch_until(lambda: True)
    [lease] = GPUHost.instance().leases_now()
    GPUHost.instance().ledger.release(lease.id)
    event = await notebooks.watch_until(lambda: told and told[0])
    assert (event["event"], event["lease_id"], event["kernel_id"]) == ("lease-lost", lease.id, session["kernel"]["id"])
    assert event["message"].startswith("a.ipynb has lost its lease")
    await _after_samples(notebooks, 3)
    assert len(told) == 1


async def test_a_kernel_that_is_shut_down_or_restarted_has_lost_nothing(
    told: list[dict[str, Any]], notebooks: Notebooks
) -> None:
    session = await notebooks.start("a.ipynb")
    await notebooks.watch_until(lambda: True)
    restart = f"api/kernels/{session['kernel']['id']}/restart"
    await notebooks.fetch(restart, method="POST", body="")
    await _after_samples(notebooks, 12)
    await notebooks.fetch(f"api/sessions/{session['id']}", method="DELETE")
    await _after_samples(notebooks, 12)
    assert told == []


async def test_they_arrive_at_the_servers_event_socket(
    told: list[dict[str, Any]], notebooks: Notebooks, jp_ws_fetch: Callable[..., Any]
) -> None:
    socket = await jp_ws_fetch("api", "events", "subscribe")
    session = await notebooks.start("a.ipynb")
    await notebooks.change(session, "1:1GiB")
    await notebooks.run(session, _HOLDS.format(name="a", amount="1GiB"))
    await notebooks.watch_until(lambda: told)
    while True:
        event = json.loads(await asyncio.wait_for(socket.read_message(), 20))
        if event["schema_id"] == MEMORY_EVENT:
            break
    assert event["message"] == "a.ipynb nears its cap on GPU 1: it uses 1 GiB of 1 GiB."
    socket.close()


async def _after_samples(notebooks: Notebooks, count: int) -> None:
    """Watch until so many samples have been taken since."""
    manager = notebooks.server.web_app.settings["gpu_manager"]
    begin = manager.sampler.last.number if manager.sampler.last else 0
    times: set[float] = set()

    def enough() -> bool:
        if manager.sampler.last is not None and manager.sampler.last.number > begin:
            times.add(manager.sampler.last.time)
        return len(times) >= count

    await notebooks.watch_until(enough)


class TestUnwatched:
    @pytest.fixture
    def gpu_server_config(self) -> dict[str, object]:
        return {
            "GPUSampler": {"interval_s": 0.2, "policy_interval_s": 0.2},
            "GPUEvents": {"sample_unwatched": True, "near_cap": 0.5},
        }

    async def test_memory_is_noticed_though_nobody_watches_where_that_is_wanted(
        self, told: list[dict[str, Any]], notebooks: Notebooks
    ) -> None:
        session = await notebooks.start("a.ipynb")
        await notebooks.change(session, "1:10GiB")
        await notebooks.run(session, _HOLDS.format(name="a", amount="5GiB"))
        [event] = await until(lambda: list(told))
        assert event["event"] == "near-cap"


class TestOnRealPynvml:
    @pytest.fixture
    def stand_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NVMLStandIn:
        monkeypatch.delenv(STATE_VARIABLE, raising=False)
        stand_in = NVMLStandIn(tmp_path / "nvml.state")
        for _ in range(2):
            stand_in.add_gpu()
        stand_in.load()
        return stand_in

    @pytest.fixture
    def simulated_gpus(self, stand_in: NVMLStandIn) -> Iterator[None]:
        """None: the GPUs are the stand-in's."""
        return

    async def test_a_kernel_that_loses_its_gpu_and_has_it_back(
        self, told: list[dict[str, Any]], notebooks: Notebooks, stand_in: NVMLStandIn
    ) -> None:
        session = await notebooks.start("a.ipynb", "python3")
        await notebooks.watch_until(lambda: GPUHost.instance().leases_now())
        [lease] = GPUHost.instance().leases_now()
        uuid = lease.holds[0].uuid
        stand_in.lose(uuid)
        event = await notebooks.watch_until(lambda: told and told[0])
        assert (event["event"], event["kernel_id"]) == ("gpu-lost", session["kernel"]["id"])
        assert [device["uuid"] for device in event["devices"]] == [uuid]
        assert "does not answer any more" in event["message"]
        kernel = json.loads((await notebooks.fetch(f"gpu/api/kernels/{session['kernel']['id']}")).body)
        assert kernel["state"] == "lost"
        await _after_samples(notebooks, 3)
        assert len(told) == 1
        stand_in.found(uuid)
        sampler = notebooks.server.web_app.settings["gpu_manager"].sampler
        await notebooks.watch_until(lambda: not sampler.last.is_lost(uuid))
        stand_in.lose(uuid)
        await notebooks.watch_until(lambda: len(told) == 2)
