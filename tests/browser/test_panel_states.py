"""What the panel says when there is nothing, much, or something to mind; and how little it asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from fleet import Fleet
from lab_page import LabPage
from lab_server import wait_for
from panel_page import PanelPage
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab_server import LabServer
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SERVER: dict[str, Any] = {"simulate": None}
SOON_MS = 60_000
HIDE_PAGE = """hidden => {
    const state = hidden ? 'hidden' : 'visible';
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
    Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => state });
    document.dispatchEvent(new Event('visibilitychange'));
}"""
WATCH_LIVE_REGIONS = """() => {
    window.spoken = [];
    const live = '[aria-live], [role=status], [role=alert], [role=log]';
    for (const region of document.querySelectorAll(`#jupyter-gpu-panel :is(${live})`)) {
        new MutationObserver(() => window.spoken.push(region.textContent)).observe(
            region, { characterData: true, childList: true, subtree: true }
        );
    }
    return document.querySelectorAll(`#jupyter-gpu-panel :is(${live})`).length;
}"""
FIGURES = ("devices", "kernels", "queue", "history")
"""What the server has to work for; its status is asked for now and then, for as long as kernels can be picked."""
BAR_AND_SWATCH = """() => {
    const card = document.querySelector('#jupyter-gpu-panel [data-uuid]');
    const bar = card.querySelector('canvas');
    const pixel = x => [...bar.getContext('2d').getImageData(x, bar.height / 2, 1, 1).data].slice(0, 3);
    const probe = document.createElement('canvas').getContext('2d');
    probe.fillStyle = getComputedStyle(card.querySelector('.jp-gpu-Swatch')).backgroundColor;
    probe.fillRect(0, 0, 1, 1);
    const swatch = [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3);
    return { begin: pixel(0), end: pixel(bar.width - 1), swatch, excess: bar.width - bar.clientWidth };
}"""
CONTROLS = {"button", "checkbox", "combobox", "img", "image", "link", "region", "searchbox", "textbox"}
"""Roles of which a screen reader says nothing useful without a name."""


@pytest.fixture
def fleet_panel(server: LabServer, page: Page) -> Callable[[Fleet], PanelPage]:
    """Shows the panel on a page that believes in a fleet."""

    def show(fleet: Fleet) -> PanelPage:
        fleet.route(page)
        lab = LabPage(page, server)
        lab.open()
        panel = PanelPage(lab)
        panel.show()
        return panel

    return show


def let_pass(page: Page, fleet: Fleet, looks: int) -> None:
    """Return when the page has looked so often again."""
    end = fleet.asked.get("devices", 0) + looks

    def has_looked() -> bool:
        page.wait_for_timeout(50)  # In which the page's questions are answered.
        return fleet.asked.get("devices", 0) >= end

    wait_for(has_looked, f"{looks} looks at the devices", 60)


def test_the_bar_is_painted_in_the_colours_of_its_kernels_and_of_the_theme(
    fleet_panel: Callable[[Fleet], PanelPage], page: Page
) -> None:
    panel = fleet_panel(Fleet(1, [1], foreign=False))
    panel.lab.set_theme("JupyterLab Light")

    def painted() -> dict[str, Any] | None:
        page.wait_for_timeout(50)
        bar = dict(page.evaluate(BAR_AND_SWATCH))
        return bar if bar["begin"] == bar["swatch"] else None

    light = wait_for(painted, "a bar that begins in its kernel's colour", 60)
    assert light["begin"] != light["end"]
    assert light["excess"] == 0, "as many pixels as it is wide"
    panel.lab.set_theme("JupyterLab Dark")
    dark = wait_for(lambda: (bar := painted()) and bar["end"] != light["end"] and bar, "a bar in dark colours", 60)
    assert dark["begin"] != light["begin"]


def test_without_a_gpu_the_panel_says_what_the_doctor_says(server: LabServer, page: Page) -> None:
    found = server.rest("gpu/api/devices")
    if found["devices"]:
        pytest.skip("this machine has GPUs")
    lab = LabPage(page, server)
    lab.open()
    panel = PanelPage(lab)
    panel.show()
    doctor = server.run("jupyter", "gpu", "doctor")
    for problem in found["problems"]:
        expect(panel.node.get_by_text(problem["message"])).to_be_visible()
        assert problem["message"] in doctor
        expect(panel.node).to_contain_text(problem["advice"].replace('"', ""))
    with page.expect_response("**/gpu/api/status*"):
        panel.node.get_by_role("button", name="Look again").click()


def test_many_kernels_can_be_searched_sorted_and_folded_away(fleet_panel: Callable[[Fleet], PanelPage]) -> None:
    fleet = Fleet(8, [8] * 8, waiting=1, without_gpu=1)
    panel = fleet_panel(fleet)
    expect(panel.cards).to_have_count(8)
    expect(panel.node.locator(".jp-gpu-Card [data-kernel]")).to_have_count(65, timeout=SOON_MS)
    expect(panel.node.locator(".jp-gpu-Summary-count")).to_have_text("8 GPUs")

    search = panel.node.get_by_role("searchbox", name="Filter GPUs and kernels")
    search.fill("diffusion")
    named = [kernel for kernel in fleet.kernels if kernel.label == "diffusion.ipynb"]
    expect(panel.node.locator("[data-kernel]")).to_have_count(len(named), timeout=SOON_MS)
    assert set(panel.labels) <= {"diffusion.ipynb", "Not Jupyter's"}
    expect(panel.node.get_by_text("hidden by the filter").first).to_be_visible()
    search.fill("gpu 3")
    expect(panel.cards).to_have_count(1, timeout=SOON_MS)
    expect(panel.card("3").get_by_role("listitem")).to_have_count(9)
    search.fill("no such thing")
    expect(panel.node.get_by_text('No GPU and no kernel matches "no such thing".')).to_be_visible(timeout=SOON_MS)
    search.fill("")
    expect(panel.cards).to_have_count(8, timeout=SOON_MS)

    def labels_of_gpu_1() -> list[str]:
        return panel.card("1").locator("[data-kernel] .jp-gpu-Row-label").all_inner_texts()

    on_gpu_1 = [kernel for kernel in fleet.kernels if kernel.gpu == 1]
    order = panel.node.get_by_role("combobox", name="Order of the kernels")
    order.select_option(label="By name")
    names = sorted(kernel.label for kernel in on_gpu_1)
    wait_for(lambda: sorted(labels_of_gpu_1(), key=str.lower) == labels_of_gpu_1(), "kernels by name", 60)
    assert sorted(labels_of_gpu_1()) == names
    order.select_option(label="By memory")
    # Those that do not compute use always the same.
    resting = [kernel for kernel in on_gpu_1 if not kernel.busy]
    by_memory = [kernel.label for kernel in sorted(resting, key=lambda kernel: -kernel.used(0))]
    resting_labels = {kernel.label for kernel in resting}
    wait_for(
        lambda: [label for label in labels_of_gpu_1() if label in resting_labels] == by_memory, "kernels by memory", 60
    )

    panel.card("0").get_by_role("button", expanded=True).click()
    expect(panel.card("0").locator("[data-kernel]")).to_have_count(0)
    expect(panel.card("0")).to_contain_text("8 kernels")


def test_every_control_has_a_name_and_screen_readers_are_left_in_peace(
    fleet_panel: Callable[[Fleet], PanelPage],
) -> None:
    fleet = Fleet(8, [8] * 8, waiting=2, without_gpu=3, restless=True)
    panel = fleet_panel(fleet)
    page = panel.page
    # What is off the screen is not laid out, and Chromium tells nothing of it here.
    page.set_viewport_size({"width": 1280, "height": 6000})
    expect(panel.node.locator(".jp-gpu-Card [data-kernel]")).to_have_count(67, timeout=SOON_MS)
    let_pass(page, fleet, 2)
    session = page.context.new_cdp_session(page)
    root = session.send("Runtime.evaluate", {"expression": "document.querySelector('#jupyter-gpu-panel')"})
    tree = session.send("Accessibility.queryAXTree", {"objectId": root["result"]["objectId"]})
    shown = [node for node in tree["nodes"] if not node.get("ignored") and "role" in node]
    controls = [node for node in shown if node["role"]["value"] in CONTROLS]
    nameless = [node for node in controls if not node.get("name", {}).get("value", "").strip()]
    assert nameless == [], json.dumps(nameless, indent=1)
    names = [node["name"]["value"] for node in controls]
    assert "GPU 0, A100-SXM4-40GB" in names
    assert "Actions for diffusion.ipynb" in names
    assert sum(name.startswith("Actions for ") for name in names) == 67

    # All figures change at every look, and nothing of it is spoken; a new wait is, once.
    assert page.evaluate(WATCH_LIVE_REGIONS) >= 1
    let_pass(page, fleet, 3)
    assert page.evaluate("window.spoken") == []
    fleet.waiting = 3
    wait_for(lambda: page.evaluate("window.spoken"), "a word on the new wait", 60)
    let_pass(page, fleet, 3)
    assert page.evaluate("window.spoken") == ["big-model3.ipynb waits for a GPU."]
    # One stop of the Tab key for all of it, besides what is typed into.
    assert panel.node.locator('[tabindex="0"]').count() == 1


def test_nothing_is_asked_for_while_the_panel_or_the_page_is_hidden(
    server: LabServer, fleet_panel: Callable[[Fleet], PanelPage]
) -> None:
    server.configure(showInStatusBar=False)
    fleet = Fleet(2, [2, 2])
    panel = fleet_panel(fleet)
    page = panel.page
    let_pass(page, fleet, 2)
    for hide, show in (
        (panel.hide, panel.show),
        (lambda: page.evaluate(HIDE_PAGE, True), lambda: page.evaluate(HIDE_PAGE, False)),
    ):
        hide()
        page.wait_for_timeout(1000)  # A question may have been on its way.
        before = {name: fleet.asked.get(name) for name in FIGURES}
        page.wait_for_timeout(3000)
        assert {name: fleet.asked.get(name) for name in FIGURES} == before
        show()
        let_pass(page, fleet, 2)


def test_idle_kernels_are_marked_and_can_be_kept(fleet_panel: Callable[[Fleet], PanelPage]) -> None:
    fleet = Fleet(1, [4], idle_policy="shut-down")
    for kernel, label in zip(fleet.kernels, ("busy", "fresh", "old", "older"), strict=True):
        kernel.label, kernel.busy, kernel.idle_s = f"{label}.ipynb", label == "busy", 60 if label == "fresh" else 7200
    panel = fleet_panel(fleet)
    old = panel.row("old.ipynb")
    expect(old).to_contain_text("idle 2 h")
    expect(old).to_contain_text("Ends in 10 min if it stays idle")
    for label in ("busy.ipynb", "fresh.ipynb"):
        expect(panel.row(label)).not_to_have_attribute("data-idle", "shut-down")

    panel.act("old.ipynb", "Keep When Idle")
    expect(old).to_contain_text("Holds memory idle, and is kept", timeout=SOON_MS)
    expect(panel.row("older.ipynb")).to_contain_text("Ends in")
    assert fleet.kept == {next(kernel.id for kernel in fleet.kernels if kernel.label == "old.ipynb")}
    item = panel.open_menu("old.ipynb").get_by_role("menuitemcheckbox", name="Keep When Idle")
    expect(item).to_have_attribute("aria-checked", "true")
    item.click()
    expect(old).to_contain_text("Ends in", timeout=SOON_MS)
    assert fleet.kept == set()


def test_a_server_without_a_policy_for_idle_kernels_has_no_such_menu(
    fleet_panel: Callable[[Fleet], PanelPage],
) -> None:
    panel = fleet_panel(Fleet(1, [1]))
    menu = panel.open_menu("eval.ipynb")
    expect(menu.get_by_role("menuitem", name="Interrupt Kernel")).to_be_visible()
    expect(menu.get_by_role("menuitemcheckbox")).to_have_count(0)
