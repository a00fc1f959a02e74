"""A driver that hangs for good, under a real server: what clients see, and that all else goes on."""

from __future__ import annotations

import time
from pathlib import Path

from live_server import live_server
from nvml_stand_in import NVMLStandIn

GIB = 1 << 30
_FOR_EVER_US = 600_000_000


def test_a_driver_that_hangs_leaves_the_last_figures_the_leases_of_now_and_the_server(tmp_path: Path) -> None:
    driver = NVMLStandIn(tmp_path / "state")
    for _ in range(2):
        driver.add_gpu(used_bytes=GIB)
    root, options = tmp_path / "root", ("--GPUHost.survey_timeout_s=1", "--GPUSampler.interval_s=0.2")
    with live_server(root, *options, environment=driver.environment()) as server:
        assert server.get("gpu/api/devices")["stale"] is None
        session = server.start_session("a.ipynb")
        driver.set_latency(_FOR_EVER_US, "nvmlDeviceGetTemperature")
        end = time.monotonic() + 30
        devices = server.get("gpu/api/devices")
        while devices["stale"] is None and time.monotonic() < end:
            devices = server.get("gpu/api/devices")
        assert devices["stale"].startswith("The GPU driver has not answered for ")
        assert [device["memory_used_bytes"] for device in devices["devices"]] == [GIB, GIB]
        assert server.get("gpu/api/kernels")["stale"] is not None

        begin = time.monotonic()
        for path in ("api/status", "gpu/api/devices", "gpu/api/kernels", "gpu/api/queue", "gpu/api/history"):
            server.get(path)
        assert time.monotonic() - begin < 1

        second = server.start_session("b.ipynb")
        server.end_session(session)
        devices = server.get("gpu/api/devices")
        labels = [lease["owner"]["label"] for device in devices["devices"] for lease in device["leases"]]
        assert labels == ["b.ipynb"], "leases need no driver"
        server.end_session(second)

        server.process.terminate()
        assert server.process.wait(20) == 0
