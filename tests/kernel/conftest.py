"""Fixtures for tests of what runs inside kernels: environments with real frameworks, and kernels in them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kernel_environments import MissingPython, environment_python
from magic_kernel import MagicKernel, StartKernel, magic_kernel


def _python(name: str) -> Path:
    try:
        return environment_python(name)
    except MissingPython as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def frameworks_python() -> Path:
    """An interpreter with TensorFlow, PyTorch, JAX and Keras 3, and without jupyter_gpu."""
    return _python("frameworks")


@pytest.fixture(scope="session")
def theano_python() -> Path:
    """An interpreter with Theano 1.0.5 and TensorFlow 2.15, and without jupyter_gpu."""
    return _python("theano")


@pytest.fixture(scope="session")
def oldest_python() -> Path:
    """Python 3.7 with ipykernel, and without jupyter_gpu."""
    return _python("oldest")


@pytest.fixture
def start_kernel() -> Iterator[StartKernel]:
    """Starts kernels that end with the test."""
    with ExitStack() as stack:

        def start(python: str | Path = sys.executable, **options: Any) -> MagicKernel:
            return stack.enter_context(magic_kernel(python, **options))

        yield start
