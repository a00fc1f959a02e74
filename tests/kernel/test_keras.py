"""Keras is limited through the framework that it computes with."""

from __future__ import annotations

from pathlib import Path

import pytest
from magic_kernel import StartKernel, leased

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

GIB = 1 << 30


def test_keras_3_on_jax_gets_jaxs_limit(start_kernel: StartKernel, frameworks_python: Path, tmp_path: Path) -> None:
    kernel = start_kernel(frameworks_python, variables={**leased(tmp_path, 8 * GIB), "KERAS_BACKEND": "jax"})
    said = kernel.ok("%gpu keras --memory 4GiB").text
    assert "Keras computes with JAX:" in said
    assert "JAX gets 10.0% of each GPU when JAX is imported." in said
    kernel.ok("import keras, os\nlayer = keras.layers.Dense(1)\ny = layer(keras.ops.ones((1, 2)))")
    assert kernel.value("keras.backend.backend()") == "jax"
    assert kernel.value("os.environ['XLA_CLIENT_MEM_FRACTION']") == "0.1000"
    assert "backend = jax" in kernel.ok("%gpu").text


def test_keras_3_on_tensorflow_gets_tensorflows_limit(
    start_kernel: StartKernel, frameworks_python: Path, tmp_path: Path
) -> None:
    kernel = start_kernel(frameworks_python, variables={**leased(tmp_path, 8 * GIB), "KERAS_HOME": str(tmp_path)})
    kernel.ok("import keras")
    said = kernel.ok("%gpu keras --memory 4GiB --growth on").text
    assert "Keras computes with TensorFlow:" in said
    assert "4 GiB" in said
    state = "get_ipython()._jupyter_gpu_entrance.session.wishes['tensorflow']._asdict()"
    assert kernel.value(state)["every_device"] == 4 * GIB


def test_keras_2_gets_the_new_session(start_kernel: StartKernel, theano_python: Path, tmp_path: Path) -> None:
    kernel = start_kernel(theano_python, variables=leased(tmp_path, 8 * GIB))
    kernel.ok(
        "import tensorflow as tf\ntf.compat.v1.disable_eager_execution()\nfrom tensorflow import keras\n"
        "K = tf.compat.v1.keras.backend\nbefore = [K.get_session()]"
    )
    assert "It is Keras's session, too." in kernel.ok("%gpu tf --memory 4GiB").text
    limits = "[list(v.memory_limit_mb) for v in K.get_session()._config.gpu_options.experimental.virtual_devices]"
    assert kernel.value(limits) == [[4096.0]]
    assert kernel.value("before[0]._closed") is True
    shape = kernel.value(
        "list(model.predict(np.ones((2, 3))).shape)",
        "import numpy as np\nmodel = keras.Sequential([keras.layers.Dense(1, input_shape=(3,))])",
    )
    assert shape == [2, 1]


def test_an_unknown_backend_is_named(start_kernel: StartKernel, tmp_path: Path) -> None:
    kernel = start_kernel(variables={**leased(tmp_path, 8 * GIB), "KERAS_BACKEND": "openvino"})
    assert "Keras computes with openvino, which %gpu knows nothing of" in kernel.ok("%gpu keras --memory 4GiB").text
