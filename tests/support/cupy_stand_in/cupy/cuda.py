"""Devices. The first one that is used loads the CUDA driver and makes its context there, as CuPy's runtime does."""

import ctypes

COUNT, TOTAL = 2, 40 << 30
current = 0


def start():
    "What the first array does."
    driver = ctypes.CDLL("libcuda.so.1")
    driver.cuInit(0)
    context = ctypes.c_void_p()
    driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    driver.cuCtxSetCurrent(context)


class Device:
    def __init__(self, ordinal):
        self.ordinal = ordinal

    def __enter__(self):
        global current
        self.before, current = current, self.ordinal

    def __exit__(self, *_):
        global current
        current = self.before


class runtime:
    @staticmethod
    def getDeviceCount():
        return COUNT
