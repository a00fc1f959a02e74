"""Takes memory through numba's driver layer until there is none, and prints how many bytes it got."""

from __future__ import annotations

import json

from numba import cuda

UNIT = 64 << 20

context = cuda.current_context()
held = []
error = ""
while not error and len(held) < 1000:
    try:
        held.append(context.memalloc(UNIT))
    except Exception as problem:  # noqa: BLE001 - which class it is differs between releases
        error = str(problem)
got = len(held) * UNIT
held.clear()
context.deallocations.clear()
info = context.get_memory_info()
print(json.dumps({"linear": got, "error": error, "total": info.total, "free": info.free}))
