"""What `%%gpu` says of a cell is what the cell did, checked against simulated allocations whose peak is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from magic_kernel import GIB, MagicKernel, StartKernel, leased

from jupyter_gpu.limits.account import Account

MIB = 1 << 20


@pytest.fixture
def lease(tmp_path: Path) -> dict[str, str]:
    return {**leased(tmp_path, 8 * GIB, 16 * GIB), "JUPYTER_GPU_SIMULATE": "2xStand-in:40GiB"}


@pytest.fixture
def kernel(start_kernel: StartKernel, lease: dict[str, str]) -> MagicKernel:
    running = start_kernel(variables=lease)
    running.ok("import jupyter_gpu.simulated as gpu\nkept = gpu.allocate('1GiB')")
    return running


def measured(kernel: MagicKernel, cell: str) -> list[dict[str, object]]:
    """What `%%gpu --json` says of the devices."""
    output = kernel.ok(f"%%gpu --json\n{cell}")
    return list(output.shown[-1]["application/json"]["devices"])


def test_peak_and_change_of_a_cell_are_exact(kernel: MagicKernel) -> None:
    first, second = measured(
        kernel,
        "a = gpu.allocate('2GiB')\nb = gpu.allocate('3GiB')\nb.free()\nc = gpu.allocate('512MiB', device=1)\nc.free()",
    )
    assert first["before_bytes"] == 1 * GIB
    assert first["peak_bytes"] == 6 * GIB
    assert first["change_bytes"] == 2 * GIB
    assert first["peak_kind"] == "exact"
    assert second["peak_bytes"] == 512 * MIB
    assert second["change_bytes"] == 0


def test_a_cell_that_takes_nothing_has_the_peak_that_it_found(kernel: MagicKernel) -> None:
    kernel.ok("gpu.allocate('4GiB').free()")
    first, second = measured(kernel, "x = 1")
    assert (first["peak_bytes"], first["change_bytes"]) == (1 * GIB, 0)
    assert (second["peak_bytes"], second["change_bytes"]) == (0, 0)


def test_a_cell_that_frees_has_a_negative_change(kernel: MagicKernel) -> None:
    assert measured(kernel, "kept.free()")[0]["change_bytes"] == -1 * GIB
    assert "−1 GiB" in (kernel.ok("kept = gpu.allocate('1GiB')"), kernel.ok("%%gpu\nkept.free()"))[1].text


def test_measuring_a_cell_leaves_the_kernels_own_peak_as_it_would_have_been(
    kernel: MagicKernel, lease: dict[str, str]
) -> None:
    def peak() -> int:
        with Account.open(Path(lease["JUPYTER_GPU_ACCOUNT"])) as account:
            return account.read().devices[0].peak

    kernel.ok("gpu.allocate('5GiB').free()")
    assert peak() == 6 * GIB
    measured(kernel, "gpu.allocate('2GiB').free()")
    assert peak() == 6 * GIB
    measured(kernel, "gpu.allocate('6GiB').free()")
    assert peak() == 7 * GIB


def test_what_a_child_process_takes_counts(kernel: MagicKernel) -> None:
    child = "import jupyter_gpu.simulated as g; g.allocate('3GiB').free()"
    cell = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}], check=True)"
    assert measured(kernel, cell)[0]["peak_bytes"] == 4 * GIB


def test_utilisation_is_the_part_of_the_cell_that_computed(kernel: MagicKernel) -> None:
    cell = "import time\nwith gpu.computing():\n    time.sleep(0.3)\ntime.sleep(0.3)"
    busy = measured(kernel, cell)[0]["utilization_percent"]
    assert isinstance(busy, float)
    assert 35 < busy < 60


def test_it_stands_under_the_cell_and_the_cell_stays_itself(kernel: MagicKernel) -> None:
    output = kernel.ok("%%gpu\nimport asyncio\nawait asyncio.sleep(0.01)\na = gpu.allocate('2GiB')\n6 * 7")
    assert output.shown[0]["text/plain"] == "42"
    assert "peak" in output.shown[1]["text/plain"]
    assert "3 GiB" in output.shown[1]["text/plain"]
    assert "<table>" in output.shown[1]["text/html"]
    assert kernel.value("_") == 42


def test_an_error_in_the_cell_keeps_its_line_and_is_measured(kernel: MagicKernel) -> None:
    output = kernel.run("%%gpu\na = gpu.allocate('2GiB')\n1 / 0")
    assert output.error == "ZeroDivisionError: division by zero"
    assert "line 3" in output.traceback
    assert "3 GiB" in output.text


def test_over_another_cell_magic(kernel: MagicKernel) -> None:
    output = kernel.ok("%%gpu\n%%capture said\nprint('inside'); a = gpu.allocate('2GiB')")
    assert "inside" not in output.stdout
    assert "3 GiB" in output.text
    assert kernel.value("said.stdout") == "inside\n"


def test_watching_measures_every_cell_until_it_is_switched_off(kernel: MagicKernel) -> None:
    assert "Every cell" in kernel.ok("%gpu watch on").text
    assert "3 GiB" in kernel.ok("a = gpu.allocate('2GiB')").text
    assert "−2 GiB" in kernel.ok("a.free()").text
    assert "only with %%gpu" in kernel.ok("%gpu watch off").text
    assert kernel.ok("a = gpu.allocate('2GiB')").text == ""


def test_with_nothing_below_it_says_so(kernel: MagicKernel) -> None:
    assert "cell body is empty" in kernel.run("%%gpu\n").stderr


def test_a_command_over_a_cell_is_refused(kernel: MagicKernel) -> None:
    assert "%gpu list on a line of its own" in kernel.run("%%gpu list\n%%capture x\n1").stderr


def test_on_the_cpu_it_tells_the_time(start_kernel: StartKernel, tmp_path: Path) -> None:
    kernel = start_kernel(variables=leased(tmp_path))
    assert "on the CPU; this kernel has no GPU" in kernel.ok("%%gpu\n1").text
