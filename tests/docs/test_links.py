"""Links in the documentation lead somewhere: to a file of this repository, and to a heading that is in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from documentation import ROOT, pages, prose

_LINK = re.compile(r"(?<!\\)\[[^\]]*\]\((?P<target>[^)\s]+)\)|<img[^>]* src=\"(?P<image>[^\"]+)\"")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_ELSEWHERE = ("http://", "https://", "mailto:")


def targets(text: str) -> list[str]:
    return [match["target"] or match["image"] for match in _LINK.finditer(text)]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings: lower case, without punctuation, hyphens for spaces."""
    names = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(prose(page)))
    return set(names)


def broken(page: Path, text: str) -> list[str]:
    found = []
    for target in targets(text):
        if target.startswith(_ELSEWHERE):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or not path.is_relative_to(ROOT):
            found.append(f"{target}: there is no such file")
        elif anchor and path.suffix == ".md" and anchor not in anchors(path):
            found.append(f"{target}: {path.name} has {', '.join(sorted(anchors(path)))}")
    return found


def test_there_is_documentation_for_each_reader() -> None:
    names = {page.relative_to(ROOT).as_posix() for page in pages()}
    assert {"README.md", "CONTRIBUTING.md", "docs/using.md", "docs/operating.md", "docs/reference.md"} <= names


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    assert broken(page, prose(page)) == []


def test_links_in_the_notebooks_lead_to_files_that_are_there() -> None:
    for path in sorted((ROOT / "binder" / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        assert broken(path, text) == [], path


def test_every_page_is_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        for target in targets(prose(page)):
            path = (page.parent / target.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.is_file() and path not in reached:
                ahead.append(path)
    assert set(pages()) - reached == set()
