"""What a notebook's metadata says of its GPU."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import nbformat
import pytest

from jupyter_gpu.notebook import notebook_keeps_when_idle, notebook_request

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "A.ipynb"


def test_the_request_of_a_notebook_as_jupyter_writes_it_is_found(path: Path) -> None:
    notebook = nbformat.v4.new_notebook(metadata={"jupyter_gpu": {"request": "1:8GiB"}, "title": "é"})
    nbformat.write(notebook, path)
    assert notebook_request(path) == "1:8GiB"


@pytest.mark.parametrize(
    ("metadata", "keeps"),
    [
        ({"jupyter_gpu": {"keep_when_idle": True}}, True),
        ({"jupyter_gpu": {"keep_when_idle": False}}, False),
        ({"jupyter_gpu": {"keep_when_idle": "yes"}}, False),
        ({"jupyter_gpu": None}, False),
        ({"keep_when_idle": True}, False),
    ],
)
def test_only_true_keeps_an_idle_kernel(path: Path, metadata: object, keeps: bool) -> None:
    path.write_text(json.dumps({"metadata": metadata, "cells": []}))
    assert notebook_keeps_when_idle(path) is keeps


def test_the_word_in_a_cell_is_no_request(path: Path) -> None:
    cell = nbformat.v4.new_code_cell('{"jupyter_gpu": {"request": "1:8GiB"}}')
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    assert notebook_request(path) is None


@pytest.mark.parametrize(
    "metadata",
    [{}, {"jupyter_gpu": {}}, {"jupyter_gpu": None}, {"jupyter_gpu": "1"}, {"jupyter_gpu": {"request": 1}},
     {"jupyter_gpu": {"request": "  "}}, {"jupyter_gpu": {"request": None}}, {"jupyter_gpu": ["request"]}],
)  # fmt: skip
def test_what_is_no_text_is_no_request(path: Path, metadata: object) -> None:
    path.write_text(json.dumps({"metadata": metadata, "cells": []}))
    assert notebook_request(path) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b'{"jupyter_gpu"', b'["jupyter_gpu"]', b'"jupyter_gpu"', b'{"jupyter_gpu":' + b"[" * 100_000],
)
def test_a_file_that_is_no_notebook_has_none(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert notebook_request(path) is None


def test_a_path_that_is_no_file_has_none_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ipynb")
    for path in (tmp_path, tmp_path / "not-there.ipynb", tmp_path / "pipe.ipynb"):
        assert notebook_request(path) is None


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_notebook_that_may_not_be_read_has_none(path: Path) -> None:
    path.write_text(json.dumps({"metadata": {"jupyter_gpu": {"request": "1"}}}))
    path.chmod(0)
    assert notebook_request(path) is None
