"""The account: its layout, its cap between processes that race and die, and files that are no accounts."""

from __future__ import annotations

import mmap
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyter_gpu.devices.processes import boot_id, pid_namespace, process_key
from jupyter_gpu.limits.account import Account, AccountError, OutOfDeviceMemory
from jupyter_gpu.limits.account_file import account_limits, read_account

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

GIB = 1 << 30
A, B = "GPU-aaaaaaaa-0000-0000-0000-000000000000", "MIG-bbbbbbbb-0000-0000-0000-000000000000"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lease"


@pytest.fixture
def account(path: Path) -> Iterator[Account]:
    with Account.create(path, "the-lease", [(A, 4 * GIB, 40 * GIB), (B, None, None)]) as account:
        yield account


def words(path: Path, at: int, count: int = 1) -> tuple[int, ...]:
    """The u64 at a byte offset, by the layout in the docstring and no code of ours."""
    return struct.unpack_from(f"={count}Q", path.read_bytes(), at)


def used(path: Path) -> int:
    return read_account(path).devices[0].used


class Child:
    """A forked process that does one thing and then waits to be ended."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._done, done = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                work()
                os.write(done, b"y")
                signal.pause()
            except BaseException as error:  # noqa: BLE001 - a fork must not go on as the test run
                os.write(done, repr(error).encode())
            finally:
                os._exit(0)
        os.close(done)

    def wait(self) -> str:
        """What came of the work: `y`, or an exception's text."""
        return os.read(self._done, 10_000).decode()

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._done)


@pytest.fixture
def fork() -> Iterator[Callable[[Callable[[], object]], Child]]:
    children: list[Child] = []

    def start(work: Callable[[], object]) -> Child:
        children.append(Child(work))
        return children[-1]

    yield start
    for child in children:
        try:
            child.kill()
        except OSError:
            continue


def test_the_file_has_the_documented_layout(account: Account, path: Path) -> None:
    account.allocate(B, 1000)
    account.allocate(A, 2 * GIB)
    account.free(A, GIB)
    account.set_overhead(A, 77)
    with pytest.raises(OutOfDeviceMemory):
        account.allocate(A, 3 * GIB + 1)
    me = process_key()
    assert me is not None

    content = path.read_bytes()
    assert content[:8] == b"JGPUACCT"
    assert struct.unpack_from("=6I", content, 8) == (1, 256, 2, 512, 256, 64)
    assert words(path, 32) == (256 + 2 * 256 + 512 * 64,)
    assert words(path, 32) == (len(content),)
    assert content[40:104] == b"the-lease".ljust(64, b"\0")
    assert content[104:144] == boot_id().encode().ljust(40, b"\0")
    assert words(path, 144) == (1,), "one past the highest slot ever claimed"
    assert words(path, 152) == (os.stat("/proc/self/ns/pid").st_ino,), "the pid namespace of its slots"  # noqa: PTH116
    assert content[160:256] == bytes(96)

    assert content[256 : 256 + 64] == A.encode().ljust(64, b"\0")
    cap, total, peak, refusals, refused_size, refused_used, overhead, refused_pid = words(path, 256 + 64, 8)
    assert (cap, total, peak) == (4 * GIB, 40 * GIB, 2 * GIB)
    assert (refusals, refused_size, refused_used, refused_pid) == (1, 3 * GIB + 1, GIB, os.getpid())
    assert overhead == 77
    assert content[512 : 512 + 64] == B.encode().ljust(64, b"\0")
    assert words(path, 512 + 64, 2) == (2**64 - 1, 0)

    assert words(path, 768, 4) == (me.pid, me.start_time, 0, 0)
    assert words(path, 768 + 32, 4) == (GIB, 1000, 0, 0), "used of both devices, then pending of both"
    assert words(path, 768 + 64) == (0,), "the next slot is free"


@pytest.mark.parametrize(("devices", "slot_size"), [(0, 64), (1, 64), (2, 64), (3, 128), (8, 192), (64, 1088)])
def test_slots_grow_with_the_devices_in_steps_of_64_bytes(path: Path, devices: int, slot_size: int) -> None:
    with Account.create(path, "x", [(f"GPU-{number}", None, None) for number in range(devices)], slot_count=3):
        assert struct.unpack_from("=I", path.read_bytes(), 28) == (slot_size,)
        assert path.stat().st_size == 256 + 256 * devices + 3 * slot_size


