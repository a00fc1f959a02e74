"""CuPy's pools; CASE_CUPY_POOL, set by `run.py`, says which."""

from __future__ import annotations

import os

import cupy
import protocol

if os.environ.get("CASE_CUPY_POOL") == "async":
    cupy.cuda.set_allocator(cupy.cuda.MemoryAsyncPool().malloc)


def free(held: list[object]) -> None:
    held.clear()
    cupy.cuda.Device().synchronize()
    cupy.get_default_memory_pool().free_all_blocks()


protocol.run(
    cupy.__version__,
    lambda: cupy.empty(protocol.UNIT, dtype=cupy.uint8),
    free,
    total=cupy.cuda.Device().mem_info[1],
)
