"""A kernel reaches its server over a Unix socket, where it can see everything and change itself only."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kernel_client import TIMEOUT_S, environment_of, held, until
from magic_kernel import Output

from jupyter_gpu.host import GPUHost
from jupyter_gpu.kernel.channel import Channel, ChannelError
from jupyter_gpu.leases.lease import Ask, Origin, Owner

GIB = 1 << 30


class Notebook:
    """A kernel of the test's server, started for a notebook, and a client of it."""

    def __init__(self, kernel_id: str, client: Any) -> None:
        self.kernel_id = kernel_id
        self.client = client

    async def run(self, code: str) -> Output:
        output = Output()

        def collect(message: dict[str, Any]) -> None:
            content, kind = message["content"], message["msg_type"]
            if kind == "stream":
                name = content["name"]
                setattr(output, name, getattr(output, name) + content["text"])
            elif kind in ("display_data", "execute_result"):
                output.shown.append(content["data"])

        status = "aborted"
        while status == "aborted":  # It may come while the kernel turns away what is in line behind a cell that failed.
            reply = await self.client.execute_interactive(code, output_hook=collect, timeout=TIMEOUT_S)
            status = reply["content"]["status"]
        if status == "error":
            output.error = f"{reply['content'].get('ename')}: {reply['content'].get('evalue')}"
        return output


@pytest.fixture
def server(jp_serverapp: Any, jp_asyncio_loop: asyncio.AbstractEventLoop) -> Any:
    """The server as it is once it runs: what its extensions do then has been done."""
    jp_asyncio_loop.run_until_complete(jp_serverapp.extension_manager.start_all_extensions())
    return jp_serverapp


