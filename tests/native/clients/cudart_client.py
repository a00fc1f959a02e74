"""Starts the CUDA run time of NVIDIA's wheel, `cudart_client.py LIBRARY`; a stand-in driver fails its handshake."""

from __future__ import annotations

import ctypes
import sys

runtime = ctypes.CDLL(sys.argv[1])
count, pointer = ctypes.c_int(), ctypes.c_void_p()
print(runtime.cudaGetDeviceCount(ctypes.byref(count)))
print(runtime.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(1 << 20)))
