"""The driver API itself, by ctypes. Also runs on the stand-in driver, for the self-check."""

from __future__ import annotations

import ctypes

import protocol

driver = ctypes.CDLL("libcuda.so.1")
context, version = ctypes.c_void_p(), ctypes.c_int()


class OutOfMemoryError(Exception):
    """CUDA_ERROR_OUT_OF_MEMORY."""


def must(result: int) -> None:
    if result == 2:
        raise OutOfMemoryError("CUDA_ERROR_OUT_OF_MEMORY")
    if result != 0:
        raise RuntimeError(f"CUDA error {result}")


def allocate() -> int:
    pointer = ctypes.c_uint64()
    must(driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(protocol.UNIT)))
    return pointer.value


def free(held: list[object]) -> None:
    for pointer in held:
        must(driver.cuMemFree_v2(ctypes.c_uint64(int(str(pointer)))))


must(driver.cuInit(0))
must(driver.cuDriverGetVersion(ctypes.byref(version)))
must(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
must(driver.cuCtxSetCurrent(context))
free_bytes, total = ctypes.c_size_t(), ctypes.c_size_t()
must(driver.cuMemGetInfo_v2(ctypes.byref(free_bytes), ctypes.byref(total)))
protocol.run(f"CUDA {version.value // 1000}.{version.value % 1000 // 10}", allocate, free, total=total.value)
