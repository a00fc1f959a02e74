"""Shows the interposer holding on a real GPU, framework by framework: `python tests/gpu/run.py`.

Run it with the Python that has the frameworks; those that are not installed are left out. Each case takes memory until
it is refused, with the interposer and without; NVML's figure for its processes stands beside the account's. One table
is printed, and with `--write` put into tests/gpu/RESULTS.md. `--self-check` runs the machinery on the stand-in driver,
for a machine without a GPU.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "native"))

from jupyter_gpu.limits import interposer
from jupyter_gpu.limits.account import Account

HERE = Path(__file__).parent
MIB = 1 << 20
GIB = 1 << 30
TIMEOUT_S = 300
TRAINING_STEPS, TRAINING_PAIRS = 300, 5
TRAINING_GOAL = 1.01


@dataclass(frozen=True)
class Case:
    """One way in which one framework takes memory."""

    name: str
    module: str
    """What must be installed; empty: nothing."""
    script: str
    environment: Mapping[str, str] = field(default_factory=dict)
    preallocates: bool = False
    """It takes a share of what the device is said to have when it starts, and serves from that."""


CASES = (
    Case("driver API", "", "driver_case"),
    Case("PyTorch, native", "torch", "torch_case"),
    Case(
        "PyTorch, expandable segments",
        "torch",
        "torch_case",
        {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "PYTORCH_ALLOC_CONF": "expandable_segments:True"},
    ),
    Case(
        "PyTorch, cudaMallocAsync",
        "torch",
        "torch_case",
        {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync", "PYTORCH_ALLOC_CONF": "backend:cudaMallocAsync"},
    ),
    Case("PyTorch, DataLoader workers", "torch", "torch_workers_case"),
    Case("JAX, bfc", "jax", "jax_case", {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}),
    Case("JAX, preallocating", "jax", "jax_case", preallocates=True),
    Case("JAX, cuda_async", "jax", "jax_case", {"XLA_PYTHON_CLIENT_ALLOCATOR": "cuda_async"}, preallocates=True),
    Case("CuPy, pool", "cupy", "cupy_case"),
    Case("CuPy, async pool", "cupy", "cupy_case", {"CASE_CUPY_POOL": "async"}),
    Case("TensorFlow", "tensorflow", "tensorflow_case", {"TF_CPP_MIN_LOG_LEVEL": "3"}, preallocates=True),
    Case("TensorFlow, growing", "tensorflow", "tensorflow_case", {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}),
    Case("numba", "numba", "numba_case"),
)


@dataclass(frozen=True)
class GPU:
    """The device that is used."""

    name: str
    uuid: str
    memory_bytes: int
    driver: str


@dataclass(frozen=True)
class Outcome:
    """What a case came to."""

    version: str = ""
    got: int = 0
    """Bytes, by its own count, in all its processes."""
    error: str = ""
    total: int | None = None
    account_used: int | None = None
    account_peak: int | None = None
    nvml_used: int | None = None
    """Of its processes; `None` where NVML does not say."""
    again: bool = False
    """What it freed it could have again."""
    failure: str = ""
    """Why it came to nothing."""


def find_gpu() -> GPU | None:
    """The first GPU, `None` where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return GPU(
            pynvml.nvmlDeviceGetName(handle),
            pynvml.nvmlDeviceGetUUID(handle),
            pynvml.nvmlDeviceGetMemoryInfo(handle).total,
            pynvml.nvmlSystemGetDriverVersion(),
        )
    except Exception as problem:  # noqa: BLE001 - whatever it is, there is no GPU to be used
        print(f"no GPU: {problem}", file=sys.stderr)
        return None


def nvml_used(gpu: GPU, tree: set[int]) -> int | None:
    """What NVML says that these processes use, in bytes."""
    try:
        import pynvml

        handle = pynvml.nvmlDeviceGetHandleByUUID(gpu.uuid)
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except Exception:  # noqa: BLE001 - the figure is left out
        return None
    figures = [process.usedGpuMemory for process in processes if process.pid in tree]
    return sum(figures) if figures and None not in figures else None


def tree_of(pid: int) -> set[int]:
    """The process and all its descendants."""
    found = {pid}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found |= tree_of(int(child))
    return found


