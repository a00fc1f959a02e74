"""A real browser on a real server. Chromium comes from Playwright, or from the system where Playwright has none."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lab_page import LabPage
from lab_server import LabServer
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHROMIUM_VARIABLE = "BROWSER_TEST_CHROMIUM"
"""The path of the Chromium to use, if it is none of those below."""
PICTURES_VARIABLE = "BROWSER_TEST_PICTURES"
"""A directory for pictures of how each test ended."""
SYSTEM_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium(own: str) -> str:
    """The browser's path: the one asked for, else Playwright's `own` where it is installed, else the system's."""
    named = os.environ.get(CHROMIUM_VARIABLE)
    if named:
        return named
    if Path(own).exists():
        return own
    for name in SYSTEM_CHROMIUMS:
        path = shutil.which(name)
        if path:
            return path
    raise AssertionError(
        "there is no Chromium; run `playwright install --with-deps chromium`, install the system's, "
        f"or put its path in {CHROMIUM_VARIABLE}"
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for a file's tests. Not for more: Playwright's event loop would be in the way of other tests'."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium(playwright.chromium.executable_path), args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Browser, request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """A browser of its own for one test: nothing is remembered from another."""
    made = browser.new_context(viewport={"width": 1280, "height": 800})
    made.set_default_timeout(30_000)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def jp_asyncio_loop() -> None:
    """Nothing: pytest-jupyter's would close Playwright's event loop."""


@pytest.fixture(autouse=True)
def jp_server_cleanup() -> None:
    """Nothing: the servers are other processes."""


@pytest.fixture
def start_server(tmp_path: Path, runtime_directory: Path) -> Iterator[Callable[..., LabServer]]:
    """Starts servers that share one ledger and end with the test; their log is shown if it fails."""
    servers: list[LabServer] = []

    def start(**options: Any) -> LabServer:
        home = tmp_path / f"server{len(servers)}"
        home.mkdir()
        server = LabServer(home, runtime_directory, **options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()
        print(server.log)


@pytest.fixture(scope="module")
def module_server(request: pytest.FixtureRequest) -> Iterator[LabServer]:
    """One server for a file's tests: what its `SERVER` says, or else JupyterLab with four simulated GPUs."""
    # Unix sockets allow 107 characters.
    home = Path(tempfile.mkdtemp(prefix="jg-"))
    made = LabServer(home, home / "gpu", **getattr(request.module, "SERVER", {}))
    made.start()
    yield made
    made.stop()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def server(module_server: LabServer) -> Iterator[LabServer]:
    """The file's server, on which nothing runs and nobody has left anything."""
    said = len(module_server.log)
    module_server.clear()
    yield module_server
    print(module_server.log[said:])


@pytest.fixture
def page(context: BrowserContext, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page whose last look is kept as a picture, for whoever has to find out why a test failed."""
    made = context.new_page()
    said: list[str] = []
    made.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    made.on("pageerror", lambda error: said.append(f"uncaught: {error}"))
    yield made
    print("\n".join(said))
    pictures = os.environ.get(PICTURES_VARIABLE)
    if pictures:
        made.screenshot(path=Path(pictures) / f"{request.node.name}.png")


@pytest.fixture
def lab(server: LabServer, page: Page) -> LabPage:
    """A page on that server."""
    return LabPage(page, server)
