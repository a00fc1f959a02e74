"""One server through a driver that hangs, loses a GPU, gets it back, and is replaced by another version."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from light_kernels import BARE, expect_unharmed, install_light_kernel
from live_server import LiveServer, live_server
from nvml_stand_in import DRIVER_NOT_LOADED, UNKNOWN, VERSION_MISMATCH, NVMLStandIn
from until import until

from jupyter_gpu.devices.processes import environment_value

GIB = 1 << 30
HANG_S = 10
OPTIONS = (
    "--GPUHost.survey_timeout_s=1",
    "--GPUSampler.interval_s=0.2",
    "--NVMLBackend.retry_interval_s=0.2",
    "--NVMLBackend.inventory_interval_s=0.2",
)
EVERYTHING = ("api", "api/kernels", "api/kernelspecs", "gpu/api/status", "gpu/api/devices", "gpu/api/kernels")


class Host:
    """A server on three GPUs, and a kernel on the first that has to live through everything."""

    def __init__(self, server: LiveServer, driver: NVMLStandIn) -> None:
        self.server, self.driver = server, driver
        self.uuids = [gpu.uuid for gpu in driver.gpus]
        self._count = 0
        until(lambda: len(self.devices()) == 3)
        self.first = self.start("first")
        driver.add_process(self.uuids[0], self.first["pid"], 5 * GIB)

    def start(self, spec: str) -> dict[str, Any]:
        """A new kernel's model."""
        self._count += 1
        session = self.server.start_session(f"{spec}-{self._count}.ipynb", spec)
        return self.kernel(session["kernel"]["id"])

    def end(self, kernel: dict[str, Any]) -> None:
        assert self.server.send("DELETE", f"api/kernels/{kernel['kernel_id']}")[0] == 204

    def kernel(self, kernel_id: str) -> dict[str, Any]:
        return dict(self.server.get(f"gpu/api/kernels/{kernel_id}"))

    def answer(self) -> dict[str, Any]:
        return dict(self.server.get("gpu/api/devices"))

    def devices(self) -> list[dict[str, Any]]:
        return list(self.answer()["devices"])

    def problems(self) -> list[str]:
        return [problem["code"] for problem in self.server.get("gpu/api/status")["problems"]]

    def expect_well(self) -> None:
        """All three GPUs are there, and the first kernel holds what it held from the beginning."""
        until(lambda: self.answer()["stale"] is None)
        until(lambda: [device["lost"] for device in self.devices()] == [False] * 3)
        until(lambda: self.kernel(self.first["kernel_id"])["devices"][0]["used_bytes"] == 5 * GIB)
        # Of whichever look ended last, which may have begun before the one that those figures are of.
        until(lambda: self.problems() == [])
        expect_unharmed(self.server, self.first)
        kernel = self.start("third")
        assert (kernel["state"], [device["uuid"] for device in kernel["devices"]]) == ("running", [self.uuids[2]])
        self.end(kernel)
        assert [device["reserved_bytes"] for device in self.devices()] == [8 * GIB, 0, 0]


@pytest.fixture(scope="module")
def shared_host() -> Iterator[Host]:
    base = Path(tempfile.mkdtemp(prefix="jg-"))
    driver = NVMLStandIn(base / "state")
    for _ in range(3):
        driver.add_gpu()
    for name, request in {"first": "0:8GiB", "second": "1:8GiB", "third": "2:all", "any": "auto:4GiB"}.items():
        install_light_kernel(base / "data", name, request)
    environment = {**driver.environment(), "JUPYTER_GPU_RUNTIME_DIR": str(base / "rt")}
    try:
        with live_server(base / "root", *OPTIONS, *BARE, environment=environment) as server:
            yield Host(server, driver)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def test_a_driver_that_hangs_for_ten_seconds(host: Host) -> None:
    """Everything is answered meanwhile, from what was seen last, and kernels get GPUs by it."""
    host.driver.set_latency(HANG_S * 1_000_000, "nvmlDeviceGetTemperature")
    until(lambda: host.answer()["stale"])
    # Whoever is in the call now stays in it for ten seconds; nobody after.
    host.driver.set_latency(0, "nvmlDeviceGetTemperature")
    answers = 0
    kernel = host.start("second")
    assert (kernel["state"], kernel["devices"][0]["uuid"]) == ("running", host.uuids[1])
    while host.answer()["stale"]:
        for path in EVERYTHING:
            host.server.get(path)
        assert host.devices()[0]["memory_used_bytes"] == 5 * GIB
        answers += 1
    assert answers > 0, "not one round of answers came while the driver hung"
    host.end(kernel)


def test_a_gpu_that_is_lost_and_comes_back(host: Host) -> None:
    host.driver.lose(host.uuids[0])
    lost = until(lambda: (kernel := host.kernel(host.first["kernel_id"]))["state"] == "lost" and kernel)
    assert lost["lease_id"] == host.first["lease_id"]
    assert lost["devices"][0]["used_bytes"] is None
    assert lost["devices"][0]["reasons"]["used_bytes"]
    # Of whichever look ended last, as above.
    [problem] = until(lambda: host.server.get("gpu/api/status")["problems"])
    assert "GPU 0" in problem["message"]
    assert problem["advice"]
    others = [host.start("any") for _ in range(3)]
    assert {device["uuid"] for kernel in others for device in kernel["devices"]} <= set(host.uuids[1:])
    assert [kernel["state"] for kernel in others] == ["running"] * 3
    for kernel in others:
        host.end(kernel)
    host.driver.found(host.uuids[0])


def test_a_kernel_that_asks_for_a_lost_gpu(host: Host) -> None:
    host.driver.lose(host.uuids[1], until_init=True)
    until(lambda: host.devices()[1]["lost"])
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(host.start, "second")
        [entry] = until(lambda: host.server.get("gpu/api/queue")["entries"])
        assert entry["message"] == "waits for 8 GiB on GPU 1, which does not answer"
        host.driver.found(host.uuids[1])
        kernel = starting.result()
    assert (kernel["state"], kernel["devices"][0]["uuid"]) == ("running", host.uuids[1])
    host.end(kernel)


@pytest.mark.parametrize("code", [VERSION_MISMATCH, DRIVER_NOT_LOADED, UNKNOWN])
def test_a_driver_that_is_replaced(host: Host, code: int) -> None:
    """As an upgrade does it: the library on disk is newer than the module in the kernel until that is loaded again."""
    version = host.driver.driver_version
    holder = host.start("third")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(host.start, "third")
        until(lambda: host.server.get("gpu/api/queue")["entries"])
        host.driver.break_driver(code)
        [problem] = until(lambda: host.server.get("gpu/api/status")["problems"])
        assert problem["message"]
        assert problem["advice"]
        kernel = host.start("second")
        assert (kernel["state"], kernel["devices"]) == ("problem", [])
        assert environment_value(kernel["pid"], "CUDA_VISIBLE_DEVICES") == "-1"
        assert "there is no GPU here" in kernel["notices"][0]
        first = host.kernel(host.first["kernel_id"])
        assert (first["pid"], first["lease_id"]) == (host.first["pid"], host.first["lease_id"])
        host.driver.driver_version = f"{version}.1"
        host.driver.repair_driver()
        until(lambda: host.problems() == [])
        assert [entry["label"][:5] for entry in host.server.get("gpu/api/queue")["entries"]] == ["third"]
        host.end(holder)
        waited = waiting.result()
        assert (waited["state"], waited["notices"]) == ("running", [])
    host.end(kernel)
    host.end(waited)
