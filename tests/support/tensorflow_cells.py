"""What the TensorFlow tests run in their kernels, and read back.

The GPUs are a thin stand-in at TensorFlow's edge: the list of physical devices that its C++ side gives names some.
"""

from __future__ import annotations

from magic_kernel import MagicKernel

LEFT_MIB = [7700, 15400]
"""What is left of caps of 8 and 16 GiB less 6 %, which TensorFlow is to stay below by itself."""

SETUP = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import context
_real_devices = pywrap_tfe.TF_ListPhysicalDevices
def gpus(count):
    names = [b"/physical_device:GPU:%d" % n for n in range(count)]
    pywrap_tfe.TF_ListPhysicalDevices = lambda: _real_devices() + names
def fresh(count=2):
    context._reset_context()
    gpus(count)
def limits():
    return [[d.memory_limit for d in tf.config.get_logical_device_configuration(g) or []]
            for g in tf.config.list_physical_devices("GPU")]
def options_of(session):
    o = session._config.gpu_options
    return {"limits": [list(v.memory_limit_mb) for v in o.experimental.virtual_devices],
            "fraction": o.per_process_gpu_memory_fraction, "growth": o.allow_growth}
"""


def forget(kernel: MagicKernel, gpus: int) -> None:
    """TensorFlow before its runtime starts, with so many GPUs and nothing asked of it."""
    kernel.ok(
        f"fresh({gpus})\n"
        "_e = get_ipython()._jupyter_gpu_entrance.session\n"
        "_e.wishes.clear(); _e.notices.clear(); _e.shares.clear()\n"
        "_e.environment.put('TF_FORCE_GPU_ALLOW_GROWTH', 'true')\n"
        "_f = _e.framework('tensorflow'); _f._ours.clear()\n"
        "[s.close() for s in list(_f.sessions)]; _f.sessions.clear()"
    )


def settings(kernel: MagicKernel) -> dict[str, tuple[str, str]]:
    """What `%gpu` says of TensorFlow's settings: value and who set it, by name."""
    expression = "[s for f in state['frameworks'] if f['name'] == 'tensorflow' for s in f['settings']]"
    return {each["name"]: (each["value"], each["origin"]) for each in kernel.value(expression, "state = %gpu")}
