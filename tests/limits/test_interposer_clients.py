"""Real clients of the driver, capped without their doing anything: none needs a GPU, all come from PyPI."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import cuda_packages
import cuda_stand_in as cuda
import pytest
from cuda_stand_in import GIB

from jupyter_gpu.limits import interposer

pytestmark = pytest.mark.timeout(900)  # the clients are installed the first time

CAP, DEVICE = GIB, 4 * GIB
CLIENTS = cuda.NATIVE / "clients"
BYTES_TAKEN = ("linear", "managed", "async", "pool", "virtual")


def run(client: str, version: str, environment: dict[str, str], *arguments: object) -> str:
    command = [cuda_packages.python(version), CLIENTS / f"{client}.py", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("version", cuda.VERSIONS)
@pytest.mark.parametrize("client", ["cuda_bindings_client", "cuda_core_client", "numba_client", "ctypes_client"])
def test_a_client_is_capped_and_without_the_interposer_passes_the_cap(
    client: str, version: str, tmp_path: Path
) -> None:
    for preload, expected in ((True, CAP), (False, DEVICE)):
        account = cuda.new_account(tmp_path)
        printed = run(client, version, cuda.environment(account, version=version, preload=preload))
        result: dict[str, Any] = json.loads(printed)
        taken = {way: result[way] for way in BYTES_TAKEN if way in result}
        assert taken
        assert taken == dict.fromkeys(taken, expected)
        assert result.get("total", expected) == expected
        # What the user sees is the client's own message.
        assert "error" not in result or "CUDA_ERROR_OUT_OF_MEMORY" in result["error"]


@pytest.mark.parametrize("version", cuda.VERSIONS)
def test_the_cuda_run_time_finds_the_hooks(version: str, tmp_path: Path) -> None:
    source = cuda.PROGRAMS / "observer.c"
    observer = cuda.compiled("observer.so", [*cuda.FLAGS, "-shared", str(source)], [source], folder="observer")
    log = tmp_path / "answers"
    environment = cuda.environment(cuda.new_account(tmp_path), version=version, OBSERVER_LOG=str(log))
    library = str(cuda.library())
    environment["LD_PRELOAD"] = f"{observer}:{library}"
    printed = run("cudart_client", version, environment, cuda_packages.runtime(version))
    # It has looked up everything, and stops at the private handshake, with what the stand-in answers to that.
    assert printed.split() == ["500", "500"]
    answers = [line.split("\t") for line in log.read_text().splitlines()]
    declared = (interposer.SOURCES / "driver.h").read_text()
    hooked = {
        (name, int(number), int(stream)): symbol
        for symbol, name, number, stream in re.findall(r"HOOK\((\w+), (\w+), (\d+), ([01])\)", declared)
    }
    answered = {(name, int(number)): (answer, symbol) for _, name, number, answer, symbol in answers}
    assert len(answered) > 300
    asked = set()
    for (name, number, _), symbol in hooked.items():
        found = [
            (answer, actual)
            for way, asked_name, asked_number, answer, actual in answers
            if way == "cuGetProcAddress_v2" and asked_name == name and int(asked_number) == number
        ]
        for answer, actual in found:
            asked.add(name)
            assert answer == library
            # It asks for the functions of both kinds of default stream.
            assert actual.removesuffix("_ptsz") == symbol.removesuffix("_ptsz")
        if found:
            assert symbol in {actual for _, actual in found}
    assert {"cuMemAlloc", "cuMemAllocAsync", "cuMemAllocFromPoolAsync", "cuMemFree", "cuMemGetInfo"} <= asked
    assert len(asked) >= 28
    # All else it gets from the driver itself.
    hooked_names = {name for name, _, _ in hooked}
    for (name, _), (answer, _) in answered.items():
        if name not in hooked_names and not name.startswith("cuGetProcAddress"):
            assert answer == "-" or Path(answer).name == "libcuda.so.1"
