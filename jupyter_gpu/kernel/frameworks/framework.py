"""What every framework must be able to say and do. Nothing here or below ever imports a framework."""

from __future__ import annotations

import importlib.util
import sys
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping
    from types import ModuleType
    from typing import Any

    from ..session import Session

BY_YOU = "you"
BY_US = "jupyter_gpu"


class Limit(NamedTuple):
    """How much a framework may take."""

    amounts: Mapping[int, int] = {}
    """Bytes by device, counted as CUDA counts the devices of this process. A device that is not there has no limit."""
    fraction: float | None = None
    """Of each device's memory as the framework sees it; only where somebody asked for a fraction."""
    growth: bool | None = None
    """Whether to take memory as it is needed rather than at once; `None` is the framework's best."""
    cpu: bool | None = None
    """Whether to stay off the devices altogether; `False` is to go on them, `None` leaves it to the framework."""
    origin: str = BY_US
    """Who said so: `BY_US` for what follows from the lease, `BY_YOU` for what the user asked `%gpu` for."""

    @property
    def limits_something(self) -> bool:
        """Whether there is anything to hold the framework to."""
        return bool(self.amounts) or self.fraction is not None or bool(self.cpu)


class Holding(NamedTuple):
    """What a framework holds on one device, in bytes. `None` is unknown, and `reason` says why."""

    ordinal: int
    """The device, counted as CUDA counts those of this process."""
    used: int | None
    """By what is alive."""
    cached: int | None
    """Taken from the driver and not in use now."""
    peak: int | None
    """The most that was in use at once."""
    reason: str = ""


class Setting(NamedTuple):
    """One thing that decides how much the framework takes."""

    name: str
    value: str
    origin: str
    """`BY_YOU` or `BY_US`."""


class Outcome(NamedTuple):
    """What came of limiting or freeing: sentences for the user."""

    done: tuple[str, ...] = ()
    remaining: tuple[str, ...] = ()
    """What could not be done in this process, and why; a restart does it."""


class Framework:
    """One framework in this process.

    Args:
        session: the kernel's side of everything: its lease, its environment, and what the user asked for.
    """

    name = ""
    """The top-level module whose import is watched. The file has the same name."""
    title = ""
    """As its makers write it."""
    aliases: tuple[str, ...] = ()
    """Other names for it after `%gpu`."""
    oldest = ""
    """The first version that the commands are known to work with; empty for any."""
    limits_memory = True
    """Whether it has a memory limit of its own to set."""
    keeps_to_limit = True
    """Whether it stays within its limit by itself, so that it is a layer of the cap."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.late = False
        """True where it had been imported before it could be prepared."""

    # What it is.

    @property
    def module(self) -> Any:
        """The imported module, or `None`."""
        module: ModuleType | None = sys.modules.get(self.name)
        return module

    @property
    def imported(self) -> bool:
        """Whether the user has imported it, all the way."""
        spec = getattr(self.module, "__spec__", None)
        return self.module is not None and not getattr(spec, "_initializing", False)

    @property
    def installed(self) -> bool:
        """Whether it can be imported. Nothing is imported to find out."""
        if self.module is not None:
            return True
        try:
            return importlib.util.find_spec(self.name) is not None
        except (ImportError, ValueError, AttributeError):
            return False

    @property
    def version(self) -> str | None:
        """Its version, where it is imported and tells."""
        version = getattr(self.module, "__version__", None)
        return version if isinstance(version, str) else None

    def unsupported(self) -> str:
        """One sentence where the imported version is too old for the commands; else empty."""
        if self.oldest and self.version and _numbers(self.version) < _numbers(self.oldest):
            return (
                f"{self.title} {self.version} is older than {self.oldest}, the first version that %gpu knows how to "
                "limit; the cap of this kernel holds all the same where a cap layer is active."
            )
        return ""

    def cuda_up(self) -> bool | None:
        """Whether it has brought CUDA up in this process; `None` where it does not tell. Asking starts nothing."""
        raise NotImplementedError

    # What it takes.

    def before_import(self, limit: Limit) -> None:
        """Prepare the environment that its import reads. Called right before the user's import, at most once."""

    def after_import(self, limit: Limit) -> None:
        """Set what can only be set on the imported module, without starting its runtime."""

    def limit(self, limit: Limit) -> Outcome:
        """Hold it to `limit`, now where that is possible. `limit` is what `Session.limit_for` says from now on."""
        raise NotImplementedError

    def holds(self) -> list[Holding]:
        """What it holds on each device that it uses; empty where it uses none."""
        return []

    def settings(self) -> list[Setting]:
        """What decides how much it takes, and who set it, as read back from the framework itself."""
        return []

    def free(self) -> Outcome:
        """Give back what it caches."""
        return Outcome()

    def devices_changed(self) -> Outcome:
        """The environment now names other devices: let it see them. Called only while CUDA is not up."""
        return Outcome()

    def notes(self) -> list[str]:
        """What else the user should know of it, one sentence each."""
        return []

    # What the user can say after its name.

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of `%gpu NAME` beyond `--memory`, `--fraction` and `--restart`."""

    def run(self, arguments: argparse.Namespace) -> Outcome | None:
        """Do what `%gpu NAME …` asks for beyond a limit; `None` where that is nothing."""

    # For subclasses.

    def setting_from_environment(self, *names: str) -> list[Setting]:
        """The settings that environment variables make."""
        found = []
        for name in names:
            value = self.session.environment.value(name)
            if value is not None:
                found.append(Setting(name, value, BY_US if self.session.environment.is_ours(name) else BY_YOU))
        return found

    def not_imported(self, what: str) -> str:
        """The sentence for a command that takes effect with the import."""
        if self.installed:
            return f"{what} when {self.title} is imported."
        return f"{self.title} is not installed in this kernel's environment; after it is: {what} when it is imported."


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("."):
        digits = "".join(character for character in part if character.isdigit())
        if not digits or not part[0].isdigit():
            break
        numbers.append(int(digits))
    return tuple(numbers)


def sentence_list(items: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    words = list(items)
    if len(words) < 2:
        return "".join(words)
    return ", ".join(words[:-1]) + " and " + words[-1]