@pytest.fixture
def start(server: Any, jp_fetch: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    clients = []

    async def started(path: str = "work.ipynb", kernel: str = "python3") -> Notebook:
        body = {"path": path, "name": path, "type": "notebook", "kernel": {"name": kernel}}
        answer = await jp_fetch("api/sessions", method="POST", body=json.dumps(body))
        kernel_id = json.loads(answer.body)["kernel"]["id"]
        client = server.kernel_manager.get_kernel(kernel_id).client()
        client.start_channels()
        clients.append(client)
        await client.wait_for_ready(timeout=TIMEOUT_S)
        return Notebook(kernel_id, client)

    yield started
    for client in clients:
        client.stop_channels()


def host() -> GPUHost:
    return GPUHost.instance()


async def test_the_socket_is_the_users_alone_and_goes_with_the_server(server: Any, runtime_directory: Path) -> None:
    [path] = runtime_directory.glob("server-*.sock")
    status = path.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == os.getuid()
    await server.extension_manager.stop_all_extensions()
    assert not path.exists()


async def test_sockets_of_servers_that_died_are_cleared_away(runtime_directory: Path, jp_serverapp: Any) -> None:
    dead = runtime_directory / "server-4194000-1.sock"
    dead.touch()
    await jp_serverapp.extension_manager.start_all_extensions()
    assert not dead.exists()


class TestSeeing:
    async def test_a_kernel_sees_itself_and_everybody_on_the_devices(self, start: Any) -> None:
        first, second = await start("first.ipynb", "python3-gpu1"), await start("second.ipynb", "python3-gpu1")
        await second.run("import jupyter_gpu.simulated as s; a = s.allocate('3GiB')")
        said = (await first.run("%gpu list")).text
        assert "1 (this kernel)" in said
        assert "first.ipynb (shared, 0 B in use)" in said
        assert "second.ipynb (shared, 3 GiB in use)" in said
        assert "These GPUs are simulated." in said
        shown = (await second.run("%gpu")).text
        assert "GPU 1 · NVIDIA A100-SXM4-40GB" in shown
        assert "3 GiB of 40 GiB, peak 3 GiB" in shown

    async def test_a_hostile_notebook_name_is_text(self, start: Any) -> None:
        name = "<img src=x onerror=alert(1)>.ipynb"
        notebook = await start(name, "python3-gpu0")
        html = (await notebook.run("%gpu list")).html
        assert "<img" not in html
        assert "&lt;img src=x onerror=alert(1)&gt;.ipynb" in html


class TestUseInPlace:
    async def test_other_devices_at_once_while_cuda_is_not_up(self, start: Any) -> None:
        notebook = await start(kernel="python3-gpu0")
        [before] = held(host())
        uuids = [device.uuid for device in host().inventory.devices]
        said = (await notebook.run("%gpu use 2:8GiB")).text
        assert "work.ipynb has GPU 2:8GiB now." in said
        [lease] = held(host())
        assert lease.id != before.id
        assert [hold.uuid for hold in lease.holds] == [uuids[2]]
        environment = await environment_of(notebook.client)
        assert environment["CUDA_VISIBLE_DEVICES"] == uuids[2]
        assert environment["JUPYTER_GPU_LEASE"] == lease.id
        shown = (await notebook.run("%gpu")).text
        assert "GPU 2" in shown
        assert "of 8 GiB" in shown
        refused = await notebook.run("import jupyter_gpu.simulated as s; a = s.allocate('9GiB')")
        assert "cap of this kernel is 8 GiB" in str(refused.error)

    async def test_to_the_cpu_and_back(self, start: Any) -> None:
        notebook = await start(kernel="python3-gpu0")
        assert "has cpu now" in (await notebook.run("%gpu cpu")).text
        assert (await environment_of(notebook.client))["CUDA_VISIBLE_DEVICES"] == "-1"
        assert "This kernel has no GPU" in (await notebook.run("%gpu")).text
        assert "has auto:4GiB now" in (await notebook.run("%gpu use auto:4GiB")).text
        [lease] = held(host())
        assert [hold.bytes for hold in lease.holds] == [4 * GIB]

    async def test_the_lease_lives_with_the_kernel_and_ends_with_it(
        self, start: Any, jp_fetch: Callable[..., Any]
    ) -> None:
        notebook = await start(kernel="python3-gpu0")
        await notebook.run("%gpu use 3:4GiB")
        [lease] = held(host())
        await jp_fetch(f"api/kernels/{notebook.kernel_id}/restart", method="POST", body="{}")
        await notebook.client.wait_for_ready(timeout=TIMEOUT_S)
        assert [each.request for each in held(host())] == ["3:4GiB"]
        assert "GPU 3" in (await notebook.run("%gpu")).text
        await jp_fetch(f"api/kernels/{notebook.kernel_id}", method="DELETE")
        assert held(host()) == []
        assert lease.request == "3:4GiB"

    async def test_what_is_held_keeps_the_devices_until_a_restart(self, start: Any) -> None:
        notebook = await start(kernel="python3-gpu0")
        await notebook.run("import jupyter_gpu.simulated as s; a = s.allocate('1GiB')")
        said = (await notebook.run("%gpu use 2")).text
        assert "This process holds memory on GPU 0." in said
        assert "%gpu use 2 --restart" in said
        assert "GPU 0" in (await notebook.run("%gpu")).text
        [lease] = held(host())
        assert lease.request == "0"

    async def test_memory_on_the_same_device_changes_while_it_is_in_use(self, start: Any) -> None:
        notebook = await start(kernel="python3-gpu0")
        await notebook.run("import jupyter_gpu.simulated as s; a = s.allocate('1GiB')")
        assert "has GPU 0:6GiB now" in (await notebook.run("%gpu memory 6GiB")).text
        assert "1 GiB of 6 GiB" in (await notebook.run("%gpu")).text

    async def test_what_cannot_be_had_now_is_refused_and_nothing_changes(self, start: Any) -> None:
        notebook = await start(kernel="python3-gpu0")
        await asyncio.to_thread(
            host().wait_now, Ask("other", "1:all", Origin.ENVIRONMENT, Owner("command", "other"), host().process)
        )
        refused = await notebook.run("%gpu use 1:8GiB")
        assert refused.stderr.startswith("UsageError: The GPU of this kernel stays as it is:")
        assert "GPU 0" in (await notebook.run("%gpu")).text

    @pytest.mark.parametrize(
        ("request_", "words"), [("9", "there is no GPU 9"), ("0:8", "no unit"), ("0:4TiB", "0"), ("gpu", "'gpu'")]
    )
    async def test_a_request_that_is_none_is_one_sentence(self, start: Any, request_: str, words: str) -> None:
        notebook = await start(kernel="python3-gpu0")
        refused = await notebook.run(f"%gpu use {request_}")
        assert words in refused.stderr
        assert refused.stderr.count("\n") == 1


class TestRestart:
    async def test_use_with_restart_restarts_on_the_new_device(self, start: Any) -> None:
        notebook = await start(kernel="python3-gpu0")
        await notebook.run("import jupyter_gpu.simulated as s; a = s.allocate('1GiB')")
        # The kernel is gone before it can answer.
        notebook.client.execute("%gpu use 2:8GiB --restart")
        await until(lambda: [lease.request for lease in held(host())] == ["2:8GiB"])
        await until(lambda: host().kernels.get(notebook.kernel_id).state == "running")
        await notebook.client.wait_for_ready(timeout=TIMEOUT_S)
        assert "GPU 2" in (await notebook.run("%gpu")).text
        assert (await notebook.run("a")).error == "NameError: name 'a' is not defined"

    async def test_what_was_asked_of_a_framework_holds_after_the_restart_that_it_takes(self, start: Any) -> None:
        notebook = await start(kernel="python3-gpu0")
        await notebook.run("marker = 1")
        notebook.client.execute("%gpu tf --memory 3GiB --restart")
        pid = host().kernels.get(notebook.kernel_id).pid
        await until(lambda: host().kernels.get(notebook.kernel_id).pid not in (None, pid))
        await notebook.client.wait_for_ready(timeout=TIMEOUT_S)
        said = await notebook.run("%gpu tf")
        assert "It will get 3 GiB on GPU 0." in said.text
        assert (await notebook.run("marker")).error == "NameError: name 'marker' is not defined"


class TestAuthority:
    async def test_one_kernel_cannot_act_on_another(self, start: Any) -> None:
        mine, other = await start("mine.ipynb", "python3-gpu0"), await start("other.ipynb", "python3-gpu1")
        code = (
            "c = get_ipython()._jupyter_gpu_entrance.session.channel\n"
            f"c.patch('kernels/{other.kernel_id}', {{'request': 'cpu'}})"
        )
        refused = await mine.run(code)
        assert "a kernel can see and change only itself" in str(refused.error).lower()
        environment = await environment_of(other.client)
        stolen = (
            "from _jupyter_gpu.kernel.channel import Channel\n"
            f"Channel({environment['JUPYTER_GPU_SOCKET']!r}, {environment['JUPYTER_GPU_LEASE']!r}).get('kernels/self')"
        )
        assert "ChannelError" in str((await mine.run(stolen)).error)
        assert {lease.request for lease in held(host())} == {"0", "1"}

    async def test_a_process_that_no_kernel_started_is_nobody(self, start: Any) -> None:
        notebook = await start(kernel="python3-gpu0")
        environment = await environment_of(notebook.client)
        stranger = Channel(environment["JUPYTER_GPU_SOCKET"], environment["JUPYTER_GPU_LEASE"])
        with pytest.raises(ChannelError) as caught:
            await asyncio.to_thread(stranger.get, "kernels/self")
        assert caught.value.status == 403

    async def test_a_child_of_the_kernel_acts_for_it(self, start: Any) -> None:
        notebook = await start(kernel="python3-gpu0")
        program = (
            "import os; from jupyter_gpu.kernel.channel import Channel\n"
            "channel = Channel(os.environ['JUPYTER_GPU_SOCKET'], os.environ['JUPYTER_GPU_LEASE'])\n"
            "print(channel.get('kernels/self')['kernel_id'])"
        )
        code = (
            "import subprocess, sys\n"
            f"print(subprocess.run([sys.executable, '-c', {program!r}], capture_output=True, text=True).stdout)"
        )
        assert notebook.kernel_id in (await notebook.run(code)).stdout

    async def test_only_what_a_kernel_needs_is_there(self, start: Any) -> None:
        notebook = await start(kernel="python3-gpu0")
        for path in ("../../api/contents", "../../api/kernels", "kernels"):
            code = f"get_ipython()._jupyter_gpu_entrance.session.channel.get({path!r})"
            assert "404" in str((await notebook.run(code)).error) or "Not Found" in str(
                (await notebook.run(code)).error
            )


def test_a_server_that_is_gone_is_said_to_be_gone(runtime_directory: Path) -> None:
    code = f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({str(runtime_directory / 'x.sock')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    with pytest.raises(ChannelError, match="does not listen any more"):
        Channel(str(runtime_directory / "x.sock"), "lease").get("status")


def test_without_a_server_it_says_what_it_would_need() -> None:
    with pytest.raises(ChannelError, match="start it from JupyterLab with jupyter_gpu installed there"):
        Channel("").get("status")
