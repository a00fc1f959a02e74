"""What is told of kernels that jupyter_server knows less of than usual."""

from __future__ import annotations

import datetime as dt

import pytest
from jupyter_server.services.kernels.kernelmanager import ServerKernelManager
from traitlets import TraitError

from jupyter_gpu.server.kernel_models import last_word


def test_a_kernel_whose_start_was_never_answered_has_no_last_word() -> None:
    manager = ServerKernelManager()
    with pytest.raises(TraitError):
        _ = manager.last_activity
    assert last_word(manager) is None
    manager.last_activity = dt.datetime.now(dt.timezone.utc)
    assert last_word(manager) == manager.last_activity
    assert last_word(None) is None
