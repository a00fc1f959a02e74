"""Whether CUDA is up is told exactly, and asking starts nothing. The driver is the stand-in `libcuda.so.1`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_stand_in import stand_in
from magic_kernel import StartKernel, leased

ASK = """
import ctypes
from jupyter_gpu.kernel.cuda import driver_state, environment_is_read
said = [driver_state()]
driver = ctypes.CDLL("libcuda.so.1")
said.append(driver_state())
driver.cuInit(0)
said.append(driver_state())
context = ctypes.c_void_p()
driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
said.append(driver_state())
driver.cuDevicePrimaryCtxRelease(0)
said.append(driver_state())
driver.cuCtxCreate_v2(ctypes.byref(context), 0, 0)
said.append(driver_state())
print(",".join(said), environment_is_read())
"""


@pytest.fixture
def driver() -> dict[str, str]:
    return {"LD_LIBRARY_PATH": str(stand_in("13"))}


def test_each_state_is_told_and_none_is_brought_about(driver: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, **driver},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["absent,loaded,initialized,active,initialized,active", "True"]


def test_without_a_driver_nothing_is_loaded_to_find_out(start_kernel: StartKernel, tmp_path: Path) -> None:
    kernel = start_kernel(variables=leased(tmp_path, 8 << 30))
    kernel.ok("%gpu")
    assert kernel.value("'libcuda' in open('/proc/self/maps').read()") is False


def test_a_kernel_in_which_cuda_is_initialised_says_why_its_devices_are_fixed(
    start_kernel: StartKernel, tmp_path: Path, driver: dict[str, str]
) -> None:
    kernel = start_kernel(variables={**leased(tmp_path, 8 << 30), **driver})
    reasons = "get_ipython()._jupyter_gpu_entrance.session.cuda_reasons()"
    kernel.ok("%gpu")
    assert kernel.value(reasons) == []
    kernel.ok("import ctypes; driver = ctypes.CDLL('libcuda.so.1')")
    assert kernel.value(reasons) == []
    kernel.ok("driver.cuInit(0)")
    assert kernel.value(reasons) == ["CUDA is initialised in this process, which has fixed the devices that it sees."]
