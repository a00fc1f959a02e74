"""What the interposer costs on a real GPU: a training loop, and pairs of calls of the driver."""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from device import GPU
from programs import LEAST_S, Clock, base_environment

from jupyter_gpu.limits.account import Account

HERE = Path(__file__).parent
TRAINING_STEPS, TRAINING_PAIRS = 1000, 5
CALL_PAIRS, CALL_TURNS = 300, 6
TRAINING_GOAL = 1.01


def timed(gpu: GPU, library: Path, cap: int, clock: Clock) -> list[str]:
    """The timings."""
    return [*safely(pairs, gpu, library, cap, clock), "", *safely(training, gpu, library, cap, clock)]


def safely(
    part: Callable[[GPU, Path, int, Clock], list[str]], gpu: GPU, library: Path, cap: int, clock: Clock
) -> list[str]:
    """The lines of a part of the report; what goes wrong in it must not take the others along."""
    try:
        return part(gpu, library, cap, clock)
    except Exception as problem:  # noqa: BLE001
        return [f"{part.__name__}: {type(problem).__name__}: {problem}".splitlines()[0][:300]]


def training(gpu: GPU, library: Path, cap: int, clock: Clock) -> list[str]:
    """A training loop with and without, in turn."""
    if importlib.util.find_spec("torch") is None:
        return ["Training loop: PyTorch is not installed."]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    command = [sys.executable, str(HERE / "cases" / "training_case.py"), str(TRAINING_STEPS)]
    with tempfile.TemporaryDirectory() as directory:
        account = Path(directory) / "account"
        Account.create(account, "gpu-run", [(gpu.uuid, cap, gpu.memory_bytes)]).close()
        for pair in range(TRAINING_PAIRS):
            if pair > 1 and clock.left_s() < LEAST_S:
                break
            for capped in (True, False) if pair % 2 else (False, True):
                environment = base_environment(account if capped else None, library if capped else None)
                environment["CUDA_VISIBLE_DEVICES"] = gpu.uuid
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, timeout=clock.timeout_s(), check=False
                )
                if done.returncode != 0:
                    return [f"Training loop failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}"]
                seconds[capped].append(float(done.stdout.split()[-1]))
    ratios = [after / before for before, after in zip(seconds[False], seconds[True], strict=True)]
    without, with_it = (statistics.median(seconds[capped]) * 1000 for capped in (False, True))
    return [
        (
            f"Training loop, {TRAINING_STEPS} steps, {len(ratios)} pairs: {without:.3f} ms per step without, "
            f"{with_it:.3f} ms with; ratio {statistics.median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f}), "
            f"goal at most {TRAINING_GOAL}."
        )
    ]


def pairs(gpu: GPU, library: Path, cap: int, clock: Clock) -> list[str]:
    """What the interposer adds to calls of the real driver."""
    import cuda_stand_in

    program = cuda_stand_in.program("bench")
    figures: dict[bool, dict[str, list[float]]] = {True: {}, False: {}}
    with tempfile.TemporaryDirectory() as directory:
        account = Path(directory) / "account"
        Account.create(account, "gpu-run", [(gpu.uuid, cap, gpu.memory_bytes)]).close()
        for turn in range(CALL_TURNS):
            capped = turn % 2 == 0
            environment = base_environment(account if capped else None, library if capped else None)
            environment["CUDA_VISIBLE_DEVICES"] = gpu.uuid
            command = [str(program), str(CALL_PAIRS)]
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=clock.timeout_s(), check=False
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
