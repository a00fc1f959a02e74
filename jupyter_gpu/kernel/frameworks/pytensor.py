"""PyTensor, which came out of Aesara, and never had a GPU back end of its own."""

from __future__ import annotations

from .aesara import Aesara


class PyTensor(Aesara):
    """PyTensor on the CPU; what it compiles to JAX or PyTorch follows `%gpu jax` and `%gpu torch`."""

    name = "pytensor"
    title = "PyTensor"
    flags_variable = "PYTENSOR_FLAGS"

    def notes(self) -> list[str]:
        """How it does get to a GPU."""
        return [
            "PyTensor computes on the CPU; in its modes JAX and PYTORCH it runs where they do (see %gpu jax, torch)."
        ]


FRAMEWORK = PyTensor
