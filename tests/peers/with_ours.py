"""A pytest plugin for other projects' tests: their servers load our extension, as an installation's servers do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jupyter_gpu
from jupyter_gpu.host import GPUHost

_ENABLING_FILE = Path(jupyter_gpu.__file__).parent / "server" / "jupyter_gpu.json"


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Any:
    """Put the file that enables the extension where an installation has it, wherever a test has that be."""
    result = yield
    if fixturedef.argname == "jp_system_config_path":
        directory = Path(result) / "jupyter_server_config.d"
        directory.mkdir(exist_ok=True)
        shutil.copy(_ENABLING_FILE, directory)
    return result


@pytest.fixture(autouse=True)
def _one_host_per_server() -> Iterator[None]:
    """A host of its own for each test: a process runs one server, but theirs runs one after the other."""
    yield
    if GPUHost.initialized():
        GPUHost.instance().close()
        GPUHost.clear_instance()
