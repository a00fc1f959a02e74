"""Usage in the REST API: what a kernel uses, for little, however many ask."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from crowd import Crowd
from jsonschema import Draft202012Validator
from kernel_client import printed
from nvml_stand_in import NO_PERMISSION
from tornado.httpclient import HTTPClientError

import jupyter_gpu
from jupyter_gpu.kernels import IdleMark
from jupyter_gpu.leases.lease import Ask, Origin, Owner
from jupyter_gpu.server.manager import GPUManager

GIB = 1 << 30
DOCUMENT = yaml.safe_load((Path(jupyter_gpu.__file__).parent / "server" / "openapi.yaml").read_text())
LARGEST_BODY = 32 * 1024
_HOLDS = "import jupyter_gpu.simulated as gpu; block = gpu.allocate({amount!r})"
_COMPUTES = "import time\nwith gpu.computing():\n    time.sleep({seconds})"


@pytest.fixture
def gpu_server_config() -> dict[str, object]:
    return {"GPUSampler": {"interval_s": 0.2}}


class Client:
    """A watching client."""

    def __init__(self, fetch: Callable[..., Any], server: Any) -> None:
        self._fetch = fetch
        self._server = server

    async def get(self, path: str, **query: str) -> Any:
        name = path.split("?", 1)[0]
        answer = json.loads((await self._fetch("gpu", "api", name, params=query)).body)
        content = DOCUMENT["paths"][f"/gpu/api/{name}"]["get"]["responses"]["200"]["content"]
        schema = {**content["application/json"]["schema"], "components": DOCUMENT["components"]}
        Draft202012Validator(schema).validate(answer)
        return answer

    async def kernel(self, kernel_id: str) -> dict[str, Any]:
        table = await self.get("kernels")
        kernels = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
        kernel = next(kernel for kernel in kernels if kernel["kernel_id"] == kernel_id)
        kernel["devices"] = [dict(zip(table["device_columns"], row, strict=True)) for row in kernel["devices"]]
        for device in kernel["devices"]:
            device["reasons"] = table["reasons"][device["reasons"]]
        return kernel

    async def start(self, kernel: str = "python3-gpu1", path: str = "a.ipynb") -> tuple[str, Any]:
        """A kernel's id, and a client that runs code in it."""
        body = {"path": path, "name": path, "type": "notebook", "kernel": {"name": kernel}}
        answer = await self._fetch("api/sessions", method="POST", body=json.dumps(body))
        kernel_id = json.loads(answer.body)["kernel"]["id"]
        client = self._server.kernel_manager.get_kernel(kernel_id).client()
        client.start_channels()
        await client.wait_for_ready(timeout=60)
        return kernel_id, client

    async def until(self, ask: Callable[[], Any], condition: Callable[[Any], Any]) -> Any:
        """The first answer that fits."""
        answer = None
        for _ in range(300):
            answer = await ask()
            if condition(answer):
                return answer
            await asyncio.sleep(0.1)
        raise AssertionError(answer)


@pytest.fixture
def client(jp_fetch: Callable[..., Any], jp_serverapp: Any) -> Client:
    return Client(jp_fetch, jp_serverapp)


async def test_a_kernels_memory_peak_utilisation_and_idleness_are_followed(client: Client) -> None:
    kernel_id, code = await client.start()
    ask = lambda: client.kernel(kernel_id)  # noqa: E731
    try:
        await printed(code, _HOLDS.format(amount="3GiB"))
        kernel = await client.until(ask, lambda kernel: kernel["devices"][0]["used_bytes"] == 3 * GIB)
        [device] = kernel["devices"]
        assert (device["source"], device["peak_bytes"], device["peak_kind"]) == ("account", 3 * GIB, "exact")
        assert device["reasons"].get("used_bytes") is None
        [shown] = [each for each in (await client.get("devices"))["devices"] if each["leases"]]
        assert (shown["memory_used_bytes"], shown["memory_source"]) == (3 * GIB, "device")
        assert shown["leases"][0]["used_bytes"] == 3 * GIB

        began = _epoch()
        computing = asyncio.ensure_future(printed(code, _COMPUTES.format(seconds=2)))
        busy = await client.until(ask, lambda kernel: (kernel["devices"][0]["utilization_percent"] or 0) > 50)
        assert (busy["execution_state"], busy["idle_since"]) == ("busy", None)
        await computing
        idle = await client.until(ask, lambda kernel: kernel["idle_since"] is not None)
        assert idle["execution_state"] == "idle"
        assert began < idle["idle_since"] <= _epoch()
        later = await client.until(ask, lambda kernel: kernel["devices"][0]["utilization_percent"] == 0)
        assert later["idle_since"] >= idle["idle_since"]

        await printed(code, "block.free()")
        freed = await client.until(ask, lambda kernel: kernel["devices"][0]["used_bytes"] == 0)
        assert (freed["devices"][0]["peak_bytes"], freed["devices"][0]["peak_kind"]) == (3 * GIB, "exact")
    finally:
        code.stop_channels()


