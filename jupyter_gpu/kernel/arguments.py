"""The language of `%gpu`: its subcommands and options, parsed by argparse, whose errors become sentences."""

from __future__ import annotations

import argparse
import shlex

from ..devices.amount import parse_amount
from .wishes import Wish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from .frameworks.framework import Framework
    from .lease import KernelDevice

COMMANDS = {
    "list": "all devices and who is on them",
    "use": "other devices for this kernel: cpu, auto, 1, 0,1, 1:8GiB, 2x:20GiB, …",
    "memory": "other memory on the same devices: 8GiB, 25%%, all or shared",
    "cpu": "no device for this kernel",
    "free": "give back what frameworks cache",
    "watch": "measure every cell (on) or none (off)",
}
_EPILOG = """\
over a cell, %%gpu prints its peak and change of memory, utilisation, energy and time.
state = %gpu and %gpu --json give the same as data."""


class CommandError(Exception):
    """What was typed cannot be done. The message is one sentence for the user."""


class HelpAsked(Exception):  # noqa: N818 - no error
    """Help was asked for. The message is the text."""


class _Parser(argparse.ArgumentParser):
    """A parser that raises rather than prints and exits."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message[:1].upper()}{message[1:].rstrip('.')}; {' '.join(self.format_usage().split())}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:  # noqa: ARG002 - argparse's signature
        raise HelpAsked(message or self.format_help())

    def print_help(self, file: object = None) -> None:  # noqa: ARG002
        raise HelpAsked(self.format_help())


class Language:
    """All of `%gpu`.

    Args:
        frameworks: those that can be named.
    """

    def __init__(self, frameworks: Sequence[Framework]) -> None:
        self.frameworks = list(frameworks)
        self.parsers: dict[str, argparse.ArgumentParser] = {}
        shape = argparse.RawDescriptionHelpFormatter
        described = "This kernel's GPUs: devices, cap, use and peak, cap layers, frameworks. With a command:"
        self.parser = _Parser(prog="%gpu", description=described, epilog=_EPILOG, formatter_class=shape)
        self.parser.add_argument("--json", action="store_true", help="the answer as JSON")
        self.parser.add_argument("--measure-cell", action="store_true", help=argparse.SUPPRESS)
        commands = self.parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
        for name, described in COMMANDS.items():
            self._add(commands, name, described)
        self.parsers["use"].add_argument("request", nargs="+", metavar="REQUEST", help="such as auto, 1:8GiB or cpu")
        self.parsers["memory"].add_argument("amount", nargs="+", metavar="AMOUNT", help="such as 8GiB, 25%% or all")
        for name in ("use", "memory", "cpu"):
            self._add_restart(self.parsers[name])
        self.parsers["free"].add_argument("frameworks", nargs="*", metavar="FRAMEWORK", help="only these")
        self.parsers["watch"].add_argument("state", choices=("on", "off"))
        for framework in self.frameworks:
            parser = self._add(commands, framework.name, f"limit {framework.title}", framework.aliases)
            if framework.limits_memory or framework.name == "keras":
                parser.add_argument(
                    "--memory",
                    metavar="AMOUNT|DEVICE=AMOUNT,…",
                    help="at most so much, on each device or on named ones",
                )
                parser.add_argument("--fraction", metavar="F", help="at most this part of each device, 0 to 1")
            self._add_restart(parser)
            framework.add_arguments(parser)

    def parse(self, line: str) -> argparse.Namespace:
        """What the line asks for.

        Raises:
            CommandError: it cannot be understood; the message says what there is.
            HelpAsked: it asks for help.
        """
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise CommandError(f"The line cannot be split into words ({error}); close the quotation.") from None
        first = next((word for word in words if not word.startswith("-")), None)
        if first is not None and first not in self.parsers:
            raise CommandError(
                f"%gpu has no command {first!r}; there are {', '.join(COMMANDS)}, and the frameworks "
                f"{', '.join(framework.name for framework in self.frameworks)}."
            )
        return self.parser.parse_args(words)

    def wish(self, framework: Framework, arguments: argparse.Namespace, devices: Sequence[KernelDevice]) -> Wish:
        """What the options ask of a framework.

        Raises:
            CommandError: an option's value is none, or asks for more than there is.
        """
        memory, fraction = getattr(arguments, "memory", None), getattr(arguments, "fraction", None)
        if memory is not None and fraction is not None:
            raise CommandError("--memory and --fraction say the same thing in two ways; give one of them.")
        wish = Wish()
        if fraction is not None:
            wish = wish._replace(fraction=_fraction(fraction))
        if memory is not None:
            wish = wish.merged(_memory(memory, devices, framework.title))
        growth = getattr(arguments, "growth", None)
        if growth is not None:
            wish = wish._replace(growth=growth == "on")
        place = getattr(arguments, "place", None)
        if place in ("cpu", "gpu"):
            wish = wish._replace(cpu=place == "cpu")
        return wish

    def _add(
        self, commands: argparse._SubParsersAction[_Parser], name: str, described: str, aliases: Sequence[str] = ()
    ) -> argparse.ArgumentParser:
        # Help is %-formatted by argparse, a description is not.
        text = (described[:1].upper() + described[1:] + ".").replace("%%", "%")
        parser = commands.add_parser(name, help=described, description=text, aliases=aliases, prog=f"%gpu {name}")
        # Without a default of its own, so that --json before the command holds, too.
        parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="the answer as JSON")
        for each in (name, *aliases):
            self.parsers[each] = parser
        return parser

    @staticmethod
    def _add_restart(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--restart", action="store_true", help="restart the kernel where that is what it takes")


def resolve_device(word: str, devices: Sequence[KernelDevice]) -> KernelDevice:
    """The kernel's device that an index or the beginning of a UUID names.

    Raises:
        CommandError: it names none, or several.
    """
    found = [device for device in devices if device.index == word]
    if not found:
        found = [device for device in devices if len(word) > 4 and device.uuid.lower().startswith(word.lower())]
    if len(found) == 1:
        return found[0]
    there_is = ", ".join(
        f"{device.index} ({device.name or device.uuid})" if device.index else device.uuid for device in devices
    )
    if found:
        raise CommandError(f"{word!r} is the beginning of several GPUs of this kernel; it has {there_is}.")
    raise CommandError(f"This kernel has no GPU {word!r}; it has {there_is or 'none'}.")


def _fraction(text: str) -> float:
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise CommandError(f"{text!r} is not a part of a device; write a number above 0 and up to 1, such as 0.5.")
    return value


def _memory(text: str, devices: Sequence[KernelDevice], title: str) -> Wish:
    if "=" not in text:
        amount = _amount(text)
        for device in devices:
            _refuse_beyond_cap(amount, device, title)
        return Wish(every_device=amount)
    named: dict[str, int] = {}
    for part in text.split(","):
        word, equals, written = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise CommandError(f"{part!r} names no device; write DEVICE=AMOUNT for each, such as 0=4GiB,1=8GiB.")
        device = resolve_device(word, devices)
        amount = _amount(written)
        _refuse_beyond_cap(amount, device, title)
        named[device.uuid] = amount
    return Wish(devices=tuple(named.items()))


def _amount(text: str) -> int:
    try:
        return parse_amount(text)
    except ValueError as error:
        raise CommandError(f"{error}.") from None


def _refuse_beyond_cap(amount: int, device: KernelDevice, title: str) -> None:
    from ..devices.amount import exact_amount, readable_amount  # noqa: PLC0415

    most = device.cap if device.cap is not None else device.total
    if most is not None and amount > most:
        whose = "this kernel's cap there" if device.cap is not None else "all that it has"
        raise CommandError(
            f"{title} cannot have {readable_amount(amount)} on {device.label}: {whose} is {readable_amount(most)}; "
            f"ask for more with %gpu memory {exact_amount(amount)}."
        )
