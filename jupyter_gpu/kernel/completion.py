"""What the Tab key offers after `%gpu`."""

from __future__ import annotations

import argparse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .arguments import Language
    from .lease import KernelDevice

_AMOUNTS = ("1GiB", "2GiB", "4GiB", "8GiB", "16GiB", "25%", "50%", "all", "shared")
_REQUESTS = ("cpu", "auto", "2x")


def completions(
    language: Language, line: str, symbol: str, devices: Sequence[KernelDevice], indices: Sequence[str]
) -> list[str]:
    """The words that may stand where the cursor is.

    Args:
        language: the commands.
        line: the line up to the cursor, with the `%gpu`.
        symbol: the word at the cursor, as IPython cuts it.
        devices: the kernel's devices.
        indices: the indices of all devices.
    """
    words = line.split()
    at_new_word = line[-1:].isspace()
    before = words[1:] if at_new_word else words[1:-1]
    typed = "" if at_new_word else words[-1] if len(words) > 1 else ""
    choices = _choices(language, before, devices, indices)
    found = sorted({choice for choice in choices if choice.startswith(typed)})
    if typed == symbol or not typed.endswith(symbol):
        return found
    # IPython's word begins after a `-` or `=`: what stands before it is not part of the answer.
    cut = len(typed) - len(symbol)
    return [choice[cut:] for choice in found]


def _choices(
    language: Language, before: Sequence[str], devices: Sequence[KernelDevice], indices: Sequence[str]
) -> list[str]:
    command = next((word for word in before if word in language.parsers), None)
    if command is None:
        return [*language.parsers, "--json"]
    parser = language.parsers[command]
    if before[-1] in ("--growth", "watch"):
        return ["on", "off"]
    if before[-1] == "--memory":
        named = [f"{device.index}=" for device in devices if device.index]
        return [each for each in _AMOUNTS if each.endswith("B")] + named
    options = [
        option
        for action in parser._actions  # noqa: SLF001 - argparse has no public list of its options
        if action.help != argparse.SUPPRESS
        for option in action.option_strings
        if option.startswith("--") and option not in before
    ]
    if before[-1] == command:
        if command == "use":
            return [*options, *_REQUESTS, *indices, *(f"{index}:8GiB" for index in indices)]
        if command == "memory":
            return [*options, *_AMOUNTS]
    if command == "free":
        return [*options, *(framework.name for framework in language.frameworks)]
    if before[-1] == command and any(action.dest == "place" for action in parser._actions):  # noqa: SLF001
        return [*options, "cpu", "gpu"]
    return options
