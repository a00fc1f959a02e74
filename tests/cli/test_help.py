"""What the command says of itself, and of what it does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import jupyter_gpu

if TYPE_CHECKING:
    from .conftest import Command

SUBCOMMANDS = ("list", "status", "run", "doctor", "kernelspec")


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_the_command_names_its_subcommands_and_how_to_write_a_request(gpu: Command, arguments: tuple[str, ...]) -> None:
    text = gpu(*arguments).stdout
    for subcommand in SUBCOMMANDS:
        assert f"\n{subcommand}\n" in text
    assert "1:8GiB" in text
    assert "jupyter gpu run --gpu auto:8GiB -- python train.py" in text


@pytest.mark.parametrize(
    ("arguments", "worth_knowing"),
    [
        (("list",), ["who holds them", "--json", "jupyter gpu list"]),
        (("status",), ["the queue", "--json"]),
        (("run",), ["--gpu", "--no-wait", "exit status 75", "jupyter gpu run --gpu 2x:20GiB -- torchrun"]),
        (("doctor",), ["what does not", "exit status is 1", "--json"]),
        (("kernelspec",), ["install", "remove", "list", "without a server"]),
        (("kernelspec", "install"), ["--kernel", "--request", "--name", "--sys-prefix", "python3-small"]),
        (("kernelspec", "remove"), ["--all", "are never removed"]),
        (("kernelspec", "list"), ["written to disk"]),
    ],
)
def test_each_subcommands_help_says_what_is_worth_knowing(
    gpu: Command, arguments: tuple[str, ...], worth_knowing: list[str]
) -> None:
    text = " ".join(gpu(*arguments, "--help").stdout.split())
    for words in worth_knowing:
        assert words in text


def test_the_version_is_the_packages(gpu: Command) -> None:
    assert gpu("--version").stdout.strip() == jupyter_gpu.__version__
    assert gpu("list", "--version").stdout.strip() == jupyter_gpu.__version__


@pytest.mark.parametrize("arguments", [("lst",), ("kernelspec", "instal")])
def test_a_subcommand_that_there_is_not_is_refused_with_those_that_there_are(
    gpu: Command, arguments: tuple[str, ...]
) -> None:
    done = gpu(*arguments, status=2)
    assert f"There is no subcommand {arguments[-1]!r}; there are" in done.stderr
    assert "list" in done.stderr
