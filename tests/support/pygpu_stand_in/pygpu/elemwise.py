"""Elementwise kernels."""


def compare(*_):
    raise NotImplementedError


def elemwise2(*_):
    raise NotImplementedError