def test_the_file_is_for_this_user_only_and_leaves_no_draft(account: Account, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_all_blocks_are_taken_at_once_so_that_a_full_disk_ends_no_kernel(account: Account, path: Path) -> None:
    assert path.stat().st_blocks * 512 >= path.stat().st_size


def test_what_was_allocated_and_freed_is_read_back(account: Account, path: Path) -> None:
    account.allocate(A, GIB)
    account.allocate(A, GIB)
    account.free(A, GIB)
    me = process_key()
    for reading in (account.read(), read_account(path)):
        assert reading.lease_id == "the-lease"
        assert [(d.uuid, d.cap, d.total, d.used, d.peak) for d in reading.devices] == [
            (A, 4 * GIB, 40 * GIB, GIB, 2 * GIB),
            (B, None, None, 0, 0),
        ]
        assert reading.processes == {me: (GIB, 0)}
    assert account_limits(path) == {A: (4 * GIB, 40 * GIB), B: (None, None)}


def test_no_more_than_the_cap_is_given_and_the_refusal_says_so(account: Account) -> None:
    account.allocate(A, 4 * GIB)
    with pytest.raises(MemoryError, match="1 B asked for, 4 GiB held, and the cap of this kernel is 4 GiB"):
        account.allocate(A, 1)
    device = account.read().devices[0]
    assert (device.refusals, device.refused_size, device.refused_used) == (1, 1, 4 * GIB)
    account.free(A, 1)
    account.allocate(A, 1)


@pytest.mark.parametrize("size", [1 << 63, 1 << 64, 1 << 80])
def test_more_than_any_device_has_is_refused_like_any_other_amount(account: Account, size: int) -> None:
    with pytest.raises(OutOfDeviceMemory):
        account.allocate(A, size)
    account.allocate(B, 5)
    with pytest.raises(OutOfDeviceMemory):
        account.allocate(B, (1 << 64) - 5)
    account.allocate(A, 4 * GIB)
    assert [device.used for device in account.read().devices] == [4 * GIB, 5]


def test_the_device_is_a_cap_where_the_lease_has_none(path: Path) -> None:
    with Account.create(path, "x", [(A, None, GIB)]) as account:
        account.allocate(A, GIB)
        with pytest.raises(OutOfDeviceMemory, match="cap of this kernel is 1 GiB"):
            account.allocate(A, 1)


def test_another_cap_holds_from_the_next_allocation_on(account: Account) -> None:
    account.allocate(A, 3 * GIB)
    account.set_cap(A, GIB)
    assert account.read().devices[0].used == 3 * GIB
    with pytest.raises(OutOfDeviceMemory):
        account.allocate(A, 1)
    account.set_cap(A, None)
    account.allocate(A, 30 * GIB)


def test_a_device_that_the_account_does_not_have_is_refused_by_name(account: Account) -> None:
    with pytest.raises(AccountError, match="no device GPU-other; it has GPU-aaaa"):
        account.allocate("GPU-other", 1)


def test_negative_sizes_are_refused(account: Account) -> None:
    with pytest.raises(ValueError, match="cannot be allocated"):
        account.allocate(A, -1)


def test_freeing_more_than_is_held_leaves_nothing(account: Account) -> None:
    account.allocate(A, 10)
    account.free(A, 100)
    assert account.read().devices[0].used == 0


def test_the_peak_is_what_all_held_at_once_and_begins_anew_when_reset(
    account: Account, fork: Callable[[Callable[[], object]], Child]
) -> None:
    account.allocate(A, GIB)
    child = fork(lambda: account.allocate(A, 2 * GIB))
    assert child.wait() == "y"
    child.kill()
    account.free(A, GIB // 2)
    assert account.read().devices[0].peak == 3 * GIB
    assert account.reset_peak(A) == 3 * GIB
    assert account.read().devices[0].peak == GIB // 2
    account.raise_peak(A, GIB)
    assert account.read().devices[0].peak == GIB
    account.raise_peak(A, 1)
    assert account.read().devices[0].peak == GIB


def test_a_forked_child_has_a_slot_of_its_own(account: Account, fork: Callable[[Callable[[], object]], Child]) -> None:
    account.allocate(A, GIB)
    child = fork(lambda: account.allocate(A, 2 * GIB))
    assert child.wait() == "y"
    assert sorted(held[0] for held in account.read().processes.values()) == [GIB, 2 * GIB]
    refused = fork(lambda: account.allocate(A, 2 * GIB))
    assert "OutOfDeviceMemory" in refused.wait()


def test_what_a_killed_process_held_is_there_for_the_others(
    account: Account, path: Path, fork: Callable[[Callable[[], object]], Child]
) -> None:
    child = fork(lambda: account.allocate(A, 4 * GIB))
    assert child.wait() == "y"
    assert used(path) == 4 * GIB
    child.kill()
    assert used(path) == 0
    account.allocate(A, 4 * GIB)
    assert account.read().devices[0].refusals == 0


def test_a_slot_whose_pid_went_to_another_process_counts_no_more(account: Account, path: Path) -> None:
    account.allocate(A, GIB)
    with path.open("r+b") as file:
        file.seek(768 + 8)
        file.write(struct.pack("=Q", 1))  # as if the process that claimed it had begun at another time
    assert used(path) == 0


def test_slots_of_the_dead_are_used_again(path: Path, fork: Callable[[Callable[[], object]], Child]) -> None:
    with Account.create(path, "x", [(A, GIB, None)], slot_count=2) as account:
        for _ in range(5):
            child = fork(lambda: account.allocate(A, 1))
            assert child.wait() == "y"
            child.kill()
        first, second, third = (fork(lambda: account.allocate(A, 1)) for _ in range(3))
        answers = sorted(child.wait() for child in (first, second, third))
        assert answers[1:] == ["y", "y"]
        assert "all 2 places of the account" in answers[0]


def test_racing_processes_never_pass_the_cap_together_and_leave_nothing(path: Path) -> None:
    """Eight processes allocate and free at random; one that is killed at random is replaced."""
    cap = 1000
    Account.create(path, "x", [(A, cap, None)]).close()
    program = """
    import random, sys
    from pathlib import Path
    from jupyter_gpu.limits.account import Account, OutOfDeviceMemory
    chance = random.Random(int(sys.argv[2]))
    held = []
    with Account.open(Path(sys.argv[1])) as account:
        print("ready", flush=True)
        while True:
            size = chance.randrange(1, 400)
            try:
                account.allocate(sys.argv[3], size)
                held.append(size)
            except OutOfDeviceMemory:
                pass
            if held and chance.random() < 0.6:
                account.free(sys.argv[3], held.pop())
    """

    def start(seed: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), str(path), str(seed), A], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        return process

    chance = random.Random(1)
    processes = [start(seed) for seed in range(6)]
    refused_before = read_account(path).devices[0].refusals
    try:
        for seed in range(6, 12):
            for _ in range(300):
                assert used(path) <= cap
            victim = processes.pop(chance.randrange(len(processes)))
            victim.kill()
            victim.communicate()
            processes.append(start(seed))
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    device = read_account(path).devices[0]
    assert device.peak <= cap
    assert device.refusals > refused_before, "they did race for the cap"
    assert device.used == 0


def test_threads_of_one_process_share_its_slot_and_the_cap(account: Account) -> None:
    def work() -> None:
        for _ in range(100):
            account.allocate(A, 1000)
            account.free(A, 400)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert account.read().devices[0].used == 4 * 100 * 600
    assert len(account.read().processes) == 1


def test_a_child_that_was_forked_while_a_thread_was_in_the_account_is_not_stuck(
    account: Account, fork: Callable[[Callable[[], object]], Child]
) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            account.allocate(A, 1)
            account.free(A, 1)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            child = fork(lambda: account.allocate(A, 1))
            assert child.wait() == "y"
            child.kill()
    finally:
        stop.set()
        thread.join()


def test_memory_may_be_freed_by_a_destructor_in_the_middle_of_an_allocation(path: Path) -> None:
    program = """
    import gc, sys
    from pathlib import Path
    from jupyter_gpu.limits.account import Account
    account = Account.open(Path(sys.argv[1]))
    class Garbage:
        def __init__(self):
            account.allocate(sys.argv[2], 10)
            self.me = self
        def __del__(self):
            account.free(sys.argv[2], 10)
    for allocations in range(60):  # until the collection begins: at each place of an allocation in turn
        gc.disable()
        gc.collect()
        Garbage()
        gc.set_threshold(gc.get_count()[0] + allocations)
        gc.enable()
        account.allocate(sys.argv[2], 1)
        account.free(sys.argv[2], 1)
    gc.collect()
    print(account.read().devices[0].used)
    """
    Account.create(path, "x", [(A, None, None)], slot_count=4).close()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(path), A], capture_output=True, timeout=60, check=True
    )
    assert done.stdout == b"0\n"


