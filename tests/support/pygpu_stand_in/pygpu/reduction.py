"""Reductions."""


class ReductionKernel:
    pass
