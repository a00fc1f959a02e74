"""After a cell that failed at the cap stands which cap it was, and how to raise it."""

from __future__ import annotations

from pathlib import Path

import pytest
from magic_kernel import GIB, MagicKernel, StartKernel, leased

FAIL = "try:\n    gpu.allocate('5GiB')\nexcept MemoryError:\n    raise RuntimeError('as a framework puts it') from None"


@pytest.fixture
def kernel(start_kernel: StartKernel, tmp_path: Path) -> MagicKernel:
    lease = {**leased(tmp_path, 8 * GIB), "JUPYTER_GPU_SIMULATE": "2xStand-in:40GiB"}
    running = start_kernel(variables=lease)
    running.ok("import jupyter_gpu.simulated as gpu\nkept = gpu.allocate('6GiB')")
    return running


def test_a_cell_that_fails_at_the_cap_is_explained_in_one_sentence(kernel: MagicKernel) -> None:
    output = kernel.run(FAIL)
    assert output.error == "RuntimeError: as a framework puts it"
    assert output.stderr == (
        "This kernel's cap on GPU-00000001 is 8 GiB: 5 GiB was asked for while 6 GiB was held. "
        "Give memory back with %gpu free, or raise the cap with %gpu memory AMOUNT.\n"
    )


def test_what_the_driver_took_for_itself_is_named(kernel: MagicKernel) -> None:
    account = "from jupyter_gpu.limits.account import Account\nimport os, pathlib\n"
    account += "account = Account.open(pathlib.Path(os.environ['JUPYTER_GPU_ACCOUNT']))\n"
    kernel.ok(account + "account.set_overhead(account.uuids[0], 512 << 20)")
    assert "while 6 GiB was held and the driver had 512 MiB for itself. Give" in kernel.run(FAIL).stderr
    assert "512 MiB more the driver's own" in kernel.ok("%gpu").text


def test_a_cell_that_fails_for_another_reason_is_not_explained(kernel: MagicKernel) -> None:
    assert kernel.run("1 / 0").stderr == ""
    assert "cap" in kernel.run(FAIL).stderr
    assert kernel.run("1 / 0").stderr == ""


def test_a_refusal_that_a_cell_coped_with_is_not_told_then_nor_later(kernel: MagicKernel) -> None:
    coped = "try:\n    gpu.allocate('5GiB')\nexcept MemoryError:\n    pass"
    assert kernel.run(coped).stderr == ""
    assert kernel.run("1 / 0").stderr == ""
