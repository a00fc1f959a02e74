"""Talking to kernels: start one, run code, get what it printed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from jupyter_client.manager import AsyncKernelManager

from jupyter_gpu.host import GPUHost
from jupyter_gpu.leases.lease import Lease, LeaseState

TIMEOUT_S = 60
PRINT_ENVIRONMENT = (
    "import os, json; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith(('CUDA', 'JUPYTER_GPU'))}))"
)


@contextlib.asynccontextmanager
async def running(manager: AsyncKernelManager, **launch: Any) -> AsyncIterator[Any]:
    """A client of a kernel that runs inside the `with`."""
    await manager.start_kernel(**launch)
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=TIMEOUT_S)
        yield client
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)


async def printed(client: Any, code: str) -> str:
    """What the code prints."""
    text: list[str] = []

    def collect(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            text.append(message["content"]["text"])

    reply = await client.execute_interactive(code, output_hook=collect, timeout=TIMEOUT_S)
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(text)


async def environment_of(client: Any) -> dict[str, str]:
    """The variables of a Python kernel that concern GPUs."""
    return dict(json.loads(await printed(client, PRINT_ENVIRONMENT)))


async def until(condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
    """What the condition gives, once that is true."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        await asyncio.sleep(0.02)
    raise AssertionError(f"waited {timeout_s} s in vain for {condition}")


def held(host: GPUHost) -> list[Lease]:
    """The leases that have been granted."""
    return [lease for lease in host.leases_now() if lease.state is LeaseState.HELD]


def waiting(host: GPUHost) -> list[Lease]:
    """The requests that wait."""
    return [lease for lease in host.leases_now() if lease.state is LeaseState.WAITING]
