"""TensorFlow, which takes all it is told there is unless it may grow."""

from __future__ import annotations

import protocol
import tensorflow as tf


def allocate() -> object:
    with tf.device("/GPU:0"):
        return tf.zeros(protocol.UNIT, dtype=tf.uint8)


if not tf.config.list_physical_devices("GPU"):
    raise RuntimeError("TensorFlow sees no GPU here")
protocol.run(tf.__version__, allocate, lambda held: held.clear())
