"""PyTorch in a kernel with a lease on two devices, on its CPU build.

CUDA is a thin stand-in at PyTorch's edge: the functions of `torch._C` that a CUDA build has. What runs over them, the
lazy initialisation and the allocator's front end, is PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from magic_kernel import MagicKernel, leased, magic_kernel

pytestmark = pytest.mark.timeout(300)

GIB = 1 << 30
STAND_IN = """
import torch, os
C = torch._C
fractions, held = {}, {0: [3 << 30, 5 << 30, 4 << 30], 1: [0, 0, 0]}
class Properties:
    total_memory = 40 << 30
C._cuda_init = lambda: None
C._cuda_getDeviceCount = lambda: 2
C._cuda_getDevice = lambda: 0
C._cuda_setMemoryFraction = lambda fraction, device: fractions.__setitem__(device, fraction)
C._cuda_getMemoryFraction = lambda device: fractions.get(device, 1.0)
def _stats(device):
    used, reserved, peak = held[device]
    allocated = {"current": used, "peak": peak}
    return {"allocated_bytes": {"all": allocated}, "reserved_bytes": {"all": {"current": reserved}}}
C._cuda_memoryStats = _stats
C._cuda_emptyCache = lambda: [each.__setitem__(1, each[0]) for each in held.values()]
C._cuda_ipc_collect = lambda: None
torch.cuda._cudart = object()
torch.cuda._get_device_properties = lambda device: Properties
def forget():
    fractions.clear()
    held.update({0: [3 << 30, 5 << 30, 4 << 30], 1: [0, 0, 0]})
    torch.cuda._initialized = False
"""
LEFT = [(8 * GIB - 8 * GIB * 6 // 100) / (40 * GIB), (16 * GIB - 16 * GIB * 6 // 100) / (40 * GIB)]
"""The caps less 6 %, as parts of a device of 40 GiB."""


@pytest.fixture(scope="module")
def module_kernel(frameworks_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MagicKernel]:
    variables = leased(tmp_path_factory.mktemp("lease"), 8 * GIB, 16 * GIB)
    with magic_kernel(frameworks_python, variables=variables) as running:
        yield running


@pytest.fixture
def kernel(module_kernel: MagicKernel) -> MagicKernel:
    if not module_kernel.value("'held' in globals()"):
        module_kernel.ok(STAND_IN)
    module_kernel.ok(
        "forget()\n_e = get_ipython()._jupyter_gpu_entrance.session\n_e.wishes.clear(); _e.notices.clear()\n"
        "_f = _e.framework('torch'); _f._ours.clear()\n"
        "os.environ.pop('PYTORCH_ALLOC_CONF', None)"
    )
    return module_kernel


def fractions(kernel: MagicKernel) -> list[float]:
    return list(kernel.value("[fractions.get(d) for d in (0, 1)]"))


def test_an_import_limits_it_without_starting_cuda(module_kernel: MagicKernel) -> None:
    module_kernel.ok("import torch\nqueued = len(torch.cuda._queued_calls)")
    assert module_kernel.value("torch.cuda.is_initialized()") is False
    assert module_kernel.value("sum('jupyter_gpu' in c.__module__ for c, _ in torch.cuda._queued_calls)") == 1
    assert "CUDA is not up" in module_kernel.ok("%gpu torch").text
    # CUDA comes up for the first time: what was queued at the import runs.
    module_kernel.ok(STAND_IN + "torch.cuda.init()")
    assert fractions(module_kernel) == pytest.approx(LEFT)


def test_a_limit_is_live(kernel: MagicKernel) -> None:
    kernel.ok("torch.cuda.init()")
    said = kernel.ok("%gpu torch --memory GPU-00000001=4GiB,GPU-00000002=2GiB").text
    assert "4 GiB on GPU-00000001 and 2 GiB on GPU-00000002, from now on" in said
    assert "already holds 5 GiB" in said
    assert fractions(kernel) == pytest.approx([0.1, 0.05])
    kernel.ok("%gpu torch --fraction 0.5")
    assert fractions(kernel) == [0.5, 0.5]


def test_asked_before_cuda_is_up_it_holds_from_then_on(kernel: MagicKernel) -> None:
    assert "as soon as it starts CUDA" in kernel.ok("%gpu torch --memory 4GiB").text
    assert fractions(kernel) == [None, None]
    kernel.ok("torch.cuda.init()")
    assert fractions(kernel) == pytest.approx([0.1, 0.1])


def test_what_the_program_sets_afterwards_stands_and_is_reported(kernel: MagicKernel) -> None:
    kernel.ok("torch.cuda.init()\ntorch.cuda.set_per_process_memory_fraction(0.05, 0)")
    assert "memory fraction cuda:0 = 0.05, set by you" in kernel.ok("%gpu").text


def test_an_allocator_option_of_the_user_stands_and_is_reported(kernel: MagicKernel) -> None:
    kernel.ok("os.environ['PYTORCH_ALLOC_CONF'] = 'per_process_memory_fraction:0.3'\n_f._when_up()\ntorch.cuda.init()")
    assert fractions(kernel) == [None, None]
    said = kernel.ok("%gpu").text
    assert "keeps the per_process_memory_fraction that you set in PYTORCH_ALLOC_CONF" in said
    assert "PYTORCH_ALLOC_CONF = per_process_memory_fraction:0.3, set by you" in said


def test_where_the_total_is_capped_already_it_is_not_capped_twice(kernel: MagicKernel) -> None:
    kernel.ok("Properties.total_memory = 8 << 30\ntorch.cuda.init()\n_f._set()")
    try:
        # 8 GiB less 6 % of the 8 GiB that it sees, not of the 40 GiB that there are; and no more than all of it.
        assert fractions(kernel) == pytest.approx([0.94, 1.0], abs=1e-6)
    finally:
        kernel.ok("Properties.total_memory = 40 << 30")


def test_free_says_what_came_back_and_what_still_holds_on(kernel: MagicKernel) -> None:
    kernel.ok("torch.cuda.init()")
    said = kernel.ok("%gpu free").text
    assert "PyTorch gave back 2 GiB on GPU-00000001" in said
    assert "PyTorch holds 3 GiB on GPU-00000001 in tensors" in said
    assert kernel.value("held[0][1]") == 3 * GIB


def test_what_it_holds_is_told(kernel: MagicKernel) -> None:
    kernel.ok("torch.cuda.init()")
    [held] = kernel.value("[h for f in s['frameworks'] if f['name'] == 'torch' for h in f['holds']]", "s = %gpu")
    assert (held["used_bytes"], held["cached_bytes"], held["peak_bytes"]) == (3 * GIB, 2 * GIB, 4 * GIB)


def test_new_devices_are_counted_anew(kernel: MagicKernel) -> None:
    kernel.ok("torch.cuda._cached_device_count = 1\n_f.devices_changed()")
    assert kernel.value("torch.cuda._cached_device_count") is None
