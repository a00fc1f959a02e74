"""TensorFlow in one kernel with a lease on two devices, on its CPU build.

The GPUs are a thin stand-in at TensorFlow's edge: the list of physical devices that its C++ side gives names two GPUs.
All else is TensorFlow's own, its runtime and its sessions included, which on a CPU build pass over GPU options.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from magic_kernel import MagicKernel, leased, magic_kernel
from tensorflow_cells import LEFT_MIB, SETUP, forget, settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GIB = 1 << 30


@pytest.fixture(scope="module")
def kernel(frameworks_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MagicKernel]:
    variables = leased(tmp_path_factory.mktemp("lease"), 8 * GIB, 16 * GIB)
    with magic_kernel(frameworks_python, variables=variables) as running:
        running.ok(SETUP)
        yield running


@pytest.fixture(autouse=True)
def fresh_runtime(kernel: MagicKernel) -> None:
    """Each test has TensorFlow before its runtime starts, with nothing asked of it."""
    forget(kernel, gpus=2)


def started(kernel: MagicKernel) -> list[list[int]]:
    """The logical devices' limits once the runtime has started with its first operation."""
    kernel.ok("tf.constant(1) + 1")
    return list(kernel.value("limits()"))


class TestFromTheStart:
    def test_each_device_gets_its_own_limit_below_the_cap_and_memory_grows(self, kernel: MagicKernel) -> None:
        assert kernel.value("limits()") == [[], []]
        assert started(kernel) == [[LEFT_MIB[0]], [LEFT_MIB[1]]]
        assert kernel.value("os.environ['TF_FORCE_GPU_ALLOW_GROWTH']") == "true"
        assert settings(kernel)["logical device GPU:1"] == (f"{LEFT_MIB[1]} MiB", "jupyter_gpu")

    def test_the_runtimes_own_config_has_them(self, kernel: MagicKernel) -> None:
        kernel.ok("tf.constant(1) + 1")
        limits = kernel.value(
            "[list(v.memory_limit_mb) for v in context.context().config.gpu_options.experimental.virtual_devices]"
        )
        assert limits == [[LEFT_MIB[0]], [LEFT_MIB[1]]]

    def test_logical_devices_that_the_user_configured_stand_and_are_reported(self, kernel: MagicKernel) -> None:
        kernel.ok(
            "g = tf.config.list_physical_devices('GPU')[0]\n"
            "parts = [tf.config.LogicalDeviceConfiguration(memory_limit=m) for m in (512, 1024)]\n"
            "tf.config.set_logical_device_configuration(g, parts)"
        )
        assert started(kernel) == [[512, 1024], [LEFT_MIB[1]]]
        assert settings(kernel)["logical device GPU:0"] == ("1536 MiB", "you")
        assert "logical device GPU:0 = 1536 MiB, set by you" in kernel.ok("%gpu").text

    def test_the_users_growth_and_the_limit_hold_together(self, kernel: MagicKernel) -> None:
        kernel.ok("[tf.config.experimental.set_memory_growth(g, True) for g in tf.config.list_physical_devices('GPU')]")
        assert started(kernel) == [[LEFT_MIB[0]], [LEFT_MIB[1]]]
        assert kernel.value("os.environ['TF_FORCE_GPU_ALLOW_GROWTH']") == "true"
        assert settings(kernel)["memory growth GPU:0"] == ("on", "you")

    def test_growth_that_the_user_switched_off_is_off(self, kernel: MagicKernel) -> None:
        kernel.ok(
            "[tf.config.experimental.set_memory_growth(g, False) for g in tf.config.list_physical_devices('GPU')]"
        )
        assert started(kernel) == [[LEFT_MIB[0]], [LEFT_MIB[1]]]
        assert kernel.value("os.environ['TF_FORCE_GPU_ALLOW_GROWTH']") == "false"

    def test_its_share_by_configuration(self, kernel: MagicKernel) -> None:
        kernel.ok(
            "from _jupyter_gpu.kernel.wishes import parse_shares\n_e.shares.update(parse_shares('tensorflow=50%')[0])"
        )
        assert started(kernel) == [[4096], [8192]]

    def test_what_another_framework_has_as_its_share_is_left_to_it(self, kernel: MagicKernel) -> None:
        kernel.ok(
            "from _jupyter_gpu.kernel.wishes import parse_shares\n_e.shares.update(parse_shares('theano=2GiB')[0])"
        )
        assert started(kernel) == [[LEFT_MIB[0] - 2048], [LEFT_MIB[1] - 2048]]

    def test_cpu_by_configuration(self, kernel: MagicKernel) -> None:
        kernel.ok(
            "from _jupyter_gpu.kernel.wishes import parse_shares\n_e.shares.update(parse_shares('tensorflow=cpu')[0])"
        )
        kernel.ok("tf.constant(1) + 1")
        assert kernel.value("tf.config.get_visible_devices('GPU')") == []

    def test_a_failure_of_ours_is_a_notice_and_no_error_of_the_users(self, kernel: MagicKernel) -> None:
        kernel.ok("_f._logical_device = lambda amount: 1 / 0")
        try:
            kernel.ok("tf.constant(1) + 1")
            assert "could not be limited when it started: ZeroDivisionError" in kernel.ok("%gpu").text
        finally:
            kernel.ok("del _f._logical_device")


