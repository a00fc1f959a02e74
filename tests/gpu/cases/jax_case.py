"""JAX's allocators; XLA_PYTHON_CLIENT_ALLOCATOR and _PREALLOCATE, set by `run.py`, say which."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import protocol


def free(held: list[object]) -> None:
    for array in held:
        array.delete()  # type: ignore[attr-defined]


if jax.default_backend() != "gpu":
    raise RuntimeError(f"JAX runs on {jax.default_backend()} here")
protocol.run(jax.__version__, lambda: jnp.zeros(protocol.UNIT, dtype=jnp.uint8).block_until_ready(), free)
