"""Takes memory through ctypes until there is none, and prints how many bytes it got."""

from __future__ import annotations

import ctypes
import json

UNIT = 64 << 20

driver = ctypes.CDLL("libcuda.so.1")
context, pointer = ctypes.c_void_p(), ctypes.c_uint64()
assert driver.cuInit(0) == 0
assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
assert driver.cuCtxSetCurrent(context) == 0
held = []
while driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(UNIT)) == 0:
    held.append(pointer.value)
got = len(held) * UNIT
for address in held:
    assert driver.cuMemFree_v2(ctypes.c_uint64(address)) == 0
print(json.dumps({"linear": got}))
