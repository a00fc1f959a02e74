"""Fixtures for all tests: a host of their own, in which no test sees another's leases or this machine's settings."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from live_server import ANSWER_TIMEOUT_S

from jupyter_gpu.host import GPUHost

pytest_plugins = ["pytest_jupyter.jupyter_server"]

FOUR_GPUS = "4xNVIDIA A100-SXM4-40GB:40GiB"
GIB = 1 << 30


@pytest.fixture(autouse=True)
def runtime_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The ledger's directory, new for every test. Its path is short: Unix sockets allow 107 characters."""
    for name in os.environ:
        if name.startswith(("JUPYTER_GPU", "CUDA_", "JUPYTER_DEFAULT_PROVISIONER")):
            monkeypatch.delenv(name)
    directory = Path(tempfile.mkdtemp(prefix="jg-"))
    monkeypatch.setenv("JUPYTER_GPU_RUNTIME_DIR", str(directory))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def simulated_gpus(monkeypatch: pytest.MonkeyPatch) -> str:
    """Four simulated A100."""
    monkeypatch.setenv("JUPYTER_GPU_SIMULATE", FOUR_GPUS)
    return FOUR_GPUS


@pytest.fixture
def fresh_singletons() -> Iterator[None]:
    """No host and no provisioner factory from the test before."""
    GPUHost.clear_instance()
    KernelProvisionerFactory.clear_instance()
    yield
    if GPUHost.initialized():
        GPUHost.instance().close()
    GPUHost.clear_instance()
    KernelProvisionerFactory.clear_instance()


@pytest.fixture
def host(simulated_gpus: str, fresh_singletons: None) -> GPUHost:
    """This process's host, on four simulated GPUs."""
    return GPUHost.instance()


@pytest.fixture
def jp_fetch(jp_fetch: Callable[..., Any]) -> Callable[..., Any]:
    """Ask the server, as patiently as a busy machine needs it: a kernel may start before it answers."""
    return partial(jp_fetch, request_timeout=ANSWER_TIMEOUT_S)


@pytest.fixture
def gpu_server_config() -> dict[str, object]:
    """What a test adds to the configuration of `jp_serverapp`."""
    return {}


@pytest.fixture
def jp_server_config(
    gpu_server_config: dict[str, object], simulated_gpus: str, fresh_singletons: None
) -> dict[str, object]:
    """A server with the extension, on four simulated GPUs."""
    return {"ServerApp": {"jpserver_extensions": {"jupyter_gpu": True}}, **gpu_server_config}
