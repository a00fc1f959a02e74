"""The interposer's behaviour at the driver API, on a stand-in driver of CUDA 12 and of CUDA 13."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import cuda_stand_in as cuda
import pytest
from cuda_stand_in import GIB, MIB

from jupyter_gpu.limits import interposer
from jupyter_gpu.limits.account import Account

if TYPE_CHECKING:
    from pathlib import Path

CAP = GIB

WAYS = (
    "linear",
    "pitched",
    "managed",
    "async",
    "async-per-thread",
    "pool",
    "pool-per-thread",
    "virtual",
    "virtual-without-context",
    "array",
    "array3d",
    "mipmap",
    "graph",
    "capture",
)
LOOKUPS = (
    "direct",
    "default",
    "next",
    "handle",
    "main",
    "dlsym-by-dlsym",
    "dlsym-by-dlvsym",
    "procaddress",
    "procaddress2",
    "recursive",
)


def behaviours() -> list[str]:
    source = "".join(path.read_text() for path in sorted(cuda.PROGRAMS.glob("behaviour_of_*.c")))
    return re.findall(r"^    BEHAVIOUR\((\w+)\)", source, re.MULTILINE)


def run(command: list[object], environment: dict[str, str], timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )


@pytest.mark.parametrize("version", cuda.VERSIONS)
@pytest.mark.parametrize("name", behaviours())
def test_behaviour(name: str, version: str, tmp_path: Path) -> None:
    done = run([cuda.program("behaviour"), name], cuda.environment(cuda.new_account(tmp_path), version=version))
    assert (done.returncode, done.stdout, done.stderr) == (0, "held\n", "")


def client(lookup: str, way: str, environment: dict[str, str]) -> tuple[int, int]:
    """Bytes that a program got at first, and a second time after it had freed all."""
    done = run([cuda.program("client"), lookup, way], environment)
    assert (done.returncode, done.stderr) == (0, "")
    first, again = map(int, done.stdout.split())
    return first, again


@pytest.mark.parametrize("version", cuda.VERSIONS)
@pytest.mark.parametrize("lookup", LOOKUPS)
def test_every_way_of_allocating_is_capped_however_it_was_looked_up(lookup: str, version: str, tmp_path: Path) -> None:
    for way in WAYS:
        account = cuda.new_account(tmp_path)
        environment = cuda.environment(account, version=version)
        assert (way, *client(lookup, way, environment)) == (way, CAP, CAP)
        with Account.open(account) as opened:
            device = opened.read().devices[0]
        assert (device.used, device.peak) == (0, CAP)
        assert device.refusals >= 2


@pytest.mark.parametrize("way", WAYS)
def test_without_the_interposer_every_way_passes_the_cap(way: str, tmp_path: Path) -> None:
    first, _ = client("direct", way, cuda.environment(cuda.new_account(tmp_path), preload=False))
    assert first > 3 * CAP


@pytest.mark.parametrize("lookup", ["versioned", "versioned-default"])
def test_dlvsym_answers_with_the_hooks(lookup: str, tmp_path: Path) -> None:
    environment = cuda.environment(cuda.new_account(tmp_path), version="13-versioned")
    assert client(lookup, "linear", environment) == (CAP, CAP)


@pytest.mark.parametrize("lookup", ["procaddress", "procaddress2", "recursive"])
def test_a_driver_that_gives_other_addresses_than_it_exports_is_capped(lookup: str, tmp_path: Path) -> None:
    environment = cuda.environment(cuda.new_account(tmp_path), STANDIN_CUDA_SECOND_ADDRESSES="1")
    for way in WAYS:
        assert (way, *client(lookup, way, environment)) == (way, CAP, CAP)


def test_without_a_lease_nothing_is_held_back(tmp_path: Path) -> None:
    for lookup in LOOKUPS:
        first, _ = client(lookup, "linear", cuda.environment(None))
        assert first == 4 * GIB


def test_a_lease_of_two_devices_caps_each_by_its_own_name(tmp_path: Path) -> None:
    # The account lists them in the other order than the driver does.
    account = cuda.new_account(tmp_path, uuids=(cuda.UUIDS[1], cuda.UUIDS[0]))
    with Account.open(account) as opened:
        opened.set_cap(cuda.UUIDS[0], 512 * MIB)
        assert client("direct", "linear", cuda.environment(account)) == (512 * MIB, 512 * MIB)
        assert {device.uuid: device.peak for device in opened.read().devices} == {
            cuda.UUIDS[0]: 512 * MIB,
            cuda.UUIDS[1]: 0,
        }


def test_a_process_that_uses_no_cuda_is_left_alone(tmp_path: Path) -> None:
    account = cuda.new_account(tmp_path)
    environment = cuda.environment(account)
    probe = "import ctypes; f = ctypes.CDLL(None)\ntry:\n f.cuMemAlloc_v2\nexcept AttributeError as e:\n print(e)"
    done = run(["python3", "-c", probe], environment)
    # The hook is in every process, and yet no program finds a CUDA that is not there.
    assert (done.returncode, done.stderr) == (0, "")
    assert "undefined symbol: cuMemAlloc_v2" in done.stdout
    with Account.open(account) as opened:
        assert opened.read().processes == {}


def test_the_library_exports_the_hooked_names_and_nothing_else() -> None:
    done = run(["nm", "-D", "--defined-only", cuda.library()], {})
    exported = {line.split()[-1] for line in done.stdout.splitlines()}
    declared = (interposer.SOURCES / "driver.h").read_text()
    hooked = set(re.findall(r"HOOK\((\w+), \w+, \d+, [01]\)", declared))
    hooked |= set(re.findall(r"HOOK\((nvml\w+)\)", declared))
    assert len(hooked) > 50
    assert exported == hooked | {"dlsym", "dlvsym"}


def test_the_library_needs_only_the_c_library() -> None:
    done = run(["readelf", "-d", cuda.library()], {})
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", done.stdout))
    assert needed <= {"libc.so.6", "libdl.so.2", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}


def test_the_library_calls_nothing_that_prints_or_changes_the_process() -> None:
    done = run(["nm", "-D", "--undefined-only", cuda.library()], {})
    called = {line.split()[-1].split("@")[0] for line in done.stdout.splitlines()}
    assert not called & {
        "printf",
        "fprintf",
        "puts",
        "write",
        "perror",
        "syslog",
        "signal",
        "sigaction",
        "umask",
        "exit",
    }


NOT_UNDER_THREAD_SANITIZER = (
    "a_fork_amid_allocations_does_no_harm",  # it does not support a child with threads
    # Its run time calls dlsym before anything else can run, so there the library is built without that hook.
    "a_look_up_that_is_not_ours_is_the_callers_own",
    "nvml_reports_the_same",
)


@pytest.mark.parametrize(
    ("sanitizer", "name"),
    [
        (sanitizer, name)
        for sanitizer in ("address", "thread")
        for name in behaviours()
        if sanitizer != "thread" or name not in NOT_UNDER_THREAD_SANITIZER
    ],
)
def test_behaviour_under_a_sanitizer(name: str, sanitizer: str, tmp_path: Path) -> None:
    environment = cuda.environment(
        cuda.new_account(tmp_path),
        sanitizer=sanitizer,
        ASAN_OPTIONS="detect_leaks=0:handle_segv=1",
        UBSAN_OPTIONS="print_stacktrace=1",
        TSAN_OPTIONS="halt_on_error=1:report_signal_unsafe=0",
    )
    done = run([cuda.program("behaviour", sanitizer), name], environment, timeout_s=170)
    assert (done.returncode, done.stdout, done.stderr) == (0, "held\n", "")


def test_what_the_user_preloads_is_called_and_capped_as_well(tmp_path: Path) -> None:
    source = cuda.PROGRAMS / "wrapper.c"
    wrapper = cuda.compiled("wrapper.so", [*cuda.FLAGS, "-shared", str(source)], [source], folder="wrapper")
    log = tmp_path / "calls"
    for lookup in ("direct", "default"):
        log.unlink(missing_ok=True)
        environment = cuda.environment(cuda.new_account(tmp_path), WRAPPER_LOG=str(log))
        environment["LD_PRELOAD"] = interposer.preload_value(cuda.library(), str(wrapper))
        assert client(lookup, "linear", environment) == (CAP, CAP)
        assert len(log.read_text()) == 2 * (CAP // (64 * MIB) + 1)


def test_a_look_up_by_bare_name_is_made_from_the_callers_place(tmp_path: Path) -> None:
    source = cuda.PROGRAMS / "scope.c"
    flags = [*cuda.FLAGS, "-shared"]
    has = cuda.compiled("libscopehas.so", [*flags, "-DSCOPE_HAS", str(source)], [source], folder="scope-has")
    link = ["-Wl,--no-as-needed", f"-L{has.parent}", f"-Wl,-rpath,{has.parent}", "-lscopehas"]
    finds = cuda.compiled("libscopefinds.so", [*flags, str(source), *link], [source], folder="scope-finds")
    code = f"import ctypes; print(ctypes.CDLL({str(finds)!r}).find_it())"
    done = run(["python3", "-c", code], cuda.environment(cuda.new_account(tmp_path)))
    assert (done.returncode, done.stdout) == (0, "42\n")


def test_imports_of_many_libraries_go_on_as_before(tmp_path: Path) -> None:
    code = "import ctypes, sqlite3, ssl, zmq, psutil, ipykernel, multiprocessing; print('imported')"
    done = run([sys.executable, "-c", code], cuda.environment(cuda.new_account(tmp_path)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "imported\n", "")
