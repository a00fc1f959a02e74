"""Aesara, which came out of Theano. Its GPU back end went with version 2.1; the flags and their handling stayed."""

from __future__ import annotations

from .theano import Theano

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .framework import Limit


class Aesara(Theano):
    """Aesara on the CPU; what it compiles to JAX follows `%gpu jax`."""

    name = "aesara"
    title = "Aesara"
    oldest = ""
    flags_variable = "AESARA_FLAGS"
    has_gpu = False

    def before_import(self, limit: Limit) -> None:  # noqa: ARG002 - there is nothing to limit
        """Keep a device that it does not have out of its flags."""
        flags = self.flags()
        device = flags.value("device")
        if device is not None and device != "cpu":
            self.session.note(f"{self.title} has no GPU back end of its own, so device={device} becomes device=cpu.")
            self.session.environment.put(self.flags_variable, str(flags.with_value("device", "cpu")))

    def notes(self) -> list[str]:
        """How it does get to a GPU."""
        return [f"{self.title} computes on the CPU; in its mode JAX it runs where JAX does (see %gpu jax)."]


FRAMEWORK = Aesara
