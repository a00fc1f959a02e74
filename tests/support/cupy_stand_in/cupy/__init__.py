"""A thin stand-in for CuPy: devices and the default memory pool, as far as their limits and sizes go.

As in CuPy 13, a device's pool takes its first limit from CUPY_GPU_MEMORY_LIMIT, in bytes or percent.
"""

import os

from . import cuda

__version__ = "13.3.0"


class _Pool:
    def __init__(self):
        text = os.environ.get("CUPY_GPU_MEMORY_LIMIT", "")
        first = cuda.TOTAL * int(text[:-1]) // 100 if text.endswith("%") else int(text or 0)
        self.limits = [first] * cuda.COUNT
        self.used = [1 << 30] + [0] * (cuda.COUNT - 1)
        self.total = [3 << 30] + [0] * (cuda.COUNT - 1)

    def set_limit(self, size=None, fraction=None):
        self.limits[cuda.current] = size if size is not None else int(cuda.TOTAL * fraction)

    def get_limit(self):
        return self.limits[cuda.current]

    def used_bytes(self):
        return self.used[cuda.current]

    def total_bytes(self):
        return self.total[cuda.current]

    def free_all_blocks(self):
        self.total[cuda.current] = self.used[cuda.current]


class _PinnedPool:
    def free_all_blocks(self):
        pass


_pool, _pinned = _Pool(), _PinnedPool()


def get_default_memory_pool():
    return _pool


def get_default_pinned_memory_pool():
    return _pinned
