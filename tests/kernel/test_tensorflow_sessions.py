"""TensorFlow in graph mode: the ConfigProto of the live session is read back, on its CPU build."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from magic_kernel import MagicKernel, leased, magic_kernel
from tensorflow_cells import LEFT_MIB, SETUP, forget, settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

GIB = 1 << 30


@pytest.fixture(scope="module")
def graph_mode(frameworks_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MagicKernel]:
    variables = leased(tmp_path_factory.mktemp("lease"), 8 * GIB, 16 * GIB)
    with magic_kernel(frameworks_python, variables=variables) as running:
        running.ok(SETUP + "tf.compat.v1.disable_eager_execution()")
        yield running


@pytest.fixture
def kernel(graph_mode: MagicKernel) -> MagicKernel:
    """Without the stand-in, as TensorFlow finds it: its sessions count the devices of the lease."""
    forget(graph_mode, gpus=0)
    graph_mode.ok("tf.compat.v1.reset_default_graph()")
    return graph_mode


def test_a_session_without_a_config_has_the_limits(kernel: MagicKernel) -> None:
    kernel.ok("s = tf.compat.v1.Session()")
    assert kernel.value("options_of(s)") == {
        "limits": [[LEFT_MIB[0]], [LEFT_MIB[1]]], "fraction": 0.0, "growth": True,
    }  # fmt: skip


def test_a_session_with_a_config_of_other_things_has_both(kernel: MagicKernel) -> None:
    kernel.ok("p = tf.compat.v1.ConfigProto(log_device_placement=True)\ns = tf.compat.v1.Session(config=p)")
    assert kernel.value("s._config.log_device_placement") is True
    assert kernel.value("options_of(s)")["limits"] == [[LEFT_MIB[0]], [LEFT_MIB[1]]]
    # The user's object is the user's.
    assert kernel.value("len(p.gpu_options.experimental.virtual_devices)") == 0


def test_the_users_fraction_stands_and_is_reported(kernel: MagicKernel) -> None:
    kernel.ok(
        "p = tf.compat.v1.ConfigProto(gpu_options=tf.compat.v1.GPUOptions(per_process_gpu_memory_fraction=0.3))\n"
        "s = tf.compat.v1.Session(config=p)"
    )
    options = kernel.value("options_of(s)")
    assert options["limits"] == []
    assert options["fraction"] == pytest.approx(0.3)
    assert settings(kernel)["session memory fraction"][1] == "you"


def test_a_visible_device_list_is_followed(kernel: MagicKernel) -> None:
    kernel.ok(
        "p = tf.compat.v1.ConfigProto(gpu_options=tf.compat.v1.GPUOptions(visible_device_list='1'))\n"
        "s = tf.compat.v1.Session(config=p)"
    )
    assert kernel.value("options_of(s)")["limits"] == [[LEFT_MIB[1]]]


def test_the_command_closes_the_session_and_opens_the_default_one_with_the_new_config(kernel: MagicKernel) -> None:
    kernel.ok(
        "s = tf.compat.v1.InteractiveSession(config=tf.compat.v1.ConfigProto(allow_soft_placement=True))\n"
        "old = s\n"
        "x = tf.compat.v1.placeholder(tf.float32)\n"
        "y = x * 2"
    )
    said = kernel.ok("%gpu tf --memory GPU-00000001=2GiB,GPU-00000002=3GiB").text
    assert "is the default" in said
    assert "initialise its variables again" in said
    assert "old and s now name the new session" in said or "s and old now name the new session" in said
    assert kernel.value("options_of(tf.compat.v1.get_default_session())") == {
        "limits": [[2048.0], [3072.0]], "fraction": 0.0, "growth": True,
    }  # fmt: skip
    assert kernel.value("s is tf.compat.v1.get_default_session()") is True
    assert kernel.value("s._config.allow_soft_placement") is True
    assert kernel.value("float(s.run(y, {x: 21.0}))") == 42.0
    assert kernel.value("float(y.eval({x: 4.0}))") == 8.0


def test_the_command_with_a_fraction_and_growth(kernel: MagicKernel) -> None:
    kernel.ok("s = tf.compat.v1.Session()")
    kernel.ok("closed = [s]")
    kernel.ok("%gpu tf --fraction 0.25 --growth off")
    assert kernel.value("options_of(s)") == {"limits": [], "fraction": 0.25, "growth": False}
    assert kernel.value("closed[0]._closed") is True
    assert settings(kernel)["session memory fraction"] == ("0.25", "jupyter_gpu")


def test_where_a_gpu_holds_memory_no_session_is_closed_for_nothing(kernel: MagicKernel) -> None:
    kernel.ok("fresh(2)\ns = tf.compat.v1.InteractiveSession()")
    assert "keeps one allocator per GPU" in kernel.ok("%gpu tf --memory 2GiB").text
    assert kernel.value("s._closed") is False