def _epoch() -> float:
    return dt.datetime.now(dt.timezone.utc).timestamp()


async def test_a_peak_begins_anew_when_the_kernel_is_restarted(client: Client, jp_fetch: Callable[..., Any]) -> None:
    kernel_id, code = await client.start()
    ask = lambda: client.kernel(kernel_id)  # noqa: E731
    try:
        await printed(code, _HOLDS.format(amount="3GiB"))
        await client.until(ask, lambda kernel: kernel["devices"][0]["peak_bytes"] == 3 * GIB)
        await jp_fetch(f"api/kernels/{kernel_id}/restart", method="POST", body="")
        kernel = await client.until(ask, lambda kernel: kernel["devices"][0]["used_bytes"] == 0)
        assert kernel["devices"][0]["peak_bytes"] == 0
    finally:
        code.stop_channels()


async def test_history_gives_what_is_new_since_the_last_answer(client: Client) -> None:
    kernel_id, code = await client.start()
    try:
        await printed(code, _HOLDS.format(amount="3GiB"))
        holds = lambda history: 3 * GIB in next(iter(history["kernels"][kernel_id].values()))["memory"]  # noqa: E731
        first = await client.until(
            lambda: client.get("history"), lambda history: kernel_id in history["kernels"] and holds(history)
        )
        assert len(first["devices"]) == 4
        newer = await client.until(
            lambda: client.get("history", since=repr(first["time"])), lambda history: history["time"] > first["time"]
        )
        for series in (*newer["devices"].values(), *newer["kernels"][kernel_id].values()):
            assert series["t"]
            assert min(series["t"]) > first["time"]
            assert len(series["t"]) == len(series["memory"]) == len(series["utilization"])
        table = await client.get("kernels")
        again = await client.get("history", since=repr(newer["time"]))
        assert table["time"] in [newer["time"], *next(iter(again["devices"].values()), {"t": []})["t"]]
    finally:
        code.stop_channels()


@pytest.mark.parametrize("since", ["yesterday", "-1", "nan", "inf", "1e999", "", "0x10"])
async def test_a_since_that_is_no_time_is_refused(jp_fetch: Callable[..., Any], since: str) -> None:
    with pytest.raises(HTTPClientError) as error:
        await jp_fetch("gpu", "api", "history", params={"since": since})
    assert error.value.code == 400
    assert "seconds since the epoch" in json.loads(error.value.response.body)["message"]


async def test_an_answer_that_a_client_has_already_is_not_sent_again(jp_fetch: Callable[..., Any]) -> None:
    for _ in range(50):
        first = await jp_fetch("gpu", "api", "devices")
        headers = {"If-None-Match": first.headers["Etag"]}
        second = await jp_fetch("gpu", "api", "devices", headers=headers, raise_error=False)
        if second.code == 304:
            return  # else a sample was taken in between
    raise AssertionError("it was sent every time")


async def test_one_answer_has_devices_kernels_and_queue_of_one_moment(
    client: Client, jp_serverapp: Any, jp_fetch: Callable[..., Any]
) -> None:
    host = jp_serverapp.web_app.settings["gpu_manager"].host
    kernel_id, code = await client.start("python3-gpu1")
    try:
        owner = Owner("command", "sweep")
        for number in range(2):  # the second waits for the first
            host.ask_now(Ask(f"sweep-{number}", "0:all", Origin.API, owner, host.process))
        live = await client.until(lambda: client.get("live"), lambda live: live["queue"]["entries"])
        assert [entry["id"] for entry in live["queue"]["entries"]] == ["sweep-1"]
        assert live["devices"]["time"] == live["kernels"]["time"] == live["queue"]["time"]
        [row] = live["kernels"]["rows"]
        assert row[live["kernels"]["columns"].index("kernel_id")] == kernel_id
        assert live["devices"]["devices"][1]["leases"][0]["owner"]["kernel_id"] == kernel_id
        assert host.ledger.cancel("sweep-1")
        live = await client.until(lambda: client.get("live"), lambda live: not live["queue"]["entries"])
        devices = json.loads((await jp_fetch("gpu", "api", "devices")).body)
        assert live["devices"].keys() == devices.keys()
    finally:
        code.stop_channels()


