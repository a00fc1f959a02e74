"""The process's environment, and which of the variables in it are ours."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping


class Environment:
    """Sets variables where the user has set none, and remembers them, so that what the user sets always stands."""

    def __init__(self, variables: MutableMapping[str, str] | None = None) -> None:
        self.variables: MutableMapping[str, str] = os.environ if variables is None else variables
        self._ours: dict[str, str] = {}

    def value(self, name: str) -> str | None:
        """The variable's value now."""
        return self.variables.get(name)

    def is_ours(self, name: str) -> bool:
        """Whether the variable has the value that we gave it."""
        return name in self._ours and self._ours[name] == self.variables.get(name)

    def of_user(self, name: str) -> str | None:
        """The value that the user gave it; `None` where it is unset or ours."""
        return None if self.is_ours(name) else self.variables.get(name)

    def put_default(self, name: str, value: str) -> bool:
        """Set the variable unless the user has; returns whether it has `value` now."""
        if self.of_user(name) is not None:
            return self.variables[name] == value
        self.put(name, value)
        return True

    def put(self, name: str, value: str) -> None:
        """Set the variable, whatever it was, because the user asked us to."""
        self.variables[name] = value
        self._ours[name] = value

    def drop(self, name: str) -> None:
        """Remove the variable if it is ours."""
        if self.is_ours(name):
            del self.variables[name]
        self._ours.pop(name, None)
