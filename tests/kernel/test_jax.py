"""JAX in a kernel with a lease, on its CPU build.

What its GPU back end would be started with is read back from JAX itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from magic_kernel import MagicKernel, StartKernel, leased

pytestmark = pytest.mark.timeout(300)

GIB = 1 << 30
OPTIONS = "xla_client.generate_pjrt_gpu_plugin_options()"
IMPORT = "import jax, os\nfrom jaxlib import xla_client"


@pytest.fixture
def lease(tmp_path: Path) -> dict[str, str]:
    return leased(tmp_path, 8 * GIB, 16 * GIB)


def options(kernel: MagicKernel) -> dict[str, object]:
    return dict(kernel.value(OPTIONS, IMPORT))


def test_it_takes_what_it_needs_and_no_more_than_the_smallest_cap(
    start_kernel: StartKernel, frameworks_python: Path, lease: dict[str, str]
) -> None:
    kernel = start_kernel(frameworks_python, variables=lease)
    given = options(kernel)
    assert given["preallocate"] is False
    assert given["memory_fraction"] == pytest.approx((8 - 8 * 0.06) / 40, abs=1e-3)
    assert kernel.value("len(__import__('jax._src.xla_bridge')._src.xla_bridge._backends)") == 0
    said = kernel.ok("%gpu jax --memory 4GiB").text
    assert "JAX gets 10.0% of each GPU when its back end starts" in said
    assert options(kernel)["memory_fraction"] == pytest.approx(0.1)
    assert "the smallest holds on each" in kernel.ok("%gpu jax --memory GPU-00000001=4GiB,GPU-00000002=2GiB").text
    kernel.ok("jax.numpy.ones(3).sum()")
    assert "back end has started" in kernel.ok("%gpu jax --memory 2GiB").text
    assert options(kernel)["memory_fraction"] == pytest.approx(0.05)


@pytest.mark.parametrize("name", ["XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"])
def test_the_users_fraction_stands_under_either_name(
    start_kernel: StartKernel, frameworks_python: Path, lease: dict[str, str], name: str
) -> None:
    kernel = start_kernel(frameworks_python, variables=lease)
    kernel.ok(f"import os; os.environ[{name!r}] = '0.3'; os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'true'")
    assert options(kernel) == {**options(kernel), "memory_fraction": 0.3, "preallocate": True}
    said = kernel.ok("%gpu").text
    assert f"{name} = 0.3, set by you" in said
    assert "XLA_PYTHON_CLIENT_PREALLOCATE = true, set by you" in said


def test_cpu_by_configuration(start_kernel: StartKernel, frameworks_python: Path, lease: dict[str, str]) -> None:
    kernel = start_kernel(frameworks_python, variables={**lease, "JUPYTER_GPU_SHARES": "jax=cpu"})
    assert kernel.value("jax.config.jax_platforms", "import jax") == "cpu"


def test_asked_for_before_the_import(start_kernel: StartKernel, frameworks_python: Path, lease: dict[str, str]) -> None:
    kernel = start_kernel(frameworks_python, variables=lease)
    assert "when JAX is imported" in kernel.ok("%gpu jax --fraction 0.25 --growth off").text
    assert options(kernel) == {**options(kernel), "memory_fraction": 0.25, "preallocate": True}


def test_without_a_lease_it_is_as_it_was(start_kernel: StartKernel, frameworks_python: Path) -> None:
    given = options(start_kernel(frameworks_python))
    assert "memory_fraction" not in given
    assert "preallocate" not in given
