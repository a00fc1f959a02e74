"""CuPy, by a thin stand-in for its package (`tests/support/cupy_stand_in`) on the stand-in CUDA driver."""

from __future__ import annotations

from pathlib import Path

import pytest
from cuda_stand_in import stand_in
from magic_kernel import MagicKernel, StartKernel, leased

GIB = 1 << 30
STAND_IN = Path(__file__).parents[1] / "support" / "cupy_stand_in"
LIMITS = "[cupy.get_default_memory_pool().limits[d] for d in (0, 1)]"


@pytest.fixture
def kernel(start_kernel: StartKernel, tmp_path: Path) -> MagicKernel:
    variables = {
        **leased(tmp_path, 8 * GIB, 16 * GIB),
        "PYTHONPATH": str(STAND_IN),
        "LD_LIBRARY_PATH": str(stand_in("13")),
    }
    return start_kernel(variables=variables)


def test_its_pools_begin_with_the_smallest_cap_less_headroom_and_cuda_is_not_started(kernel: MagicKernel) -> None:
    kernel.ok("import cupy")
    assert kernel.value(LIMITS) == [8 * GIB - 8 * GIB * 6 // 100] * 2
    assert kernel.value("'libcuda' in open('/proc/self/maps').read()") is False


def test_the_users_own_limit_stands_and_is_reported(kernel: MagicKernel) -> None:
    kernel.ok("import os; os.environ['CUPY_GPU_MEMORY_LIMIT'] = '10%'\nimport cupy")
    assert kernel.value(LIMITS) == [4 * GIB] * 2
    assert "CUPY_GPU_MEMORY_LIMIT = 10%, set by you" in kernel.ok("%gpu").text


def test_a_limit_is_live_and_each_device_has_its_own(kernel: MagicKernel) -> None:
    kernel.ok("import cupy; cupy.cuda.start()")
    said = kernel.ok("%gpu cupy --memory GPU-00000001=2GiB,GPU-00000002=4GiB").text
    assert "from now on" in said
    assert kernel.value(LIMITS) == [2 * GIB, 4 * GIB]
    kernel.ok("%gpu cupy --fraction 0.1")
    assert kernel.value(LIMITS) == [4 * GIB, 4 * GIB]
    assert "pool limit cuda:1 = 4 GiB" in kernel.ok("%gpu").text


def test_a_limit_that_the_program_sets_is_reported_as_the_users(kernel: MagicKernel) -> None:
    kernel.ok("import cupy; cupy.cuda.start()")
    kernel.ok("%gpu cupy --memory 2GiB")
    kernel.ok("cupy.get_default_memory_pool().set_limit(size=1 << 30)")
    assert "pool limit cuda:0 = 1 GiB, set by you" in kernel.ok("%gpu").text


def test_free_says_what_came_back_and_what_still_holds_on(kernel: MagicKernel) -> None:
    kernel.ok("import cupy; cupy.cuda.start()")
    said = kernel.ok("%gpu free cupy").text
    assert "CuPy gave back 2 GiB on GPU-00000001" in said
    assert "CuPy holds 1 GiB on GPU-00000001" in said


def test_asked_before_the_import(kernel: MagicKernel) -> None:
    assert "when CuPy is imported" in kernel.ok("%gpu cupy --memory 2GiB").text
    kernel.ok("import cupy")
    assert kernel.value(LIMITS) == [2 * GIB] * 2


def test_where_it_is_not_installed_the_command_says_how_it_would_apply(
    start_kernel: StartKernel, tmp_path: Path
) -> None:
    kernel = start_kernel(variables=leased(tmp_path, 8 * GIB))
    said = kernel.ok("%gpu cupy --memory 2GiB").text
    assert "CuPy is not installed in this kernel's environment; after it is: CuPy keeps to 2 GiB" in said


def test_an_unsupported_version_is_named(kernel: MagicKernel) -> None:
    kernel.ok("import cupy; cupy.__version__ = '5.4.0'")
    refused = kernel.run("%gpu cupy --memory 2GiB")
    assert "CuPy 5.4.0 is older than 8.0, the first version that %gpu knows how to limit" in refused.stderr
