"""A thin stand-in for pygpu 0.7, libgpuarray's Python package: enough for Theano to open a device and to plan for it.

Theano's optimisations run on it as they are. Nothing can be computed with it.
"""

import numpy

from . import basic, blas, elemwise, gpuarray, reduction, tools

__version__ = "0.7.6"

opened = []
"""The devices that were opened, with the arguments."""


def init(device, **arguments):
    opened.append((device, arguments))
    return gpuarray.GpuContext(device)


def empty(shape, dtype="float32", context=None, **_):
    return gpuarray.GpuArray(numpy.empty(shape if numpy.prod(shape) < 100 else (1,), dtype))


def array(value, context=None, **_):
    return gpuarray.GpuArray(value)


def get_include():
    return "."