def test_an_allocation_may_be_interrupted_anywhere(account: Account, path: Path) -> None:
    """The memory is held or it is not, and nothing stays asked for that would stand in the way of others."""
    interrupted = 0
    for place in range(40):
        held = used(path)
        if _interrupted(lambda: account.allocate(A, 1000), place):
            interrupted += 1
            assert used(path) in (held, held + 1000)
        else:
            assert used(path) == held + 1000
        account.allocate(A, 0)
        assert words(path, 768 + 48, 2) == (0, 0), "pending"
    assert interrupted > 5


def _interrupted(work: Callable[[], object], place: int) -> bool:
    """Whether `work` was interrupted, as by a signal, before it came to that many lines of `allocate`."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal lines
        if frame.f_code.co_name == "allocate" and event == "line":
            lines += 1
            if lines > place:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_use_goes_on_after_the_lease_has_ended_and_its_file_is_gone(
    account: Account, path: Path, fork: Callable[[Callable[[], object]], Child]
) -> None:
    path.unlink()
    account.allocate(A, 3 * GIB)
    child = fork(lambda: account.allocate(A, 2 * GIB))
    assert "OutOfDeviceMemory" in child.wait()


def test_computing_time_is_counted_per_process(account: Account) -> None:
    me = process_key()
    account.begin_busy(1_000)
    account.begin_busy(2_000)  # it computes already
    assert account.busy(5_000) == {me: 4_000}
    account.end_busy(6_000)
    account.end_busy(7_000)
    assert account.busy(9_000) == {me: 5_000}
    account.begin_busy(10_000)
    assert account.busy(10_500) == {me: 5_500}


class TestFilesThatAreNoAccounts:
    """Each is one `AccountError` with a sentence, in every way of reading, and never a crash."""

    @pytest.fixture(params=["open", "read", "limits"])
    def read(self, request: pytest.FixtureRequest) -> Callable[[Path], object]:
        def by_opening(path: Path) -> object:
            with Account.open(path) as account:
                return account.read()

        return {"open": by_opening, "read": read_account, "limits": account_limits}[request.param]

    def test_none_at_all(self, read: Callable[[Path], object], path: Path) -> None:
        with pytest.raises(AccountError, match=r"cannot be opened: No such file"):
            read(path)

    @pytest.mark.parametrize("length", [0, 7, 143, 255, 256, 767, 800, 33_535])
    def test_a_truncated_one(
        self, read: Callable[[Path], object], account: Account, path: Path, tmp_path: Path, length: int
    ) -> None:
        copy = tmp_path / "copy"
        copy.write_bytes(path.read_bytes()[:length])
        with pytest.raises(AccountError, match=r"not an account|damaged"):
            read(copy)

    def test_something_else(self, read: Callable[[Path], object], path: Path) -> None:
        path.write_bytes(b"#!/bin/sh\n" * 1000)
        with pytest.raises(AccountError, match="does not begin as one"):
            read(path)

    def test_a_newer_version(self, read: Callable[[Path], object], account: Account, path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(8)
            file.write(struct.pack("=I", 2))
        with pytest.raises(AccountError, match="has version 2; this software reads version 1"):
            read(path)

    def test_one_in_which_other_pids_count(self, read: Callable[[Path], object], account: Account, path: Path) -> None:
        def made_in(namespace: int) -> None:
            with path.open("r+b") as file:
                file.seek(152)
                file.write(struct.pack("=Q", namespace))

        here = pid_namespace()
        made_in(here + 1)
        with pytest.raises(AccountError, match=f"pid namespace {here + 1}, and here it is {here}"):
            read(path)
        for namespace in (0, here):  # 0 is unknown
            made_in(namespace)
            read(path)

    def test_a_link(self, read: Callable[[Path], object], account: Account, path: Path, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(path)
        with pytest.raises(AccountError, match="cannot be opened"):
            read(link)

    def test_a_directory_and_a_pipe(self, read: Callable[[Path], object], tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path, tmp_path / "pipe"):
            with pytest.raises(AccountError, match=r"cannot be opened|not a file of this user"):
                read(path)

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
    def test_another_users(self, read: Callable[[Path], object], account: Account, path: Path) -> None:
        os.chown(path, 65534, 65534)
        with pytest.raises(AccountError, match="not a file of this user"):
            read(path)

    @pytest.mark.parametrize("at", range(8, 40, 4))
    @pytest.mark.parametrize("number", [0, 1, 3, 65, 257, 0x7FFFFFFF, 0xFFFFFFFF])
    def test_any_other_number_in_the_header(
        self, read: Callable[[Path], object], account: Account, path: Path, at: int, number: int
    ) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(struct.pack("=I", number))
        try:
            read(path)
        except AccountError as error:
            assert str(path) in str(error)  # noqa: PT017 - both are right, as long as it is no other error


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    header=st.binary(min_size=0, max_size=140),
    numbers=st.lists(st.integers(min_value=0, max_value=2**32 - 1), min_size=8, max_size=8),
    extra=st.integers(min_value=0, max_value=70_000),
)
def test_whatever_bytes_a_file_has_reading_ends_in_a_reading_or_an_account_error(
    tmp_path: Path, header: bytes, numbers: list[int], extra: int
) -> None:
    path = tmp_path / "fuzzed"
    small = [number % 2000 for number in numbers]
    for begin in (header, b"JGPUACCT" + header, b"JGPUACCT" + struct.pack("=8I", 1, 256, *small[2:])):
        path.write_bytes(begin + os.urandom(16) * (extra // 16) + b"x" * (extra % 16))
        for read in (read_account, account_limits, _open_and_read):
            try:
                read(path)
            except AccountError:
                continue


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    devices=st.integers(min_value=0, max_value=5),
    slots=st.integers(min_value=0, max_value=5),
    excess=st.integers(min_value=0, max_value=30),
    content=st.randoms(use_true_random=False),
)
def test_a_sound_header_over_senseless_content_is_read_without_a_crash(
    tmp_path: Path, devices: int, slots: int, excess: int, content: random.Random
) -> None:
    path = tmp_path / "fuzzed"
    slot_size = 32 + 16 * devices
    size = 256 + 256 * devices + slot_size * slots + excess
    header = struct.pack("=8s6IQ", b"JGPUACCT", 1, 256, devices, slots, 256, slot_size, size)
    senseless = bytearray((header + content.randbytes(size))[:size])
    struct.pack_into("=Q", senseless, 152, 0)  # an unknown pid namespace; those of others are refused
    path.write_bytes(senseless)
    try:
        reading = read_account(path)
    except AccountError:
        assert size % 8
        return
    assert reading.processes == {}
    with Account.open(path) as account:
        for uuid in account.uuids:
            try:
                account.allocate(uuid, 1)
            except (OutOfDeviceMemory, AccountError):
                continue


def _open_and_read(path: Path) -> None:
    with Account.open(path) as account:
        account.read()


def test_an_account_that_cannot_be_written_is_an_account_error(tmp_path: Path) -> None:
    with pytest.raises(AccountError, match="cannot be written: No such file or directory"):
        Account.create(tmp_path / "not-there" / "x", "x", [])
    with pytest.raises(AccountError, match="at most 64 devices, not 65"):
        Account.create(tmp_path / "x", "x", [(f"GPU-{number}", None, None) for number in range(65)])
    assert list(tmp_path.iterdir()) == []


def test_an_account_can_be_mapped_by_any_program(account: Account, path: Path) -> None:
    """As the library in C does: plain loads and stores on a shared mapping are seen at once."""
    account.allocate(A, GIB)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert struct.unpack_from("=Q", mapped, 768 + 32) == (GIB,)
        struct.pack_into("=Q", mapped, 256 + 64, 2 * GIB)
        with pytest.raises(OutOfDeviceMemory, match="cap of this kernel is 2 GiB"):
            account.allocate(A, GIB + 1)
