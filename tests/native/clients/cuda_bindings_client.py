"""Takes memory through cuda-bindings until there is none, and prints how many bytes it got in each way."""

from __future__ import annotations

import json

try:
    from cuda.bindings import driver
except ImportError:
    from cuda import cuda as driver

UNIT = 64 << 20


def must(result):
    """The values of a call that succeeded."""
    code, *values = result
    assert code == driver.CUresult.CUDA_SUCCESS, code
    return values[0] if len(values) == 1 else values


def fill(allocate, free) -> int:
    """Bytes that could be had before out-of-memory; they are freed again."""
    held = []
    while True:
        code, *values = allocate()
        if code == driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            break
        assert code == driver.CUresult.CUDA_SUCCESS, code
        held.append(values[0])
    for one in held:
        assert free(one)[0] == driver.CUresult.CUDA_SUCCESS
    return len(held) * UNIT


must(driver.cuInit(0))
device = must(driver.cuDeviceGet(0))
context = must(driver.cuDevicePrimaryCtxRetain(device))
must(driver.cuCtxSetCurrent(context))
stream = must(driver.cuStreamCreate(1))
pool = must(driver.cuDeviceGetDefaultMemPool(device))
prop = driver.CUmemAllocationProp()
prop.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
prop.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
prop.location.id = 0
print(
    json.dumps(
        {
            "linear": fill(lambda: driver.cuMemAlloc(UNIT), driver.cuMemFree),
            "managed": fill(lambda: driver.cuMemAllocManaged(UNIT, 1), driver.cuMemFree),
            "async": fill(lambda: driver.cuMemAllocAsync(UNIT, stream), lambda p: driver.cuMemFreeAsync(p, stream)),
            "synchronised": int(driver.cuStreamSynchronize(stream)[0]),
            "pool": fill(
                lambda: driver.cuMemAllocFromPoolAsync(UNIT, pool, stream), lambda p: driver.cuMemFreeAsync(p, stream)
            ),
            "synchronised again": int(driver.cuStreamSynchronize(stream)[0]),
            "virtual": fill(lambda: driver.cuMemCreate(UNIT, prop, 0), driver.cuMemRelease),
            "total": must(driver.cuMemGetInfo())[1],
        }
    )
)