async def test_watching_clients_cost_one_sample_an_interval(client: Client, jp_serverapp: Any) -> None:
    manager: GPUManager = jp_serverapp.web_app.settings["gpu_manager"]
    looks: list[float] = []
    manager.sampler.listen(lambda snapshot: looks.append(snapshot.time))
    begin = _epoch()

    async def watch() -> None:
        while _epoch() - begin < 2:
            await asyncio.gather(client.get("devices"), client.get("kernels"), client.get("history"))
            await asyncio.sleep(0.05)

    await asyncio.gather(*[watch() for _ in range(8)])
    assert len(set(looks)) <= (_epoch() - begin) / 0.2 + 2


async def test_when_nobody_watches_nothing_is_sampled(client: Client, jp_serverapp: Any) -> None:
    manager: GPUManager = jp_serverapp.web_app.settings["gpu_manager"]
    manager.sampler.watched_for_s = 0.5
    looks: list[float] = []
    manager.sampler.listen(lambda snapshot: looks.append(snapshot.time))
    await client.get("status")
    await client.get("queue")
    assert looks == []
    await client.get("devices")
    assert looks
    while _epoch() - looks[-1] < 1.0:
        await client.get("status")
        await client.get("queue")
        await asyncio.sleep(0.05)
    count = len(looks)
    for _ in range(10):
        await client.get("status")
        await client.get("queue")
        await asyncio.sleep(0.05)
    assert len(looks) == count


class TestSixtyFourKernels:
    """Eight GPUs with eight kernels each: every body is small enough to be sent every second."""

    @pytest.fixture
    def crowd(self, tmp_path: Path) -> Iterator[Crowd]:
        crowd = Crowd(tmp_path)
        crowd.stand_in.load()
        yield crowd
        crowd.close()

    @pytest.fixture
    def manager(self, crowd: Crowd) -> Iterator[GPUManager]:
        host = crowd.host()
        leases = crowd.lease_all(host)
        crowd.register(host, leases)
        manager = GPUManager(crowd.server(), host=host)
        yield manager
        manager.close()
        host.close()

    async def test_bodies_are_below_32_kb(self, manager: GPUManager) -> None:
        sizes = {}
        for name in ("devices", "kernels"):
            content = (await getattr(manager, name)()).content
            sizes[name] = len(content)
            assert len(content) < LARGEST_BODY, sizes
        table = json.loads((await manager.kernels()).content)
        assert len(table["rows"]) == 64
        columns = table["columns"]
        assert {row[columns.index("state")] for row in table["rows"]} == {"running"}
        assert {row[columns.index("execution_state")] for row in table["rows"]} == {"idle"}
        devices = json.loads((await manager.devices()).content)["devices"]
        assert [len(device["leases"]) for device in devices] == [8] * 8

    async def test_so_are_they_where_all_are_idle_and_the_driver_tells_nothing_of_any(
        self, manager: GPUManager, crowd: Crowd
    ) -> None:
        for uuid in crowd.uuids:
            for function in ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetProcessUtilization"):
                crowd.stand_in.fail(function, NO_PERMISSION, uuid)
        for record in manager.host.kernels:
            record.idle = IdleMark(1_700_000_000.123, "shut-down", 1_700_000_600, exempt=False)
        content = (await manager.kernels()).content
        assert len(content) < LARGEST_BODY
        table = json.loads(content)
        assert all(row[table["columns"].index("idle")] for row in table["rows"])
        place, utilization = (table["device_columns"].index(name) for name in ("reasons", "utilization_percent"))
        for row in table["rows"]:
            [device] = row[-1]
            assert device[utilization] is None
            assert table["reasons"][device[place]].keys() >= {"used_bytes", "utilization_percent", "peak_bytes"}

    async def test_one_step_of_history_is_too(self, manager: GPUManager) -> None:
        await manager.devices()
        body = await manager.history(0)
        assert len(json.loads(body)["kernels"]) == 64
        assert len(body) < LARGEST_BODY

    async def test_a_body_is_made_once_for_all_who_ask(self, manager: GPUManager) -> None:
        manager.sampler.interval_s = 60
        for name in ("devices", "kernels"):
            bodies = [await getattr(manager, name)() for _ in range(16)]
            assert len({id(body.content) for body in bodies}) == 1

    async def test_what_changes_about_a_kernel_shows_before_the_next_sample(self, manager: GPUManager) -> None:
        manager.sampler.interval_s = 60
        before = (await manager.kernels()).content
        [record, *_] = manager.host.kernels
        record.notices.append("Something to know.")
        after = (await manager.kernels()).content
        assert b"Something to know." in after
        assert b"Something to know." not in before
