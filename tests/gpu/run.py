"""Shows the interposer holding on a real GPU, framework by framework: `python tests/gpu/run.py`.

Run it with the Python that has the frameworks; those that are not installed are left out. Each case takes memory until
it is refused, with the interposer and without; NVML's figure for its processes stands beside the account's. One table
is printed, and with `--write` put into tests/gpu/RESULTS.md, or with `--output` elsewhere, after every case, so that
nothing is lost where time runs out. What a case that failed said is in the file beside it that ends in `.log`.
`--self-check` runs the machinery on the stand-in driver, for a machine without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib.util
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "native"))

from device import GPU, find_gpu, tree_of
from programs import LEAST_S, Clock, base_environment, kill, next_json
from timings import timed

from jupyter_gpu.limits import interposer
from jupyter_gpu.limits.account import Account

HERE = Path(__file__).parent
MIB = 1 << 20
GIB = 1 << 30


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
FIRST_CASES = CASES[:5]
BUDGET_S = 540.0


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
    nvml_source: str = ""
    """`processes`, or `device` where NVML's pids mean nothing here."""
    again: bool = False
    """What it freed it could have again."""
    failure: str = ""
    """Why it came to nothing."""
    said: str = ""
    """The end of what it said where it came to nothing."""


def run_case(
    case: Case,
    gpu: GPU,
    account: Path | None,
    environment: Mapping[str, str],
    limits: tuple[int, int],
    timeout_s: float,
) -> Outcome:
    """Run one case; what goes wrong in it is its outcome.

    Args:
        case: which.
        gpu: where.
        account: what it is counted in; `None` where it is not.
        environment: its variables.
        limits: how much it takes at once, and the most that it tries to get, in bytes.
        timeout_s: after so long it is killed.
    """
    unit, most = limits
    command = [sys.executable, str(HERE / "cases" / f"{case.script}.py"), str(unit), str(most)]
    before = gpu.used()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            env={**environment, **case.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        timer = threading.Timer(timeout_s, kill, [process])
        timer.start()
        try:
            first = next_json(process)
            device = None
            if account is not None:
                with Account.open(account) as opened:
                    device = opened.read().devices[0]
            used, source = gpu.used_by(tree_of(process.pid), before)
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            second = next_json(process)
            process.wait()
            return Outcome(
                version=str(first["version"]),
                got=first["got"] + first.get("by_workers", 0),
                error=first["error"],
                total=first.get("total"),
                account_used=device.used if device else None,
                account_peak=device.peak if device else None,
                nvml_used=used,
                nvml_source=source,
                again=second["again"] == second["expected_again"],
            )
        except Exception as problem:  # noqa: BLE001 - one case must not end the others
            late = not timer.is_alive()
            kill(process)
            process.wait()
            errors.seek(0)
            said = errors.read().strip().splitlines()
            reason = f"not done after {timeout_s:.0f} s" if late else said[-1] if said else str(problem)
            return Outcome(failure=reason[:200], said="\n".join([repr(problem), *said[-40:]]))
        finally:
            timer.cancel()
            kill(process)  # and what it leaves behind
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            process.wait()


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


HEADER = (
    "| case | version | got, MiB | account | peak | NVML | reported total | without, MiB | |",
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
)


@dataclass(frozen=True)
class Row:
    """A case in the table."""

    line: str
    held: bool
    said: str = ""


def row(case: Case, gpu: GPU, library: Path, cap: int, more: Mapping[str, str], clock: Clock) -> Row:
    """One case, with the interposer and without."""
    if case.module and importlib.util.find_spec(case.module) is None:
        return Row(f"| {case.name} | not installed | | | | | | | |", held=True)
    if clock.left_s() < LEAST_S:
        return Row(f"| {case.name} | not run: no time was left | | | | | | | |", held=True)
    unit = max(MIB, cap // 32)
    with tempfile.TemporaryDirectory() as directory:
        account = Path(directory) / "account"
        Account.create(account, "gpu-run", [(gpu.uuid, cap, gpu.memory_bytes)]).close()
        capped = base_environment(account, library, **more)
        held = run_case(case, gpu, account, capped, (unit, 2 * cap), clock.timeout_s())
        free = Outcome(failure="not run")
        if not held.failure:
            uncapped = base_environment(None, None, **more)
            free = run_case(case, gpu, None, uncapped, (unit, cap + 4 * unit), clock.timeout_s())
    problem = verdict(case, held, free, cap)
    nvml = mib(held.nvml_used) + (" (device)" if held.nvml_source == "device" else "")
    figures = (mib(held.got), mib(held.account_used), mib(held.account_peak), nvml, mib(held.total), mib(free.got))
    line = f"| {case.name} | {held.version} | {' | '.join(figures)} | {(problem or 'held').replace('|', '/')} |"
    return Row(line, not problem, held.said + free.said)


def self_check(cases: Sequence[Case]) -> int:
    """The machinery, on the stand-in driver: the driver's own case must be held, and pass without."""
    import cuda_stand_in

    gpu = GPU("stand-in", cuda_stand_in.UUIDS[0], 4 * GIB, "none")
    more = {"LD_LIBRARY_PATH": str(cuda_stand_in.stand_in()), "STANDIN_CUDA_DEVICES": str(4 * GIB)}
    print("\n".join(HEADER), flush=True)
    rows = []
    for case in cases:
        rows.append(row(case, gpu, cuda_stand_in.library(), GIB, more, Clock(BUDGET_S)))
        print(rows[-1].line, flush=True)
    # Every case is at least a program.
    for case in CASES:
        source = HERE / "cases" / f"{case.script}.py"
        compile(source.read_text(), str(source), "exec")
    return 0 if all(each.held for each in rows) else 1


def main() -> int:
    """0 where every case held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cap", type=float, default=4.0, help="GiB that the lease may hold")
    parser.add_argument("--cases", default="", metavar="PATTERN", help="only cases whose names this finds")
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="S", help="seconds for everything")
    parser.add_argument("--no-timings", action="store_true", help="no training loop and no pairs of calls")
    parser.add_argument("--library", type=Path, help="the interposer, where it cannot be compiled here")
    parser.add_argument("--write", action="store_true", help="write tests/gpu/RESULTS.md")
    parser.add_argument("--output", type=Path, help="write this file instead")
    parser.add_argument("--self-check", action="store_true", help="run on the stand-in driver")
    options = parser.parse_args()
    cases = [case for case in CASES if re.search(options.cases, case.name, re.IGNORECASE)]
    if options.self_check:
        return self_check(cases if options.cases else CASES[:1])
    clock = Clock(options.budget)
    gpu = find_gpu()
    if gpu is None:
        print("This needs an NVIDIA GPU; --self-check does not.", file=sys.stderr)
        return 2
    library, reason = (options.library.absolute(), None) if options.library else interposer.library_path()
    if library is None:
        print(reason, file=sys.stderr)
        return 2
    output = options.output or (HERE / "RESULTS.md" if options.write else None)
    cap = int(options.cap * GIB)
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
    rows: list[Row] = []
    timings: list[str] = []

    def report() -> str:
        text = "\n".join([*head, *HEADER, *(each.line for each in rows), "", *timings]).rstrip() + "\n"
        if output is not None:
            output.write_text(text)
            said = "\n\n".join(f"{each.line}\n{each.said}" for each in rows if each.said)
            if said:
                output.with_suffix(".log").write_text(said + "\n")
        return text

    for number, case in enumerate(cases):
        # With the frameworks that most use done, the timings come before what may take the rest of the time.
        if not timings and not options.no_timings and (number == len(FIRST_CASES) or case not in FIRST_CASES):
            timings = timed(gpu, library, cap, clock)
        rows.append(row(case, gpu, library, cap, {"CUDA_VISIBLE_DEVICES": gpu.uuid}, clock))
        print(rows[-1].line, file=sys.stderr, flush=True)
        report()
    if not timings and not options.no_timings:
        timings = timed(gpu, library, cap, clock)
    print(report())
    return 0 if all(each.held for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
