"""numba's own memory management."""

from __future__ import annotations

import protocol
from numba import __version__, cuda

context = cuda.current_context()


def free(held: list[object]) -> None:
    held.clear()
    context.deallocations.clear()


protocol.run(
    __version__,
    lambda: cuda.device_array(protocol.UNIT, dtype="uint8"),
    free,
    total=context.get_memory_info().total,
)