def run_case(case: Case, gpu: GPU, account: Path, environment: Mapping[str, str], most: int, unit: int) -> Outcome:
    """Run one case; what goes wrong in it is its outcome."""
    command = [sys.executable, str(HERE / "cases" / f"{case.script}.py"), str(unit), str(most)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            env={**environment, **case.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            first = next_json(process)
            with Account.open(account) as opened:
                device = opened.read().devices[0]
            used = nvml_used(gpu, tree_of(process.pid))
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            second = next_json(process)
            process.wait(timeout=TIMEOUT_S)
        except (AssertionError, OSError, ValueError, subprocess.TimeoutExpired) as problem:
            process.kill()
            process.wait()
            errors.seek(0)
            said = errors.read().strip().splitlines()
            return Outcome(failure=said[-1] if said else str(problem))
        finally:
            if process.stdin is not None:
                process.stdin.close()
    return Outcome(
        version=first["version"],
        got=first["got"] + first.get("by_workers", 0),
        error=first["error"],
        total=first.get("total"),
        account_used=device.used,
        account_peak=device.peak,
        nvml_used=used,
        again=second["again"] == second["expected_again"],
    )


def next_json(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line that a case says to us; frameworks print other things as well."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise ValueError("it ended without a word")


def verdict(case: Case, held: Outcome, free: Outcome, cap: int) -> str:
    """What is wrong with a case; empty where it held."""
    if held.failure:
        return f"failed: {held.failure}"
    if (held.account_peak or 0) > cap:
        return "the account's peak passed the cap"
    if held.got > cap:
        return "got more than the cap"
    if not held.error:
        return "was never refused"
    if held.account_used == 0:
        return "was not counted"
    if not case.preallocates and held.got < cap // 2:
        return "was refused long before the cap"
    if not held.again:
        return "could not have again what it freed"
    if free.failure:
        return f"without the interposer: {free.failure}"
    if free.got <= cap:
        return "without the interposer it did not pass the cap either"
    return ""


def mib(value: int | None) -> str:
    """A number of bytes for the table."""
    return "-" if value is None else f"{value / MIB:.0f}"


def base_environment(account: Path | None, library: Path | None, **more: str) -> dict[str, str]:
    """The environment of a case; `library` is preloaded."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JUPYTER_GPU")}
    environment.update(more)
    if account is not None:
        environment["JUPYTER_GPU_ACCOUNT"] = str(account)
    if library is not None:
        environment["LD_PRELOAD"] = interposer.preload_value(library, environment.get("LD_PRELOAD"))
    return environment


def table(
    gpu: GPU, library: Path, cap: int, more: Mapping[str, str], cases: tuple[Case, ...]
) -> tuple[list[str], bool]:
    """The lines of the table, and whether all held."""
    unit = max(MIB, cap // 32)
    lines = [
        "| case | version | got, MiB | account | peak | NVML | reported total | without, MiB | |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    all_held = True
    for case in cases:
        if case.module and importlib.util.find_spec(case.module) is None:
            lines.append(f"| {case.name} | not installed | | | | | | | |")
            continue
        with tempfile.TemporaryDirectory() as directory:
            account = Path(directory) / "account"
            Account.create(account, "gpu-run", [(gpu.uuid, cap, gpu.memory_bytes)]).close()
            held = run_case(case, gpu, account, base_environment(account, library, **more), 2 * cap, unit)
            free = run_case(case, gpu, account, base_environment(None, None, **more), cap + 4 * unit, unit)
        problem = verdict(case, held, free, cap)
        all_held = all_held and not problem
        figures = (held.got, held.account_used, held.account_peak, held.nvml_used, held.total, free.got)
        lines.append(f"| {case.name} | {held.version} | {' | '.join(map(mib, figures))} | {problem or 'held'} |")
        print(lines[-1], file=sys.stderr)
    return lines, all_held


def training(gpu: GPU, library: Path, cap: int) -> list[str]:
    """A training loop with and without, in turn."""
    if importlib.util.find_spec("torch") is None:
        return ["Training loop: PyTorch is not installed."]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    command = [sys.executable, str(HERE / "cases" / "training_case.py"), str(TRAINING_STEPS)]
    with tempfile.TemporaryDirectory() as directory:
        account = Path(directory) / "account"
        Account.create(account, "gpu-run", [(gpu.uuid, cap, gpu.memory_bytes)]).close()
        for pair in range(TRAINING_PAIRS):
            for capped in (True, False) if pair % 2 else (False, True):
                environment = base_environment(account if capped else None, library if capped else None)
                environment["CUDA_VISIBLE_DEVICES"] = gpu.uuid
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
                )
                if done.returncode != 0:
                    return [f"Training loop failed: {done.stderr.strip().splitlines()[-1]}"]
                seconds[capped].append(float(done.stdout.split()[-1]))
    ratios = [after / before for before, after in zip(seconds[False], seconds[True], strict=True)]
    without, with_it = (statistics.median(seconds[capped]) * 1000 for capped in (False, True))
    return [
        (
            f"Training loop, {TRAINING_STEPS} steps, {TRAINING_PAIRS} pairs: {without:.3f} ms per step without, "
            f"{with_it:.3f} ms with; ratio {statistics.median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f}), "
            f"goal at most {TRAINING_GOAL}."
        )
    ]


def pairs(gpu: GPU, library: Path, cap: int) -> list[str]:
    """What the interposer adds to calls of the real driver."""
    import cuda_stand_in

    program = cuda_stand_in.program("bench")
    figures: dict[bool, dict[str, list[float]]] = {True: {}, False: {}}
    with tempfile.TemporaryDirectory() as directory:
        account = Path(directory) / "account"
        Account.create(account, "gpu-run", [(gpu.uuid, cap, gpu.memory_bytes)]).close()
        for turn in range(2 * TRAINING_PAIRS):
            capped = turn % 2 == 0
            environment = base_environment(account if capped else None, library if capped else None)
            environment["CUDA_VISIBLE_DEVICES"] = gpu.uuid
            command = [str(program), "2000"]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
            if done.returncode != 0:
                return [f"Call pairs failed: {done.stderr.strip()}"]
            for line in done.stdout.splitlines():
                name, figure = line.split()
                figures[capped].setdefault(name, []).append(float(figure))
    lines = ["| pair of driver calls | without, ns | with, ns | added, ns |", "| --- | ---: | ---: | ---: |"]
    for name in figures[True]:
        before, after = (statistics.median(figures[capped][name]) for capped in (False, True))
        lines.append(f"| {name} | {before:.0f} | {after:.0f} | {after - before:.0f} |")
    return lines


def self_check() -> int:
    """The machinery, on the stand-in driver: the driver's own case must be held, and pass without."""
    import cuda_stand_in

    gpu = GPU("stand-in", cuda_stand_in.UUIDS[0], 4 * GIB, "none")
    more = {"LD_LIBRARY_PATH": str(cuda_stand_in.stand_in()), "STANDIN_CUDA_DEVICES": str(4 * GIB)}
    lines, held = table(gpu, cuda_stand_in.library(), GIB, more, CASES[:1])
    print("\n".join(lines))
    # Every case is at least a program.
    for case in CASES:
        source = HERE / "cases" / f"{case.script}.py"
        compile(source.read_text(), str(source), "exec")
    return 0 if held else 1


def main() -> int:
    """0 where every case held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cap", type=float, default=4.0, help="GiB that the lease may hold")
    parser.add_argument("--write", action="store_true", help="write tests/gpu/RESULTS.md")
    parser.add_argument("--self-check", action="store_true", help="run on the stand-in driver")
    options = parser.parse_args()
    if options.self_check:
        return self_check()
    gpu = find_gpu()
    if gpu is None:
        print("This needs an NVIDIA GPU; --self-check does not.", file=sys.stderr)
        return 2
    library, reason = interposer.library_path()
    if library is None:
        print(reason, file=sys.stderr)
        return 2
    cap = int(options.cap * GIB)
    lines, held = table(gpu, library, cap, {"CUDA_VISIBLE_DEVICES": gpu.uuid}, CASES)
    head = [
        "# The interposer on real GPUs",
        "",
        (
            f"{gpu.name}, {gpu.memory_bytes / GIB:.1f} GiB, driver {gpu.driver}, Python {sys.version.split()[0]}, "
            f"{dt.datetime.now(dt.timezone.utc):%Y-%m-%d}. Cap {options.cap:g} GiB. "
            "Made by `python tests/gpu/run.py --write`."
        ),
        "",
    ]
    text = "\n".join([*head, *lines, "", *pairs(gpu, library, cap), "", *training(gpu, library, cap)]) + "\n"
    print(text)
    if options.write:
        (HERE / "RESULTS.md").write_text(text)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
