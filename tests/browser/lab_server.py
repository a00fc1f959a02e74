"""A real Jupyter server in a process of its own, with simulated GPUs and nothing of the user's around it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
LABEXTENSION = REPOSITORY / "jupyter_gpu" / "labextension"
FOUR_GPUS = "4xNVIDIA A100-SXM4-40GB:40GiB"
TOKEN = "a-token-for-tests"
_SETTINGS: dict[str, dict[str, object]] = {
    # Questions that JupyterLab asks of new people would lie over what is to be seen.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"renameUntitledFileOnSave": False},
}
START_S = 60.0
STOP_S = 10.0


def wait_for(condition: Callable[[], T], what: str, timeout_s: float = 30.0) -> T:
    """The first true answer of `condition`; an `AssertionError` that says `what` did not come about in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"in {timeout_s:g} s there was no sign of this: {what}")
        time.sleep(0.05)


class LabServer:
    """`jupyter lab`, or `jupyter notebook`, until `stop`. Everything it reads and writes lies under `home`."""

    def __init__(
        self,
        home: Path,
        gpu_directory: Path,
        *,
        application: str = "lab",
        simulate: str | None = FOUR_GPUS,
        options: Sequence[str] = (),
    ) -> None:
        if not (LABEXTENSION / "package.json").exists():
            raise AssertionError("the JupyterLab extension is not built; run `jlpm && jlpm build` in labextension/")
        self.application = application
        self.root = home / "work"
        self._home = home
        self._gpu_directory = gpu_directory
        self._options = options
        self._environment = self._make_environment(simulate)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = home / "server.log"
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where a browser goes first."""
        path = "/lab" if self.application == "lab" else "/tree"
        return f"{self.base_url}{path}?token={TOKEN}"

    def start(self) -> None:
        """Start it, on the port that it had before if it ran before, and return once it answers."""
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyter", self.application, "--no-browser"),
                f"--ServerApp.port={self.port}",
                "--ServerApp.port_retries=0",
                f"--IdentityProvider.token={TOKEN}",
                f"--ServerApp.root_dir={self.root}",
                "--ServerApp.allow_root=True",
                f"--{'LabApp' if self.application == 'lab' else 'JupyterNotebookApp'}.expose_app_in_browser=True",
                *self._options,
            ],
            env=self._environment,
            stdout=self._log.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.port = wait_for(self._port, "the server's address in its runtime directory", START_S)
        wait_for(self._answers, "an answer from the server", START_S)

    def stop(self) -> None:
        """End it and all kernels that it started."""
        process = self._process
        if process is None:
            return
        self._process = None
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def kill(self) -> None:
        """End it as a crash would: without a chance to tidy up. Its kernels live on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def clear(self) -> None:
        """Leave nothing of what was done so far: no kernel, no wait, no file, no setting, no layout."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        for entry in self.rest("gpu/api/queue")["entries"]:
            self.rest(f"gpu/api/queue/{entry['id']}", "DELETE")
        for session in self.rest("api/sessions"):
            self.rest(f"api/sessions/{session['id']}", "DELETE")
        for kernel in self.rest("api/kernels"):
            self.rest(f"api/kernels/{kernel['id']}", "DELETE")
        wait_for(lambda: not self._leases(), "no lease on any device")
        for path in (self.root, self._home / "config" / "lab" / "workspaces", self._home / "settings" / "jupyter-gpu"):
            shutil.rmtree(path, ignore_errors=True)
        self.root.mkdir()

    def start_kernel(self, notebook: str, request: str, metadata: dict[str, Any] | None = None) -> str:
        """Start a session on a new notebook that asks for a GPU, as any client would, and return its kernel's id."""
        if not (self.root / notebook).exists():
            self.write_notebook(notebook, metadata={"jupyter_gpu": {"request": request, **(metadata or {})}})
        session = {"path": notebook, "name": notebook, "type": "notebook", "kernel": {"name": "python3"}}
        return str(self.rest("api/sessions", "POST", session)["kernel"]["id"])

    def configure(self, **settings: object) -> None:
        """Set a person's settings of the extension; pages that are loaded from now on heed them."""
        self.rest("lab/api/settings/jupyter-gpu:plugin", "PUT", {"raw": json.dumps(settings)})

    def run(self, *command: str) -> str:
        """What a command prints where the server runs."""
        arguments = [sys.executable, "-m", *command]
        done = subprocess.run(
            arguments, env=self._environment, capture_output=True, text=True, timeout=START_S, check=False
        )
        return done.stdout

    @property
    def log(self) -> str:
        """What it wrote to its standard output and error."""
        return self._log.read_text(errors="replace")

    def rest(self, path: str, method: str = "GET", body: object = None) -> Any:
        """The JSON that it answers at `path`, or `None` for an answer without content."""
        request = urllib.request.Request(
            f"{self.base_url}/{path.lstrip('/')}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {TOKEN}"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            content = response.read()
        return json.loads(content) if content else None

    def device(self, index: str) -> dict[str, Any]:
        """A device as the GPU API tells of it."""
        devices = self.rest("gpu/api/devices")["devices"]
        return next(device for device in devices if device["index"] == index)

    def holders(self, index: str) -> list[str]:
        """The labels of those who hold a lease on a device."""
        return [lease["owner"]["label"] for lease in self.device(index)["leases"]]

    def kernel_of(self, name: str) -> dict[str, Any]:
        """The GPU API's word on the kernel of a notebook."""
        session = next(session for session in self.rest("api/sessions") if session["name"] == name)
        kernel: dict[str, Any] = self.rest(f"gpu/api/kernels/{session['kernel']['id']}")
        return kernel

    def write_notebook(self, name: str, source: str = "", metadata: dict[str, Any] | None = None) -> Path:
        """A notebook of one cell in the server's directory."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
        cell = {
            "cell_type": "code",
            "id": "one",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        content = {"nbformat": 4, "nbformat_minor": 5, "metadata": {**plain, **(metadata or {})}, "cells": [cell]}
        path.write_text(json.dumps(content))
        return path

    def metadata(self, name: str) -> dict[str, Any]:
        """The metadata of a notebook as it is on disk."""
        content: dict[str, Any] = json.loads((self.root / name).read_text())
        return content["metadata"]

    def _leases(self) -> list[dict[str, Any]]:
        return [lease for device in self.rest("gpu/api/devices")["devices"] for lease in device["leases"]]

    def _make_environment(self, simulate: str | None) -> dict[str, str]:
        kept = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TERM", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        places = {
            "HOME": self._home,
            "TMPDIR": self._home / "tmp",
            "JUPYTER_GPU_RUNTIME_DIR": self._gpu_directory,
            "JUPYTER_CONFIG_DIR": self._home / "config",
            "JUPYTER_DATA_DIR": self._home / "data",
            "JUPYTER_RUNTIME_DIR": self._home / "runtime",
            "JUPYTER_PATH": self._home / "share",
            "JUPYTERLAB_SETTINGS_DIR": self._home / "settings",
            "IPYTHONDIR": self._home / "ipython",
        }
        for directory in (*places.values(), self.root):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The extension as it is built now, whatever is installed.
        extensions = self._home / "share" / "labextensions"
        extensions.mkdir(exist_ok=True)
        if not (extensions / "jupyter-gpu").exists():
            (extensions / "jupyter-gpu").symlink_to(LABEXTENSION)
        for plugin, settings in _SETTINGS.items():
            path = self._home / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings))
        environment.update({name: str(directory) for name, directory in places.items()})
        environment["JUPYTER_PLATFORM_DIRS"] = "1"
        if simulate is not None:
            environment["JUPYTER_GPU_SIMULATE"] = simulate
        return environment

    def _port(self) -> int:
        process = self._process
        assert process is not None
        if process.poll() is not None:
            raise AssertionError(f"the server ended with status {process.returncode}:\n{self.log}")
        information = self._home / "runtime" / f"jpserver-{process.pid}.json"
        try:
            return int(json.loads(information.read_text())["port"])
        except (OSError, ValueError, KeyError):
            return 0

    def _answers(self) -> bool:
        try:
            return "version" in self.rest("api")
        except (urllib.error.URLError, OSError):
            return False
