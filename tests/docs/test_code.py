"""What the documentation tells people to write works: options exist, lines are understood, blocks run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from documentation import ROOT, Block, blocks, pages
from traitlets.config import Config, Configurable

from jupyter_gpu.cli.app import GPUApp
from jupyter_gpu.extension import GPUExtension
from jupyter_gpu.kernel.arguments import Language
from jupyter_gpu.kernel.entrance import framework_names
from jupyter_gpu.kernel.session import Session
from jupyter_gpu.leases.request import GPURequest

WRITTEN = [page for page in pages() if page.name != "reference.md"]
BLOCKS = [block for page in WRITTEN for block in blocks(page)]
CONFIGURATION = [block for block in BLOCKS if block.language == "python" and "c.GPU" in block.code]
_OPTION = re.compile(r"`(?:c\.)?((?:GPU|NVML)[A-Z]\w+)\.([a-z]\w+)")
_MAGIC = re.compile(r"`%gpu ([^`…]+)`")
_COMMAND = re.compile(r"jupyter gpu (?P<words>[a-z]+(?: (?:install|remove|list)\b)?)(?P<rest>[^`\n]*)")
_REQUEST = re.compile(r"--gpu[= ](\S+)")


def classes() -> dict[str, type[Configurable]]:
    def below(cls: type[Any]) -> set[type[Any]]:
        return {cls}.union(*(below(child) for child in cls.__subclasses__()))

    assert GPUExtension.classes
    return {cls.__name__: cls for cls in below(Configurable) if cls.__module__.startswith("jupyter_gpu.")}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_option_that_is_named_exists(page: Path) -> None:
    known = classes()
    for owner, name in _OPTION.findall(page.read_text(encoding="utf-8")):
        assert owner in known, f"{owner}.{name}"
        assert name in known[owner].class_trait_names(config=True), f"{owner}.{name}"


@pytest.mark.parametrize("block", CONFIGURATION, ids=str)
def test_a_configuration_is_valid(block: Block) -> None:
    config = Config()
    exec(block.code, {"c": config})
    known = classes()
    for owner, options in config.items():
        for name, value in options.items():
            trait = known[owner].class_traits(config=True)[name]
            assert trait.validate(None, value) == value


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_line_of_the_magic_and_the_command_is_understood(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    language = Language(Session(shell=None, names=framework_names()).frameworks())
    for line in _MAGIC.findall(text):
        language.parse(line)
    for match in _COMMAND.finditer(text):
        app: Any = GPUApp()
        for word in match["words"].split():
            assert word in app.subcommands, match[0]
            app = app.subcommands[word][0]()
        for option in re.findall(r" --([a-z][a-z-]*)", match["rest"].partition(" -- ")[0]):
            assert option in {*app.flags, *app.aliases, "help"}, match[0]
        for request in _REQUEST.findall(match["rest"]):
            if request != "REQUEST":
                GPURequest.parse(request)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.is_run], ids=str)
def test_a_block_runs(block: Block, simulated_gpus: str, tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("import os; assert os.environ['JUPYTER_GPU_LEASE']")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "train.ipynb")
    done = subprocess.run(
        ["bash", "-euc", block.code],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout


def test_some_blocks_are_run() -> None:
    assert sum(block.is_run for block in BLOCKS) >= 2
    assert CONFIGURATION
