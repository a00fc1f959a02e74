"""Arrays and contexts."""

import numpy

SIZE, SSIZE = "size", "ssize"


class GpuArrayException(Exception):
    pass


class UnsupportedException(GpuArrayException):
    pass


class GpuContext:
    kind = b"cuda"
    devname = "Stand-in GPU"
    unique_id = "0000:01:00.0"
    total_gmem = 8 << 30
    free_gmem = 7 << 30
    maxlsize0 = maxlsize1 = maxlsize2 = maxgsize0 = 1024
    cudnn_handle = None
    ptr = 0

    def __init__(self, dev="cuda"):
        self.dev = dev


class GpuKernel:
    pass


class GpuArray:
    def __init__(self, value):
        self.value = numpy.asarray(value)
        self.dtype, self.shape, self.ndim = self.value.dtype, self.value.shape, self.value.ndim
        self.typecode, self.flags, self.context = dtype_to_typecode(self.dtype), self.value.flags, None

    def __array__(self, dtype=None, copy=None):
        return self.value


def array(value, dtype=None, copy=True, context=None, **_):
    return GpuArray(value)


def zeros(shape, dtype=None, **_):
    return GpuArray(numpy.zeros(shape))


def dtype_to_typecode(dtype):
    return numpy.dtype(dtype).num


def dtype_to_ctype(dtype):
    return {"float32": "float", "float64": "double"}.get(str(dtype), "int")


def may_share_memory(a, b):
    return a is b


def api_version():
    return (2, 0)


def abi_version():
    return (2, 0)
