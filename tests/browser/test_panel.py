"""Real kernels on simulated GPUs take memory, wait and end, and the panel shows it and acts on it."""

from __future__ import annotations

import csv
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from lab_page import READY_MS, LabPage
from lab_server import wait_for
from panel_page import PanelPage
from playwright.sync_api import Locator, expect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab_server import LabServer
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SOON_MS = 60_000
"""How long a figure may take to be on the screen on a busy machine."""
TAKE = "import jupyter_gpu.simulated as gpu; taken = gpu.allocate('{}'); print('taken')"
FREE = "taken.free(); print('free')"
WORK = "import time\nwhile True: time.sleep(0.1)"
CHARTS_LOADED = r"""async () => {
  const names = performance.getEntriesByType('resource').map(({ name }) => name);
  const own = names.filter(name => /jupyter-gpu\/static\/.*\.js/.test(name));
  const texts = await Promise.all(own.map(async name => (await fetch(name)).text()));
  return texts.filter(text => text.includes('u-axis')).length;
}"""
"""How many scripts of ours with uPlot in them the page has loaded, whatever they are called."""
HOSTILE = "<img src=x onerror=window.harmed=1>.ipynb"


@pytest.fixture(scope="module")
def watching(module_server: LabServer, browser: Browser) -> Iterator[PanelPage]:
    """A page that several tests look at, one after the other, as a person leaves it open."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    context.set_default_timeout(READY_MS)
    lab = LabPage(context.new_page(), module_server)
    lab.open()
    yield PanelPage(lab)
    context.close()


@pytest.fixture
def panel(watching: PanelPage, server: LabServer) -> PanelPage:
    """The panel on that page, when no kernel runs."""
    watching.lab.dismiss_dialogs()
    watching.lab.close_all()
    watching.show()
    expect(watching.node.locator("[data-kernel]")).to_have_count(0, timeout=SOON_MS)
    return watching


def start_elsewhere(server: LabServer, notebook: str, request: str) -> threading.Thread:
    """Start a kernel that has to wait, as another client would, which is kept waiting too."""

    def start() -> None:
        # Where the wait is given up, the server answers with an error.
        try:
            server.start_kernel(notebook, request)
        except OSError:
            pass

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    return thread


def memory(row: Locator) -> Locator:
    return row.locator(".jp-gpu-Row-memory")


def test_two_notebooks_on_two_gpus_take_and_free_memory_and_the_panel_follows(lab: LabPage, server: LabServer) -> None:
    server.write_notebook("A.ipynb", metadata={"jupyter_gpu": {"request": "1:8GiB"}})
    server.write_notebook("B.ipynb", metadata={"jupyter_gpu": {"request": "2:all"}})
    lab.open("A.ipynb")
    lab.wait_for_kernel()
    panel = PanelPage(lab)
    panel.show()
    in_a = panel.card("1").get_by_role("listitem")
    expect(in_a).to_have_count(1, timeout=SOON_MS)
    expect(in_a).to_contain_text("A.ipynb")
    expect(memory(in_a)).to_have_text("0 / 8 GiB", timeout=SOON_MS)

    assert lab.run_cell(TAKE.format("2GiB")) == "taken"
    expect(memory(in_a)).to_have_text("2.0 / 8 GiB", timeout=SOON_MS)
    expect(panel.figures("1")).to_contain_text("2.0 / 40 GiB", timeout=SOON_MS)

    lab.open_beside("B.ipynb")
    lab.wait_for_kernel()
    assert lab.run_cell(TAKE.format("30GiB")) == "taken"
    in_b = panel.card("2").get_by_role("listitem")
    expect(in_b).to_contain_text("B.ipynb", timeout=SOON_MS)
    expect(memory(in_b)).to_have_text("30.0 / 40 GiB", timeout=SOON_MS)
    expect(panel.node.locator(".jp-gpu-Summary-memory")).to_have_text("32.0 / 160 GiB", timeout=SOON_MS)
    expect(memory(in_a)).to_have_text("2.0 / 8 GiB")

    assert lab.run_cell(FREE) == "free"
    expect(memory(in_b)).to_have_text("0 / 40 GiB", timeout=SOON_MS)
    expect(in_b).to_contain_text("peak 30 GiB")
    expect(panel.node.locator(".jp-gpu-Summary-memory")).to_have_text("2.0 / 160 GiB", timeout=SOON_MS)


def test_the_toolbar_changes_memory_at_once_and_asks_before_another_gpu_restarts_the_kernel(
    lab: LabPage, server: LabServer
) -> None:
    server.write_notebook("A.ipynb", metadata={"jupyter_gpu": {"request": "1:8GiB"}})
    lab.open("A.ipynb")
    lab.wait_for_kernel()
    panel = PanelPage(lab)
    item = lab.notebook.locator(".jp-gpu-ToolbarItem").get_by_role("button")
    expect(item).to_have_accessible_name("GPU 1 · 0 / 8 GiB", timeout=SOON_MS)
    lab.run_cell("kept = 'still here'")

    item.click()
    panel.change(memory="12 GiB")
    expect(item).to_have_accessible_name("GPU 1 · 0 / 12 GiB", timeout=SOON_MS)
    expect(lab.dialog).to_have_count(0)
    assert server.kernel_of("A.ipynb")["devices"][0]["memory_bytes"] == 12 << 30
    assert lab.run_cell("print(kept)") == "still here"

    item.click()
    panel.change(gpu="GPU 2")
    expect(lab.dialog).to_contain_text("Restart the kernel of A.ipynb?")
    lab.dialog.get_by_role("button", name="Cancel").click()
    assert lab.run_cell("print(kept)") == "still here"
    assert server.holders("1") == ["A.ipynb"]

    item.click()
    panel.change(gpu="GPU 2")
    lab.dialog.get_by_role("button", name="Restart", exact=True).click()
    expect(item).to_have_accessible_name(re.compile("^GPU 2 "), timeout=SOON_MS)
    lab.wait_for_kernel()
    assert lab.run_cell("print('kept' in globals())") == "False"
    assert server.holders("1") == []
    assert server.holders("2") == ["A.ipynb"]


def test_a_kernel_is_interrupted_restarted_and_shut_down_from_the_panel(panel: PanelPage, server: LabServer) -> None:
    lab = panel.lab
    kernel = server.start_kernel("A.ipynb", "1:8GiB")
    row = panel.row("A.ipynb")
    assert lab.execute(kernel, TAKE.format("2GiB")) == "taken"
    lab.execute(kernel, WORK, wait=False)
    expect(row).to_have_attribute("data-condition", "busy", timeout=SOON_MS)
    panel.act("A.ipynb", "Interrupt Kernel")
    expect(row).to_have_attribute("data-condition", "idle", timeout=SOON_MS)
    expect(memory(row)).to_have_text("2.0 / 8 GiB")

    pid = server.kernel_of("A.ipynb")["pid"]
    panel.act("A.ipynb", "Restart Kernel…")
    expect(lab.dialog).to_contain_text("Restart the kernel of A.ipynb?")
    lab.dialog.get_by_role("button", name="Restart").click()
    wait_for(lambda: server.kernel_of("A.ipynb")["pid"] not in (pid, None), "another process", 60)
    expect(memory(row)).to_have_text("0 / 8 GiB", timeout=SOON_MS)

    panel.act("A.ipynb", "Shut Down Kernel…")
    lab.dialog.get_by_role("button", name="Shut Down").click()
    expect(row).to_have_count(0, timeout=SOON_MS)
    wait_for(lambda: server.holders("1") == [], "GPU 1 is free")
    assert server.rest("api/sessions") == []


def test_a_waiting_kernel_stands_in_the_panel_until_it_is_granted_or_cancelled(
    panel: PanelPage, server: LabServer
) -> None:
    lab = panel.lab
    server.start_kernel("A.ipynb", "1:all")
    waiting = panel.section("Waiting for a GPU")

    cancelled = start_elsewhere(server, "B.ipynb", "1:all")
    expect(waiting.get_by_role("listitem")).to_contain_text("waits for GPU 1, held by A.ipynb", timeout=SOON_MS)
    # The launch began elsewhere; the page is told of it all the same.
    expect(lab.notification("B.ipynb waits for GPU 1")).to_be_visible(timeout=SOON_MS)
    waiting.get_by_role("button", name="Stop B.ipynb from waiting").click()
    expect(waiting).to_have_count(0, timeout=SOON_MS)
    cancelled.join(60)
    assert server.rest("gpu/api/queue")["entries"] == []
    assert server.holders("1") == ["A.ipynb"]
    expect(lab.notification("B.ipynb waits for GPU 1")).to_have_count(0, timeout=SOON_MS)

    granted = start_elsewhere(server, "C.ipynb", "1:all")
    expect(waiting.get_by_role("listitem")).to_contain_text("C.ipynb", timeout=SOON_MS)
    panel.act("A.ipynb", "Shut Down Kernel…")
    lab.dialog.get_by_role("button", name="Shut Down").click()
    expect(waiting).to_have_count(0, timeout=SOON_MS)
    expect(panel.card("1").get_by_role("listitem")).to_contain_text("C.ipynb", timeout=SOON_MS)
    granted.join(60)


def test_kernels_without_a_gpu_have_their_place_and_can_be_given_one(panel: PanelPage, server: LabServer) -> None:
    kernel = server.start_kernel("A.ipynb", "cpu")
    without = panel.section("Without a GPU")
    expect(without.get_by_role("listitem")).to_contain_text("A.ipynb", timeout=SOON_MS)
    assert panel.lab.execute(kernel, "print('ready')") == "ready"
    panel.act("A.ipynb", "Change GPU or Memory…")
    panel.change(gpu="GPU 3")
    panel.lab.dialog.get_by_role("button", name="Restart", exact=True).click()
    expect(panel.card("3").get_by_role("listitem")).to_contain_text("A.ipynb", timeout=SOON_MS)
    expect(without).to_have_count(0, timeout=SOON_MS)
    assert server.holders("3") == ["A.ipynb"]


def test_everything_can_be_done_by_the_keyboard(panel: PanelPage, server: LabServer) -> None:
    page = panel.page
    server.start_kernel("A.ipynb", "0:8GiB")
    expect(panel.row("A.ipynb")).to_be_visible(timeout=SOON_MS)

    page.keyboard.press("Control+Shift+c")
    expect(page.locator(".lm-CommandPalette-input")).to_be_focused()
    page.keyboard.insert_text("Show GPUs")
    expect(page.locator(".lm-CommandPalette-item.lm-mod-active")).to_contain_text("Show GPUs")
    page.keyboard.press("Enter")
    expect(page.locator(".lm-CommandPalette-input")).to_be_hidden()
    first = panel.card("0").get_by_role("button", name=re.compile("^GPU 0"), expanded=True)
    expect(first).to_be_focused()

    # The card folds and unfolds; one step on is its kernel, and right of that its actions.
    page.keyboard.press("Enter")
    expect(panel.row("A.ipynb")).to_have_count(0)
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    expect(panel.row("A.ipynb").get_by_role("button", name="A.ipynb", exact=True)).to_be_focused()
    page.keyboard.press("ArrowRight")
    actions = panel.node.get_by_role("button", name="Actions for A.ipynb")
    expect(actions).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".jp-gpu-Menu")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".jp-gpu-Menu")).to_have_count(0)
    expect(actions).to_be_focused()

    page.keyboard.press("Enter")
    expect(page.locator(".jp-gpu-Menu")).to_be_visible()
    page.keyboard.press("ArrowUp")
    expect(page.locator(".jp-gpu-Menu .lm-mod-active")).to_contain_text("Shut Down Kernel…")
    page.keyboard.press("Enter")
    expect(panel.lab.dialog).to_contain_text("Shut down the kernel of A.ipynb?")
    expect(panel.lab.dialog.get_by_role("button", name="Shut Down")).to_be_focused()
    page.keyboard.press("Enter")
    expect(panel.row("A.ipynb")).to_have_count(0, timeout=SOON_MS)


def test_details_have_a_chart_that_is_loaded_on_demand_and_can_be_saved(
    panel: PanelPage, server: LabServer, tmp_path: Path
) -> None:
    page = panel.page
    kernel = server.start_kernel("A.ipynb", "1:8GiB")
    assert panel.lab.execute(kernel, TAKE.format("3GiB")) == "taken"
    expect(memory(panel.row("A.ipynb"))).to_have_text("3.0 / 8 GiB", timeout=SOON_MS)
    assert page.evaluate(CHARTS_LOADED) == 0
    panel.act("A.ipynb", "Memory and Utilisation over Time")
    details = page.locator(".jp-gpu-Details")
    expect(details.get_by_role("heading", name=re.compile("A.ipynb"))).to_be_visible()
    charts = details.locator("canvas")
    expect(charts).to_have_count(2)
    assert page.evaluate(CHARTS_LOADED) > 0
    # The legend says what is under the cursor.
    plot, legend = details.locator(".u-over").first, details.locator(".u-legend").first

    def says_what_is_under_the_cursor() -> bool:
        # Until the charts have found their size, the plot may slip away from below the cursor.
        box = plot.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] - 20, box["y"] + 20)
        page.mouse.move(box["x"] + box["width"] - 10, box["y"] + 20)
        return "GiB" in legend.inner_text()

    wait_for(says_what_is_under_the_cursor, "an amount in the legend", 60)

    with page.expect_download() as download:
        details.get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename.endswith(".csv")
    download.value.save_as(tmp_path / "saved.csv")
    rows = list(csv.reader((tmp_path / "saved.csv").read_text().splitlines()))
    assert any(str(3 << 30) in row for row in rows[1:]), rows
    with page.expect_download() as download:
        details.get_by_role("button", name="PNG").click()
    assert download.value.suggested_filename.endswith(".png")
    download.value.save_as(tmp_path / "saved.png")
    assert (tmp_path / "saved.png").read_bytes().startswith(b"\x89PNG\r\n")

    box = charts.first.bounding_box()
    assert box is not None
    x, y = box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 0.3 * box["width"], y, steps=4)
    page.mouse.up()
    zoom_out = details.get_by_role("button", name="Zoom out")
    zoom_out.click()
    expect(zoom_out).to_have_count(0)

    # After the kernel's end what was seen of it stays, and is marked.
    server.rest(f"api/kernels/{kernel}", "DELETE")
    expect(details.get_by_text("nothing new comes")).to_be_visible(timeout=SOON_MS)
    page.get_by_role("tab", name=re.compile("A.ipynb")).locator(".lm-TabBar-tabCloseIcon").click()
    expect(details).to_have_count(0)


def test_names_are_text_whatever_is_in_them(panel: PanelPage, server: LabServer) -> None:
    lab = panel.lab
    server.start_kernel(HOSTILE, "1:all")
    row = panel.row(HOSTILE)
    expect(row).to_be_visible(timeout=SOON_MS)
    waiting = start_elsewhere(server, "<b>B.ipynb", "1:all")
    expect(panel.row("<b>B.ipynb")).to_contain_text(f"held by {HOSTILE}", timeout=SOON_MS)
    expect(lab.notification(f"<b>B.ipynb waits for GPU 1, held by {HOSTILE}")).to_be_visible(timeout=SOON_MS)
    panel.act(HOSTILE, "Memory and Utilisation over Time")
    details = panel.page.locator(".jp-gpu-Details")
    expect(details.get_by_role("heading")).to_contain_text(HOSTILE)
    expect(details.locator(".u-legend").first).to_be_visible()
    lab.close_all()
    panel.act(HOSTILE, "Change GPU or Memory…")
    expect(lab.dialog).to_contain_text(f"GPU of {HOSTILE}")
    lab.dialog.get_by_role("button", name="Cancel").click()
    panel.act(HOSTILE, "Shut Down Kernel…")
    expect(lab.dialog).to_contain_text(HOSTILE)
    lab.dialog.get_by_role("button", name="Shut Down").click()
    waiting.join(60)
    expect(panel.row(HOSTILE)).to_have_count(0, timeout=SOON_MS)
    assert panel.page.locator("img[src=x]").count() == 0
    assert panel.page.evaluate("window.harmed") is None


def test_a_notification_says_that_a_kernel_nears_its_cap_and_passes_it(panel: PanelPage, server: LabServer) -> None:
    lab = panel.lab
    kernel = server.start_kernel("A.ipynb", "1:8GiB")
    row = panel.row("A.ipynb")
    assert lab.execute(kernel, TAKE.format("7.7GiB")) == "taken"
    expect(row).to_have_attribute("data-condition", "near-cap", timeout=SOON_MS)
    expect(row).to_contain_text("near cap")
    near = lab.notification("A.ipynb").filter(has_text="7.7")
    expect(near.first).to_be_visible(timeout=SOON_MS)
    expect(near.first.get_by_role("button", name="Change")).to_be_visible()

    server.rest(f"gpu/api/kernels/{kernel}", "PATCH", {"request": "1:4GiB"})
    expect(row).to_have_attribute("data-condition", "over-cap", timeout=SOON_MS)
    expect(row).to_contain_text("over cap")
    expect(lab.notification("A.ipynb").filter(has_text="4 GiB").first).to_be_visible(timeout=SOON_MS)


def test_a_kernel_that_holds_memory_and_computes_nothing_is_told_of_and_can_be_kept(
    start_server: Callable[..., LabServer], page: Page
) -> None:
    policy = {"action": "shut-down", "after_s": 1, "grace_s": 3600, "interval_s": 0.5}
    server = start_server(options=[f"--GPUIdlePolicy.{name}={value}" for name, value in policy.items()])
    lab = LabPage(page, server)
    server.write_notebook("A.ipynb", metadata={"jupyter_gpu": {"request": "1:8GiB"}})
    lab.open("A.ipynb")
    lab.wait_for_kernel()
    panel = PanelPage(lab)
    panel.show()
    row = panel.row("A.ipynb")
    assert lab.run_cell(TAKE.format("2GiB")) == "taken"
    expect(row).to_contain_text("Ends in 1 h if it stays idle", timeout=SOON_MS)
    told = lab.notification("A.ipynb").first
    told.get_by_role("button", name="Keep").click(timeout=SOON_MS)
    expect(row).to_contain_text("and is kept", timeout=SOON_MS)
    lab.save()
    assert server.metadata("A.ipynb")["jupyter_gpu"] == {"request": "1:8GiB", "keep_when_idle": True}


def test_settings_say_what_is_shown_and_where(lab: LabPage, server: LabServer) -> None:
    server.start_kernel("A.ipynb", "1")
    server.start_kernel("B.ipynb", "cpu")
    lab.open()
    panel = PanelPage(lab)
    panel.show()
    expect(panel.row("A.ipynb").locator(".jp-gpu-Sparkline")).to_be_visible(timeout=SOON_MS)
    expect(panel.figures("1")).to_contain_text("°C")
    expect(panel.section("Without a GPU")).to_be_visible()
    expect(lab.page.locator(".jp-gpu-StatusItem")).to_be_visible()
    assert panel.node.evaluate("node => !!node.closest('#jp-right-stack')")

    server.configure(
        side="left",
        showSparklines=False,
        showTemperatureAndPower=False,
        showKernelsWithoutGPU=False,
        showInStatusBar=False,
        refreshInterval=60,
    )
    lab.page.reload()
    lab.wait_until_loaded()
    panel.show()
    expect(panel.row("A.ipynb")).to_be_visible(timeout=SOON_MS)
    assert panel.node.evaluate("node => !!node.closest('#jp-left-stack')")
    expect(panel.node.locator(".jp-gpu-Sparkline")).to_have_count(0)
    expect(panel.figures("1")).not_to_contain_text("°C")
    expect(panel.section("Without a GPU")).to_have_count(0)
    expect(lab.page.locator(".jp-gpu-StatusItem")).to_have_count(0)


def test_a_server_that_is_killed_leaves_a_mark_and_comes_back_by_itself(panel: PanelPage, server: LabServer) -> None:
    kernel = server.start_kernel("A.ipynb", "1:8GiB")
    assert panel.lab.execute(kernel, TAKE.format("2GiB")) == "taken"
    expect(memory(panel.row("A.ipynb"))).to_have_text("2.0 / 8 GiB", timeout=SOON_MS)
    said: list[Any] = []
    panel.page.on("requestfailed", lambda request: said.append(request.url))

    server.kill()
    expect(panel.stale_mark).to_contain_text("The server does not answer.", timeout=SOON_MS)
    expect(panel.stale_mark).to_contain_text("These figures are from")
    # What was known stays to be seen.
    expect(memory(panel.row("A.ipynb"))).to_have_text("2.0 / 8 GiB")

    server.start()
    expect(panel.stale_mark).to_have_count(0, timeout=2 * SOON_MS)
    expect(panel.row("A.ipynb")).to_have_count(0, timeout=SOON_MS)
    server.start_kernel("B.ipynb", "2:8GiB")
    expect(panel.card("2").get_by_role("listitem")).to_contain_text("B.ipynb", timeout=SOON_MS)
