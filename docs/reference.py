"""Writes `docs/reference.md` from the sources: traits, commands, `%gpu`, REST, events, settings, variables.

Run it in the environment of the tests, or say `make docs`::

    python docs/reference.py            # write the page
    python docs/reference.py --check    # exit with 1 if the page is not what would be written
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from traitlets import Enum, Type
from traitlets.config import Configurable

import jupyter_gpu
from jupyter_gpu.cli.app import GPUApp
from jupyter_gpu.cli.base import GPUCommand
from jupyter_gpu.kernel.arguments import Language
from jupyter_gpu.kernel.entrance import framework_names
from jupyter_gpu.kernel.session import Session
from jupyter_gpu.server.metrics import DEVICE_GAUGES, KERNEL_GAUGES, SERVER_GAUGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

PAGE = Path(__file__).with_suffix(".md")
PACKAGE = Path(jupyter_gpu.__file__).parent
SETTINGS = PACKAGE.parent / "labextension" / "schema" / "plugin.json"

VARIABLES = {
    "JUPYTER_GPU": "The request of kernels for which nothing else was asked, read when they start: `1:8GiB`.",
    "JUPYTER_GPU_SIMULATE": "Simulated GPUs instead of real ones, such as `4xNVIDIA A100-SXM4-40GB:40GiB`.",
    "JUPYTER_GPU_RUNTIME_DIR": "The directory of the ledger and the accounts, if the default will not do.",
    "JUPYTER_GPU_SHARES": "What each framework in a kernel may take, such as `theano=cpu,tensorflow=75%`.",
    "JUPYTER_GPU_PREBUILT_INTERPOSER": "Set to 1 when building a wheel: the library of caps is compiled into it.",
    "JUPYTER_GPU_WHEEL_PLATFORM": "The platform tag of such a wheel, if the machine's own will not do.",
    "JUPYTER_GPU_LEASE": "Set in kernels and commands: the id of their lease.",
    "JUPYTER_GPU_ACCOUNT": "Set in kernels and commands: the file in which their memory is counted.",
    "JUPYTER_GPU_SOCKET": "Set in kernels: where they reach their server for `%gpu`.",
    "JUPYTER_GPU_PYTHONSTARTUP": "Set while a kernel starts: the user's own `PYTHONSTARTUP`, which is put back.",
}
"""Every environment variable of ours. `environment_variables` fails where the sources know another one."""
_INTRODUCTION = """Made from the sources by `make docs`; changes here are lost. How to use all this is in
[using](using.md) and [operating](operating.md)."""
_WHERE_TO_CONFIGURE = """In `jupyter_server_config.py`, as `c.GPUHost.default_request = "auto:8GiB"`, or on the server's
command line, as `--GPUHost.default_request=auto:8GiB`. The `jupyter gpu` command reads `jupyter_gpu_config.py`."""
_MAGICS = """Alone it shows this kernel's GPUs: cap, use, peak, what holds the cap, and the frameworks. `state = %gpu`
gives the same as data, and so does `--json` after any of the commands. Over a cell, `%%gpu` shows its peak and change
of memory, how busy the GPU was, energy and time."""
_COMMON_OPTIONS = ("config", "debug")
_VARIABLE = re.compile(r"\bJUPYTER_GPU(?:_[A-Z]+)*\b")
_NOT_VARIABLES = {"JUPYTER_GPU_ACCOUNT_H"}


def page() -> str:
    """The whole page."""
    parts = [
        "## Configuration",
        _WHERE_TO_CONFIGURE,
        *_configuration(),
        "## Commands",
        "Each has `--help`, and `--config=FILE` and `--debug` as other Jupyter commands have.",
        *_commands(GPUApp()),
        "## `%gpu`",
        *_magics(),
        "## REST API",
        *_rest(),
        "## Events",
        "To be had from the server's `/api/events/subscribe`.",
        *_events(),
        "## Metrics",
        "Gauges on the server's `/metrics`. What is unknown has no sample.",
        _metrics(),
        "## Settings in JupyterLab",
        "In *Settings → Settings Editor → GPUs*.",
        _settings(),
        "## Environment variables",
        _environment_variables(),
    ]
    return "\n\n".join(("# Reference", _INTRODUCTION, _contents(parts), *parts)) + "\n"


def _contents(parts: Iterable[str]) -> str:
    titles = [part.removeprefix("## ") for part in parts if part.startswith("## ")]
    return " · ".join(f"[{title}](#{re.sub(r'[^a-z -]', '', title.lower()).replace(' ', '-')})" for title in titles)


# Configuration


def _configuration() -> Iterator[str]:
    for cls in _configurables():
        yield f"### {cls.__name__}"
        yield _purpose(cls)
        rows = [
            (f"`{name}`", _default(cls, name, trait), _prose(str(trait.help)) + _allowed(trait))
            for name, trait in sorted(cls.class_own_traits(config=True).items())
        ]
        yield _table(("trait", "default", ""), rows)


def _configurables() -> list[type[Configurable]]:
    """All classes of ours that have options of their own but for the commands, the one that all begins with first."""
    for module in pkgutil.walk_packages(jupyter_gpu.__path__, "jupyter_gpu."):
        if not module.name.startswith("jupyter_gpu.kernel."):
            importlib.import_module(module.name)
    found: set[type[Configurable]] = {
        cls
        for cls in _descendants(Configurable)
        if cls.__module__.startswith("jupyter_gpu.")
        and not issubclass(cls, GPUCommand)
        and cls.class_own_traits(config=True)
    }
    return sorted(found, key=lambda cls: (cls.__name__ != "GPUHost", cls.__name__))


def _descendants(cls: type[Any]) -> Iterator[type[Any]]:
    child: type[Any]
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)


def _default(cls: type[Configurable], name: str, trait: Any) -> str:
    if name in getattr(cls, "_trait_default_generators", {}):
        return "see text"
    value = trait.default_value
    if isinstance(trait, Type) and isinstance(value, type):
        return f"`{value.__name__}`"
    return "empty" if value in ("", None) else f"`{json.dumps(value)}`".replace('"', "")


def _allowed(trait: Any) -> str:
    if isinstance(trait, Enum):
        return " One of " + ", ".join(f"`{value}`" for value in trait.values or ()) + "."
    bounds = [f"at {word} {bound:g}" for word, bound in _bounds(trait)]
    return f" It is {' and '.join(bounds)}." if bounds else ""


def _bounds(trait: Any) -> Iterator[tuple[str, float]]:
    for word, limit in (("least", getattr(trait, "min", None)), ("most", getattr(trait, "max", None))):
        # A boolean is an integer in traitlets' way of thinking, and infinity is no limit.
        if isinstance(limit, int | float) and abs(limit) < sys.maxsize:
            yield word, limit


# Commands


def _commands(app: Any) -> Iterator[str]:
    title, _, rest = _paragraphs(app.description)
    yield f"### `{app.name}`"
    yield " ".join(part for part in (title, rest) if part)
    options = [*_flags(app), *_aliases(app)]
    if options and isinstance(app, GPUCommand):
        yield _table(("option", ""), options)
    if app.subcommands:
        rows = [(f"`{app.name} {name}`", _prose(described)) for name, (_, described) in app.subcommands.items()]
        yield _table(("subcommand", ""), rows)
    examples = getattr(app, "examples", "")
    if isinstance(examples, str) and examples.strip():
        lines = [line.strip() for line in examples.strip().splitlines()]
        yield "\n".join(("```bash", *lines, "```"))
    for child, _ in app.subcommands.values():
        yield from _commands(child())


def _flags(app: Any) -> Iterator[tuple[str, str]]:
    for name, (_, described) in sorted(app.flags.items()):
        if name not in _COMMON_OPTIONS:
            yield f"`--{name}`", _prose(described)


def _aliases(app: Any) -> Iterator[tuple[str, str]]:
    for name, target in sorted(app.aliases.items()):
        if name in _COMMON_OPTIONS:
            continue
        class_name, trait_name = target.split(".")
        owner: Any = next((cls for cls in type(app).mro() if cls.__name__ == class_name), None)
        trait = owner.class_traits().get(trait_name) if owner is not None else None
        yield f"`--{name}=…`", _prose(trait.help if trait is not None else target)


def _paragraphs(description: str) -> tuple[str, str, str]:
    first, blank, rest = description.strip().partition("\n\n")
    return _prose(first), blank, _prose(rest)


# %gpu


def _magics() -> Iterator[str]:
    session = Session(shell=None, names=framework_names())
    language = Language(session.frameworks())
    yield _MAGICS
    rows = []
    for names, parser in _parsers(language):
        rows.append(
            (f"`%gpu {_usage(parser)}`", _prose(parser.description or "") + _called(names) + _arguments(parser))
        )
    yield _table(("line", ""), rows)


def _parsers(language: Language) -> Iterator[tuple[list[str], argparse.ArgumentParser]]:
    seen: list[argparse.ArgumentParser] = []
    for parser in language.parsers.values():
        if parser not in seen:
            seen.append(parser)
            yield [name for name, other in language.parsers.items() if other is parser], parser


def _usage(parser: argparse.ArgumentParser) -> str:
    words = [parser.prog.removeprefix("%gpu ")]
    for action in _actions(parser):
        if action.option_strings:
            value = "" if action.nargs == 0 else f" {_metavar(action)}"
            words.append(f"[{action.option_strings[-1]}{value}]")
        else:
            several = "…" if action.nargs in ("+", "*") else ""
            word = f"{_metavar(action)}{several}"
            words.append(f"[{word}]" if action.nargs in ("?", "*") else word)
    return " ".join(words)


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    usual = ("help", "json", "command")
    positional = [each for each in parser._actions if not each.option_strings]  # noqa: SLF001 - argparse tells no other way
    optional = [each for each in parser._actions if each.option_strings]  # noqa: SLF001
    return [each for each in (*positional, *optional) if each.dest not in usual and each.help != argparse.SUPPRESS]


def _metavar(action: argparse.Action) -> str:
    if action.metavar is not None:
        return str(action.metavar)
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def _called(names: Sequence[str]) -> str:
    others = [f"`{name}`" for name in names[1:]]
    return f" Also called {', '.join(others)}." if others else ""


def _arguments(parser: argparse.ArgumentParser) -> str:
    said = [
        f"`{action.option_strings[-1] if action.option_strings else _metavar(action)}`: "
        f"{_prose(action.help.replace('%%', '%'))}"
        for action in _actions(parser)
        if action.help
    ]
    return "<br>" + "<br>".join(said) if said else ""


# REST


def _rest() -> Iterator[str]:
    api = yaml.safe_load((PACKAGE / "server" / "openapi.yaml").read_text(encoding="utf-8"))
    yield _prose(api["info"]["description"])
    yield "What is in the answers is in [openapi.yaml](../jupyter_gpu/server/openapi.yaml)."
    rows = []
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                rows.append((f"`{method.upper()} {path}`", _operation(operation)))
    yield _table(("call", ""), rows)


def _operation(operation: dict[str, Any]) -> str:
    said = [_prose(operation["summary"]), _prose(operation.get("description", ""))]
    said += [f"`{each['name']}`: {_prose(each.get('description', ''))}" for each in operation.get("parameters", [])]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if body:
        said.append(
            "Body: " + ", ".join(_field(name, schema) for name, schema in body.get("properties", {}).items()) + "."
        )
    said.append("Answers: " + ", ".join(str(status) for status in operation["responses"]) + ".")
    return " ".join(part for part in said if part)


def _field(name: str, schema: dict[str, Any]) -> str:
    examples = schema.get("examples")
    return f"`{name}` ({schema.get('type', 'any')}{f', such as `{examples[0]}`' if examples else ''})"


# Events, settings, variables


def _events() -> Iterator[str]:
    for path in sorted((PACKAGE / "server" / "events").glob("*.yaml")):
        schema = yaml.safe_load(path.read_text(encoding="utf-8"))
        yield f"### {schema['title']}"
        yield f"`{schema['$id']}`. {_prose(schema.get('description', ''))}"
        rows = [
            (f"`{name}`", _type(field), _prose(field.get("description", ""), lines=True))
            for name, field in schema["properties"].items()
        ]
        yield _table(("field", "", ""), rows)


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _metrics() -> str:
    kinds = ((SERVER_GAUGES, "none"), (DEVICE_GAUGES, "`device_uuid`"), (KERNEL_GAUGES, "`kernel_id`, `device_uuid`"))
    rows = [(f"`{name}`", labels, _prose(text)) for gauges, labels in kinds for name, text in gauges.items()]
    return _table(("gauge", "labels", ""), rows)


def _settings() -> str:
    schema = json.loads(SETTINGS.read_text(encoding="utf-8"))
    rows = [
        (
            field.get("title", name),
            f"`{json.dumps(field.get('default'))}`".replace('"', ""),
            field.get("description", ""),
        )
        for name, field in schema["properties"].items()
    ]
    return _table(("setting", "default", ""), rows)


def _environment_variables() -> str:
    found = environment_variables()
    if found != set(VARIABLES):
        raise SystemExit(
            f"The sources and docs/reference.py do not know the same variables: {sorted(found ^ set(VARIABLES))}; "
            "describe new ones in VARIABLES, and take those out that are gone."
        )
    return _table(("variable", ""), [(f"`{name}`", text) for name, text in VARIABLES.items()])


def environment_variables() -> set[str]:
    """The variables that the sources name."""
    sources = [path for ending in ("*.py", "*.c") for path in PACKAGE.rglob(ending)]
    sources += PACKAGE.parent.glob("hatch_build.py")
    texts = (path.read_text(encoding="utf-8") for path in sources)
    return {name for text in texts for name in _VARIABLE.findall(text)} - _NOT_VARIABLES


# Words


def _purpose(cls: type) -> str:
    """What the class's module says that it is for, in one sentence."""
    text = _prose((sys.modules[cls.__module__].__doc__ or "").partition("\n\n")[0])
    return text[: text.index(". ") + 1] if ". " in text else text


def _prose(text: str, *, lines: bool = False) -> str:
    """Text as it goes into a table: on one line."""
    return ("<br>" if lines else " ").join(text.split("\n") if lines else text.split()).strip().removesuffix("<br>")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def main(arguments: Sequence[str]) -> int:
    """Write the page, or check it. Returns the exit status."""
    made = page()
    if "--check" not in arguments:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == made:
        return 0
    print("docs/reference.md is not what the sources say any more; run `make docs` and commit it.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
