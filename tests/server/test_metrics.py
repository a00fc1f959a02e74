"""The gauges on the server's own `/metrics`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from crowd import Crowd
from kernel_client import TIMEOUT_S, printed, until
from live_server import live_server
from nvml_stand_in import NOT_SUPPORTED
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tornado.httpclient import HTTPClientError

from jupyter_gpu.host import GPUHost
from jupyter_gpu.server.metrics import DEVICE_GAUGES, KERNEL_GAUGES, SERVER_GAUGES, GPUMetrics
from jupyter_gpu.usage.sampler import GPUSampler

GIB = 1 << 30
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
_HOLDS = "import jupyter_gpu.simulated as gpu; block = gpu.allocate('3GiB')"
Figures = dict[str, dict[tuple[str, ...], float]]


def figures_of(text: str) -> Figures:
    """The values by the gauge's name, then by its labels' values, of what is ours."""
    figures: Figures = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("jupyter_gpu_"):
                assert sample.labels.keys() <= {"kernel_id", "device_uuid"}
                labels = tuple(sample.labels[name] for name in ("kernel_id", "device_uuid") if name in sample.labels)
                known = figures.setdefault(sample.name, {})
                assert labels not in known, "twice"
                known[labels] = sample.value
    return figures


class TestOnAServer:
    @pytest.fixture
    def gpu_server_config(self) -> dict[str, object]:
        return {"GPUSampler": {"policy_interval_s": 0.2}}

    @pytest.fixture
    def scrape(
        self, jp_fetch: Callable[..., Any], jp_serverapp: Any, jp_asyncio_loop: asyncio.AbstractEventLoop
    ) -> Callable[[], Any]:
        jp_asyncio_loop.run_until_complete(jp_serverapp.extension_manager.start_all_extensions())

        async def scrape() -> Figures:
            return figures_of((await jp_fetch("metrics")).body.decode())

        return scrape

    async def until(self, scrape: Callable[[], Any], condition: Callable[[Figures], Any]) -> Figures:
        for _ in range(int(TIMEOUT_S / 0.1)):
            figures: Figures = await scrape()
            if condition(figures):
                return figures
            await asyncio.sleep(0.1)
        raise AssertionError(figures)

    async def test_devices_and_kernels_are_told_until_the_kernel_ends(
        self, scrape: Callable[[], Any], jp_fetch: Callable[..., Any], jp_serverapp: Any
    ) -> None:
        body = {"path": "a.ipynb", "name": "a.ipynb", "type": "notebook", "kernel": {"name": "python3-gpu1"}}
        answer = await jp_fetch("api/sessions", method="POST", body=json.dumps(body))
        session = json.loads(answer.body)
        kernel_id = session["kernel"]["id"]
        change = json.dumps({"request": "1:8GiB"})
        await jp_fetch("gpu", "api", "kernels", kernel_id, method="PATCH", body=change)
        client = jp_serverapp.kernel_manager.get_kernel(kernel_id).client()
        client.start_channels()
        await client.wait_for_ready(timeout=TIMEOUT_S)
        await printed(client, _HOLDS)
        client.stop_channels()
        used = "jupyter_gpu_kernel_memory_used_bytes"
        figures = await self.until(scrape, lambda figures: 3 * GIB in figures.get(used, {}).values())
        [lease] = GPUHost.instance().leases_now()
        key, device = (kernel_id, lease.holds[0].uuid), (lease.holds[0].uuid,)
        assert {name: figures[name].keys() for name in KERNEL_GAUGES} == dict.fromkeys(KERNEL_GAUGES, {key: 0}.keys())
        assert figures["jupyter_gpu_kernel_memory_cap_bytes"][key] == 8 * GIB
        assert figures["jupyter_gpu_kernel_memory_reserved_bytes"][key] == 8 * GIB
        assert figures["jupyter_gpu_kernel_memory_peak_bytes"][key] == 3 * GIB
        assert figures["jupyter_gpu_kernel_idle"][key] == 0
        assert figures["jupyter_gpu_device_memory_used_bytes"][device] == 3 * GIB
        assert figures["jupyter_gpu_device_memory_reserved_bytes"][device] == 8 * GIB
        assert figures["jupyter_gpu_device_memory_available_bytes"][device] == 32 * GIB
        assert figures["jupyter_gpu_device_leases"][device] == 1
        assert len(figures["jupyter_gpu_device_memory_size_bytes"]) == 4
        assert (figures["jupyter_gpu_devices"], figures["jupyter_gpu_kernels"]) == ({(): 4}, {(): 1})
        assert figures["jupyter_gpu_waiting_requests"] == {(): 0}

        await jp_fetch(f"api/sessions/{session['id']}", method="DELETE")
        after = await scrape()
        assert not after.keys() & KERNEL_GAUGES.keys()
        assert after["jupyter_gpu_kernels"] == {(): 0}

    async def test_who_may_not_use_the_server_may_not_read_them(
        self, scrape: Callable[[], Any], jp_fetch: Callable[..., Any]
    ) -> None:
        for headers in ({"Authorization": ""}, {"Authorization": "token wrong"}):
            with pytest.raises(HTTPClientError) as error:
                await jp_fetch("metrics", headers=headers)
            assert error.value.code == 403

    async def test_asking_has_samples_taken_slowly_until_nobody_asks_any_more(
        self, scrape: Callable[[], Any], jp_serverapp: Any
    ) -> None:
        [app] = jp_serverapp.extension_manager.extension_apps["jupyter_gpu"]
        metrics, sampler = app._metrics, app._metrics.sampler
        assert "jupyter_gpu_sample_age_seconds" not in await scrape()
        await self.until(scrape, lambda figures: "jupyter_gpu_device_memory_size_bytes" in figures)
        assert [need.interval_s for need in sampler._needs] == [sampler.policy_interval_s]
        metrics.scraped_for_s = 1.0
        await scrape()
        await until(lambda: not sampler._needs)

    async def test_a_stopped_server_tells_nothing(self, scrape: Callable[[], Any], jp_serverapp: Any) -> None:
        [app] = jp_serverapp.extension_manager.extension_apps["jupyter_gpu"]
        assert "jupyter_gpu_kernels" in await scrape()
        app._metrics.stop()
        assert await scrape() == {}
        app._metrics.start()
        assert "jupyter_gpu_kernels" in await scrape()


class TestOfManyKernels:
    """Two GPUs of the stand-in, two kernels on each."""

    @pytest.fixture
    def crowd(self, tmp_path: Path) -> Iterator[Crowd]:
        crowd = Crowd(tmp_path, gpus=2, kernels=4)
        crowd.stand_in.load()
        yield crowd
        crowd.close()

    @pytest.fixture
    def metrics(self, crowd: Crowd) -> Iterator[GPUMetrics]:
        host = crowd.host()
        crowd.register(host, crowd.lease_all(host))
        metrics = GPUMetrics(host=host, sampler=GPUSampler(host=host))
        metrics.registry = CollectorRegistry(auto_describe=True)
        yield metrics
        metrics.stop()
        metrics.sampler.close()
        host.close()

    async def figures(self, metrics: GPUMetrics) -> Figures:
        return figures_of(generate_latest(metrics.registry).decode())

    async def test_every_gauge_has_its_figures(self, metrics: GPUMetrics, crowd: Crowd) -> None:
        metrics.start()
        await metrics.sampler.current()
        figures = await self.figures(metrics)
        assert figures.keys() == {*SERVER_GAUGES, *DEVICE_GAUGES, *KERNEL_GAUGES}
        for name in DEVICE_GAUGES:
            assert figures[name].keys() == {(uuid,) for uuid in crowd.uuids}, name
        pairs = {(kernel_id, crowd.uuids[n % 2]) for n, kernel_id in enumerate(crowd.kernel_ids)}
        for name in KERNEL_GAUGES:
            assert figures[name].keys() == pairs, name
        device = crowd.stand_in.device(crowd.uuids[0])
        of = (crowd.uuids[0],)
        assert figures["jupyter_gpu_device_utilization_ratio"][of] == 0.3
        assert figures["jupyter_gpu_device_temperature_celsius"][of] == 50
        assert figures["jupyter_gpu_device_power_watts"][of] == device.power_watts
        assert figures["jupyter_gpu_device_power_limit_watts"][of] == device.power_limit_watts
        assert figures["jupyter_gpu_device_lost"][of] == 0
        kernel = (crowd.kernel_ids[0], crowd.uuids[0])
        assert figures["jupyter_gpu_kernel_utilization_ratio"][kernel] == 0.2
        assert figures["jupyter_gpu_kernel_memory_used_bytes"][kernel] == GIB

    async def test_what_is_unknown_has_no_sample(self, metrics: GPUMetrics, crowd: Crowd) -> None:
        for function in ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetProcessUtilization"):
            crowd.stand_in.fail(function, NOT_SUPPORTED, crowd.uuids[0])
        metrics.start()
        await metrics.sampler.current()
        figures = await self.figures(metrics)
        assert figures["jupyter_gpu_device_power_watts"].keys() == {(crowd.uuids[1],)}
        assert {uuid for _, uuid in figures["jupyter_gpu_kernel_utilization_ratio"]} == {crowd.uuids[1]}

    async def test_a_lost_gpu_says_so_and_nothing_else_of_its_own(self, metrics: GPUMetrics, crowd: Crowd) -> None:
        crowd.stand_in.lose(crowd.uuids[0])
        metrics.start()
        await metrics.sampler.current()
        figures = await self.figures(metrics)
        assert figures["jupyter_gpu_device_lost"] == {(crowd.uuids[0],): 1, (crowd.uuids[1],): 0}
        assert figures["jupyter_gpu_device_memory_used_bytes"].keys() == {(crowd.uuids[1],)}

    async def test_old_figures_are_not_told_but_their_age_is(self, metrics: GPUMetrics) -> None:
        now = 1000.0
        metrics.sampler.close()
        metrics.sampler = GPUSampler(host=metrics.host, clock=lambda: now)
        await metrics.sampler.current()
        metrics.start()
        assert len(await self.figures(metrics)) > 10
        now += metrics.oldest_s + 1
        figures = await self.figures(metrics)
        assert figures == {"jupyter_gpu_kernels": {(): 4}, "jupyter_gpu_sample_age_seconds": {(): metrics.oldest_s + 1}}

    async def test_asking_never_asks_the_driver(self, metrics: GPUMetrics, crowd: Crowd) -> None:
        metrics.sampler.policy_interval_s = 3600
        metrics.start()
        await metrics.sampler.current()
        metrics._stay_awake()
        crowd.stand_in.log_calls()
        for _ in range(20):
            await self.figures(metrics)
            await asyncio.sleep(0)
        assert not crowd.stand_in.calls()

    async def test_of_two_servers_in_a_process_one_tells_and_the_other_takes_over(self, metrics: GPUMetrics) -> None:
        other = GPUMetrics(host=metrics.host, sampler=metrics.sampler)
        other.registry = metrics.registry
        metrics.start()
        other.start()
        assert (await self.figures(metrics))["jupyter_gpu_kernels"] == {(): 4}
        other.stop()
        assert (await self.figures(metrics))["jupyter_gpu_kernels"] == {(): 4}
        metrics.stop()
        assert await self.figures(metrics) == {}

    async def test_a_server_that_switches_them_off_tells_nothing(self, metrics: GPUMetrics) -> None:
        metrics.enabled = False
        metrics.start()
        assert await self.figures(metrics) == {}


def test_nothing_is_left_in_the_registry_by_the_tests_before() -> None:
    assert not [name for name in REGISTRY._names_to_collectors if name.startswith("jupyter_gpu_")]


def test_a_live_server_tells_them(tmp_path: Path, simulated_gpus: str) -> None:
    with live_server(tmp_path / "root", "--GPUSampler.policy_interval_s=0.2") as server:
        assert server.send("GET", "metrics", token=None)[0] == 403
        for _ in range(600):
            text = server.get("metrics")
            if "jupyter_gpu_device_memory_size_bytes{" in text:
                break
        assert len(figures_of(text)["jupyter_gpu_device_memory_size_bytes"]) == 4


class TestDashboard:
    @pytest.fixture
    def dashboard(self) -> dict[str, Any]:
        return dict(json.loads(DASHBOARD.read_text()))

    def test_it_can_be_imported(self, dashboard: dict[str, Any]) -> None:
        assert dashboard["id"] is None
        assert dashboard["title"]
        assert dashboard["schemaVersion"] >= 36
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
        assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
        for panel in dashboard["panels"]:
            assert panel["title"]
            position = panel["gridPos"]
            assert position["x"] + position["w"] <= 24
            for target in panel.get("targets", []):
                assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        spaces = [_cells(panel["gridPos"]) for panel in dashboard["panels"]]
        assert sum(map(len, spaces)) == len(set().union(*spaces)), "panels overlap"

    def test_it_shows_every_gauge_and_no_other(self, dashboard: dict[str, Any]) -> None:
        used = {
            name
            for panel in dashboard["panels"]
            for target in panel.get("targets", [])
            for name in re.findall(r"jupyter_gpu_\w+", target["expr"])
        }
        assert used == {*SERVER_GAUGES, *DEVICE_GAUGES, *KERNEL_GAUGES}

    def test_every_variable_that_it_uses_is_one_of_its_own(self, dashboard: dict[str, Any]) -> None:
        own = {variable["name"] for variable in dashboard["templating"]["list"]}
        used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text()))
        assert {name for name in used if not name.startswith("__")} == own


def _cells(position: dict[str, int]) -> set[tuple[int, int]]:
    return {
        (column, row)
        for column in range(position["x"], position["x"] + position["w"])
        for row in range(position["y"], position["y"] + position["h"])
    }
