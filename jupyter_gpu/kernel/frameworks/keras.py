"""Keras, which computes with another framework and is limited through it."""

from __future__ import annotations

import json
import os

from .framework import BY_US, BY_YOU, Framework, Outcome, Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from .framework import Limit

_BACKEND = "KERAS_BACKEND"
_DEFAULT_BACKEND = "tensorflow"


class Keras(Framework):
    """Keras 3 on TensorFlow, JAX or PyTorch, and Keras 2 on TensorFlow."""

    name = "keras"
    title = "Keras"
    limits_memory = False

    @property
    def backend(self) -> str:
        """The framework that it computes with, or will once it is imported."""
        if self.imported:
            ask = getattr(getattr(self.module, "backend", None), "backend", None)
            if callable(ask):
                return str(ask())
        named = self.session.environment.value(_BACKEND)
        if named:
            return named
        home = self.session.environment.value("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")  # noqa: PTH111, PTH118
        try:
            with open(os.path.join(home, "keras.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
                return str(json.load(file).get("backend") or _DEFAULT_BACKEND)
        except (OSError, ValueError, AttributeError):
            return _DEFAULT_BACKEND

    def _through(self) -> Framework | None:
        return self.session.known_as(self.backend)

    def cuda_up(self) -> bool | None:
        """Whether the framework below it has CUDA up."""
        below = self._through()
        return None if below is None else self.imported and below.cuda_up()

    def limit(self, limit: Limit) -> Outcome:  # noqa: ARG002 - the one of the framework below holds
        """Limit the framework below it."""
        below = self._through()
        if below is None:
            return Outcome((), (f"Keras computes with {self.backend}, which %gpu knows nothing of.",))
        self.session.wishes[below.name] = self.session.wishes.pop(self.name)
        outcome = below.limit(self.session.limit_for(below.name))
        return Outcome((f"Keras computes with {below.title}:", *outcome.done), outcome.remaining)

    def settings(self) -> list[Setting]:
        """The framework below it."""
        chosen = self.session.environment.value(_BACKEND)
        if not self.imported and not chosen:
            return []
        # Keras itself writes its default into keras.json, which is therefore nobody's choice.
        origin = BY_YOU if chosen or self.backend != _DEFAULT_BACKEND else BY_US
        return [Setting("backend", self.backend, origin)]

    def free(self) -> Outcome:
        """Nothing of its own: the framework below it is asked for itself."""
        return Outcome()

    def notes(self) -> list[str]:
        """Where its memory is counted."""
        below = self._through()
        name = self.backend if below is None else below.title
        return [f"Keras computes with {name}, and what it holds is counted there."]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """`--growth on|off`, for the frameworks that have it."""
        parser.add_argument(
            "--growth", choices=("on", "off"), help="take memory as it is needed, where that can be set"
        )


FRAMEWORK = Keras
