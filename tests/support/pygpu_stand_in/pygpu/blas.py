"""Linear algebra."""


def gemm(*_, **__):
    pass
