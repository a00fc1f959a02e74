"""Whether CUDA is up in this process, found out without starting it.

The driver's library is only looked at where the process has loaded it already. `cuCtxGetCurrent` answers
CUDA_ERROR_NOT_INITIALIZED (3) until `cuInit` has run, and has no effect of its own; `cuDevicePrimaryCtxGetState` tells
whether a device's primary context exists, which is what holds memory (CUDA Driver API, sections 6.3, 6.7 and 6.8).
"""

from __future__ import annotations

import ctypes
import os

_LIBRARY = "libcuda.so.1"
_SUCCESS = 0
_NOT_INITIALIZED = 3

ABSENT = "absent"
"""The driver's library is not loaded."""
LOADED = "loaded"
"""It is loaded, and nobody has initialised it: the environment still decides which devices it will see."""
INITIALIZED = "initialized"
"""The devices that it sees are fixed for this process, and it holds no memory on them."""
ACTIVE = "active"
"""It has a context on at least one device."""


def driver_state(library: str = _LIBRARY) -> str:
    """One of `ABSENT`, `LOADED`, `INITIALIZED` and `ACTIVE`, for this process."""
    try:
        driver = ctypes.CDLL(library, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return ABSENT
    try:
        context = ctypes.c_void_p()
        status = driver.cuCtxGetCurrent(ctypes.byref(context))
        if status == _NOT_INITIALIZED:
            return LOADED
        if context.value:
            return ACTIVE
        count = ctypes.c_int()
        if driver.cuDeviceGetCount(ctypes.byref(count)) != _SUCCESS:
            return INITIALIZED
        for device in range(count.value):
            flags, active = ctypes.c_uint(), ctypes.c_int()
            status = driver.cuDevicePrimaryCtxGetState(device, ctypes.byref(flags), ctypes.byref(active))
            if status == _SUCCESS and active.value:
                return ACTIVE
    except AttributeError:
        # A library that lacks these functions cannot tell; it is taken to be in use, which loses nothing.
        return ACTIVE
    return INITIALIZED


def environment_is_read(library: str = _LIBRARY) -> bool:
    """Whether this process has fixed the devices that it sees, so that CUDA_VISIBLE_DEVICES changes nothing more."""
    return driver_state(library) in (INITIALIZED, ACTIVE)
