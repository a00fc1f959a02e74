"""A kernel that has to wait for its GPU says so on the screen, from the beginning of the wait to its end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from lab_page import LabPage
from lab_server import wait_for
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab_server import LabServer
    from playwright.sync_api import BrowserContext

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WAITS = "B.ipynb waits for GPU 1"
QUEUE = re.compile(r"/gpu/api/(queue|live)\b")
"""Both bring the queue."""


def holds_gpu_1_whole(server: LabServer) -> dict[str, Any]:
    """A session of A.ipynb, started by some client, that has GPU 1 to itself."""
    server.write_notebook("A.ipynb", metadata={"jupyter_gpu": {"request": "1:all"}})
    session = {"path": "A.ipynb", "name": "A.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
    started: dict[str, Any] = server.rest("api/sessions", "POST", session)
    assert server.holders("1") == ["A.ipynb"]
    return started


def open_b(lab: LabPage, server: LabServer) -> None:
    """Open a notebook that asks for the same GPU."""
    server.write_notebook("B.ipynb", metadata={"jupyter_gpu": {"request": "1:all"}})
    lab.open("B.ipynb")


def test_a_notebook_waits_visibly_for_a_taken_gpu_and_starts_when_it_is_free(lab: LabPage, server: LabServer) -> None:
    holder = holds_gpu_1_whole(server)
    open_b(lab, server)
    expect(lab.notification(WAITS)).to_be_visible(timeout=20_000)
    expect(lab.notification("held by A.ipynb")).to_be_visible()
    assert server.holders("1") == ["A.ipynb"]

    server.rest(f"api/sessions/{holder['id']}", "DELETE")
    lab.wait_for_kernel()
    expect(lab.notification("B.ipynb has GPU 1")).to_be_visible()
    assert server.holders("1") == ["B.ipynb"]
    assert server.rest("gpu/api/queue")["entries"] == []
    expect(lab.notification("GPU 1")).to_have_count(0, timeout=15_000)


def test_waiting_can_be_cancelled_from_its_notification(lab: LabPage, server: LabServer) -> None:
    holds_gpu_1_whole(server)
    open_b(lab, server)
    notification = lab.notification(WAITS)
    expect(notification).to_be_visible(timeout=20_000)
    notification.get_by_role("button", name="Cancel").click()
    wait_for(lambda: server.rest("gpu/api/queue")["entries"] == [], "the queue is empty")
    expect(notification).to_have_count(0)
    assert server.holders("1") == ["A.ipynb"]


def test_one_wait_is_one_notification(lab: LabPage, server: LabServer) -> None:
    holds_gpu_1_whole(server)
    open_b(lab, server)
    expect(lab.notification(WAITS)).to_have_count(1, timeout=20_000)
    for _ in range(2):
        with lab.page.expect_response(QUEUE):
            pass
    expect(lab.notification(WAITS)).to_have_count(1)


def test_a_kernel_that_could_not_get_its_gpu_says_why_once(lab: LabPage, server: LabServer) -> None:
    server.write_notebook("A.ipynb", metadata={"jupyter_gpu": {"request": "9"}})
    lab.open("A.ipynb")
    lab.wait_for_kernel()
    expect(lab.notification("A.ipynb: The kernel runs on the CPU")).to_have_count(1)
    assert lab.run_cell("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])") == "-1"
    expect(lab.notification("A.ipynb: The kernel runs on the CPU")).to_have_count(1)


def test_the_queue_is_left_alone_while_nothing_starts(lab: LabPage, server: LabServer) -> None:
    server.write_notebook("A.ipynb")
    lab.open("A.ipynb")
    lab.wait_for_kernel()
    lab.run_cell("x = 1")
    asked: list[str] = []
    lab.page.on("request", lambda request: asked.append(request.url) if "/gpu/api/queue" in request.url else None)
    lab.run_cell("import time; time.sleep(5)")
    assert len(asked) <= 1


def test_a_wait_on_one_server_ends_when_another_servers_kernel_does(
    start_server: Callable[..., LabServer], context: BrowserContext
) -> None:
    first, second = start_server(), start_server()
    holder = holds_gpu_1_whole(first)
    lab = LabPage(context.new_page(), second)
    open_b(lab, second)
    expect(lab.notification(WAITS)).to_be_visible(timeout=20_000)
    first.rest(f"api/sessions/{holder['id']}", "DELETE")
    lab.wait_for_kernel()
    assert second.holders("1") == ["B.ipynb"]