class TestCommandBeforeTheRuntimeStarts:
    def test_different_amounts_on_different_devices(self, kernel: MagicKernel) -> None:
        said = kernel.ok("%gpu tf --memory GPU-00000001=2GiB,GPU-00000002=3GiB").text
        assert "2 GiB on GPU-00000001" in said
        assert "when its runtime starts" in said
        assert started(kernel) == [[2048], [3072]]

    def test_a_fraction(self, kernel: MagicKernel) -> None:
        kernel.ok("%gpu tf --fraction 0.1")
        assert started(kernel) == [[4096], [4096]]

    def test_growth_off(self, kernel: MagicKernel) -> None:
        kernel.ok("%gpu tf --growth off")
        assert started(kernel) == [[LEFT_MIB[0]], [LEFT_MIB[1]]]
        assert kernel.value("os.environ['TF_FORCE_GPU_ALLOW_GROWTH']") == "false"

    def test_what_was_configured_before_gives_way_and_what_is_configured_after_stands(
        self, kernel: MagicKernel
    ) -> None:
        configure = (
            "g = tf.config.list_physical_devices('GPU')[0]\n"
            "tf.config.set_logical_device_configuration(g, [tf.config.LogicalDeviceConfiguration(memory_limit=512)])"
        )
        kernel.ok(configure)
        kernel.ok("%gpu tf --memory 2GiB")
        assert started(kernel) == [[2048], [2048]]
        kernel.ok("fresh(); _f._ours.clear()")
        kernel.ok("%gpu tf --memory 2GiB")
        kernel.ok(configure)
        assert started(kernel) == [[512], [2048]]


class TestCommandAfterTheRuntimeHasStarted:
    def test_it_says_what_can_still_change_and_what_takes_a_restart(self, kernel: MagicKernel) -> None:
        kernel.ok("tf.constant(1) + 1")
        said = kernel.ok("%gpu tf --memory 2GiB").text
        assert "keeps one allocator per GPU" in said
        assert "2 GiB" in said
        assert "--restart" in said
        assert "%gpu memory" in said
        assert kernel.value("limits()") == [[LEFT_MIB[0]], [LEFT_MIB[1]]]

    def test_without_a_server_the_restart_is_the_users_and_keeps_what_was_asked(self, kernel: MagicKernel) -> None:
        kernel.ok("tf.constant(1) + 1")
        refused = kernel.run("%gpu tf --memory 2GiB --restart")
        assert "restart it yourself, and what was asked for holds from its start" in refused.stderr
        kept = kernel.value("{n: w._asdict() for n, w in _e.keeper.take().items()}")
        assert kept["tensorflow"]["every_device"] == 2 * GIB

    def test_devices_can_no_longer_be_changed_in_place(self, kernel: MagicKernel) -> None:
        kernel.ok("tf.constant(1) + 1")
        assert kernel.value("_e.cuda_reasons()") == ["TensorFlow has started CUDA in this kernel."]

    def test_started_on_the_cpu_it_says_that_there_is_nothing_to_limit(self, kernel: MagicKernel) -> None:
        kernel.ok("fresh(0); tf.constant(1) + 1")
        assert "runs on the CPU in this process" in kernel.ok("%gpu tf --memory 2GiB").text


def test_a_user_who_says_nothing_of_a_lease_has_tensorflow_as_it_is(frameworks_python: Path, tmp_path: Path) -> None:
    with magic_kernel(frameworks_python) as plain:
        plain.ok(SETUP + "gpus(1)\ntf.constant(1) + 1")
        assert plain.value("limits()") == [[]]
        assert plain.value("os.environ.get('TF_FORCE_GPU_ALLOW_GROWTH')") is None
