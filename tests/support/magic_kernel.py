"""A real kernel with `%gpu` in it, started as the provisioner starts one, from any environment."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from jupyter_gpu.kernel.injection import magic_variables
from jupyter_gpu.limits.account import Account

TIMEOUT_S = 120
GIB = 1 << 30


@dataclass
class Output:
    """What a cell put out."""

    stdout: str = ""
    stderr: str = ""
    shown: list[dict[str, Any]] = field(default_factory=list)
    """The MIME bundles of results and displays, in order."""
    error: str | None = None
    traceback: str = ""

    @property
    def text(self) -> str:
        """All of it as plain text."""
        return self.stdout + "\n".join(str(bundle.get("text/plain", "")) for bundle in self.shown)

    @property
    def html(self) -> str:
        """All HTML of it."""
        return "\n".join(str(bundle.get("text/html", "")) for bundle in self.shown)


class MagicKernel:
    """A kernel that runs, and a client of it."""

    def __init__(self, client: BlockingKernelClient, manager: KernelManager) -> None:
        self.client = client
        self.manager = manager

    def run(self, code: str) -> Output:
        """What the cell puts out, errors included."""
        output = Output()

        def collect(message: dict[str, Any]) -> None:
            content, kind = message["content"], message["msg_type"]
            if kind == "stream" and content["name"] == "stdout":
                output.stdout += content["text"]
            elif kind == "stream":
                output.stderr += content["text"]
            elif kind in ("display_data", "execute_result"):
                output.shown.append(content["data"])
            elif kind == "error":
                output.error = f"{content['ename']}: {content['evalue']}"
                output.traceback = "\n".join(content["traceback"])

        status = "aborted"
        while status == "aborted":  # It may come while the kernel turns away what is in line behind a cell that failed.
            reply = self.client.execute_interactive(code, output_hook=collect, timeout=TIMEOUT_S)
            status = reply["content"]["status"]
        if status == "error" and output.error is None:
            # A usage error is told on stderr and in the reply, without a traceback.
            output.error = f"{reply['content'].get('ename')}: {reply['content'].get('evalue')}"
        return output

    def ok(self, code: str) -> Output:
        """What the cell puts out; an error in it fails the test."""
        output = self.run(code)
        assert output.error is None, output.traceback or output.error or output.stderr
        return output

    def value(self, expression: str, setup: str = "") -> Any:
        """The value of an expression that JSON can hold."""
        output = self.ok(f"{setup}\nimport json as _json\nprint('VALUE', _json.dumps({expression}))")
        return json.loads(output.stdout.rsplit("VALUE ", 1)[1])

    def complete(self, line: str) -> list[str]:
        """What the Tab key offers at the end of the line."""
        self.client.complete(line, len(line))
        content = self.client.get_shell_msg(timeout=TIMEOUT_S)["content"]
        return list(content["matches"])

    def inspect(self, text: str) -> str:
        """What `text?` shows, as plain text."""
        self.client.inspect(text, len(text))
        content = self.client.get_shell_msg(timeout=TIMEOUT_S)["content"]
        return str(content["data"].get("text/plain", ""))


class StartKernel(Protocol):
    """The fixture `start_kernel`: as `magic_kernel`, until the test ends."""

    def __call__(self, python: str | Path = ..., **options: Any) -> MagicKernel: ...


@contextmanager
def magic_kernel(
    python: str | Path,
    variables: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
    cwd: str | Path | None = None,
    startup: Path | None = None,
) -> Iterator[MagicKernel]:
    """A kernel of the interpreter `python`, with `%gpu`, until the `with` ends.

    Args:
        python: the interpreter.
        variables: added to its environment.
        argv: the kernel's command, where it is not the usual one.
        cwd: the directory that it starts in.
        startup: our startup file, where it is not this tree's own.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
    environment.update(variables or {})
    environment.update(magic_variables("python", environment))
    if startup is not None:
        environment["PYTHONSTARTUP"] = str(startup)
    command = list(argv or [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"])
    manager = KernelManager()
    manager._kernel_spec = KernelSpec(argv=command, language="python", display_name="test")
    # Not here, where the package could be imported from the working directory.
    manager.start_kernel(env=environment, cwd=str(cwd or tempfile.gettempdir()))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=TIMEOUT_S)
        yield MagicKernel(client, manager)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def leased(directory: Path, *caps: int | None, total: int = 40 * GIB, lease_id: str = "lease-1") -> dict[str, str]:
    """The environment of a kernel with a lease on as many devices as there are caps, in bytes, and its account."""
    uuids = [f"GPU-{number:08d}-0000-4000-8000-000000000000" for number in range(1, len(caps) + 1)]
    path = directory / lease_id
    Account.create(path, lease_id, [(uuid, cap, total) for uuid, cap in zip(uuids, caps, strict=True)]).close()
    return {
        "JUPYTER_GPU_LEASE": lease_id,
        "JUPYTER_GPU_ACCOUNT": str(path),
        "CUDA_VISIBLE_DEVICES": ",".join(uuids) or "-1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
