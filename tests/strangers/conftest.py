"""One server for all strangers of a module, with a kernel that has something to lose."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import live_server
from stranger import NOTEBOOK, Stranger, Victim


@pytest.fixture(scope="module")
def victim() -> Iterator[Victim]:
    directory = Path(tempfile.mkdtemp(prefix="jg-"))
    runtime = directory / "run"
    environment = {"JUPYTER_GPU_RUNTIME_DIR": str(runtime), "JUPYTER_GPU_SIMULATE": "4xNVIDIA A100-SXM4-40GB:40GiB"}
    with live_server(directory / "root", environment=environment) as server:
        session = server.start_session(NOTEBOOK, "python3-gpu1")
        kernel = server.get(f"gpu/api/kernels/{session['kernel']['id']}")
        yield Victim(server, Stranger(server.url), kernel["kernel_id"], runtime, kernel["devices"][0]["uuid"])
    shutil.rmtree(directory, ignore_errors=True)
