"""`%gpu` beside the interposer: real allocations at the driver API, on the stand-in driver, counted exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
from cuda_stand_in import GIB, UUIDS, environment, new_account
from magic_kernel import MagicKernel, StartKernel

DRIVER = """
import ctypes
driver = ctypes.CDLL("libcuda.so.1")
def start():
    context = ctypes.c_void_p()
    assert driver.cuInit(0) == 0 and driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert driver.cuCtxSetCurrent(context) == 0
def take(size):
    pointer = ctypes.c_uint64()
    return pointer.value if driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)) == 0 else None
def give(pointer):
    driver.cuMemFree_v2(ctypes.c_uint64(pointer))
"""


@pytest.fixture
def kernel(start_kernel: StartKernel, tmp_path: Path) -> MagicKernel:
    account = new_account(tmp_path, 2 * GIB)
    lease = {"JUPYTER_GPU_LEASE": "lease-of-a-test", "CUDA_VISIBLE_DEVICES": UUIDS[0]}
    running = start_kernel(variables={**environment(account), **lease})
    running.ok(DRIVER)
    return running


def test_a_cells_peak_is_exact_and_a_refusal_at_the_cap_is_told(kernel: MagicKernel) -> None:
    kernel.ok("start()")
    output = kernel.ok("%%gpu --json\na = take(1 << 30); b = take(1 << 29); give(b); refused = take(2 << 30)")
    [device] = output.shown[-1]["application/json"]["devices"]
    assert device["peak_kind"] == "exact"
    assert device["peak_bytes"] == GIB + GIB // 2
    assert device["change_bytes"] == GIB
    assert kernel.value("refused") is None
    said = kernel.ok("%gpu").text
    assert "1 GiB of 2 GiB, peak 1.5 GiB" in said
    assert "1 allocation refused at the cap" in said
    assert "interposer" in kernel.value("state['layers']", "state = %gpu")


def test_an_interposed_kernel_that_has_not_touched_cuda_can_still_change_devices(kernel: MagicKernel) -> None:
    reasons = "get_ipython()._jupyter_gpu_entrance.session.cuda_reasons()"
    kernel.ok("%gpu")
    assert kernel.value(reasons) == []
    kernel.ok("start()")
    assert kernel.value(reasons) == ["CUDA is initialised in this process, which has fixed the devices that it sees."]


def test_a_fraction_applies_to_the_capped_total_that_frameworks_see(kernel: MagicKernel) -> None:
    total = "get_ipython()._jupyter_gpu_entrance.session.visible_total(0)"
    kernel.ok("%gpu")
    assert kernel.value(total) == 2 * GIB
