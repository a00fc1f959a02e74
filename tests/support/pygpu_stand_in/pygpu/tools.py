"""Arguments of kernels."""


class ArrayArg:
    pass
