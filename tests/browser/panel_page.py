"""The GPU panel as a person sees it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lab_page import READY_MS
from playwright.sync_api import Locator, expect

if TYPE_CHECKING:
    from lab_page import LabPage


class PanelPage:
    """The panel of one page."""

    def __init__(self, lab: LabPage) -> None:
        self.lab = lab
        self.page = lab.page
        self.node = lab.page.locator("#jupyter-gpu-panel")

    def show(self) -> None:
        """Have it on the screen, with the first answers in it."""
        if not self.node.is_visible():
            self.tab.click()
        expect(self.node).to_be_visible()
        expect(self.node.locator("[aria-busy]")).to_have_count(0, timeout=READY_MS)

    def hide(self) -> None:
        """Fold its sidebar away."""
        if self.node.is_visible():
            self.tab.click()
        expect(self.node).to_be_hidden()

    @property
    def tab(self) -> Locator:
        """The sidebar's tab that shows and hides it."""
        return self.page.get_by_role("tab", name="GPUs")

    @property
    def cards(self) -> Locator:
        """The GPUs' cards, in their order."""
        return self.node.locator(".jp-gpu-Card[data-uuid]")

    def card(self, index: str) -> Locator:
        """A GPU's card."""
        return self.node.get_by_role("region", name=re.compile(rf"^GPU {re.escape(index)},"))

    def section(self, name: str) -> Locator:
        """A card that is no GPU's: "Waiting for a GPU" or "Without a GPU"."""
        return self.node.get_by_role("region", name=name)

    def row(self, label: str) -> Locator:
        """A kernel's row, or a waiting request's."""
        return self.node.get_by_role("listitem").filter(
            has=self.page.locator(".jp-gpu-Row-label").get_by_text(label, exact=True)
        )

    @property
    def labels(self) -> list[str]:
        """All rows' names, from top to bottom."""
        return self.node.locator(".jp-gpu-Row-label").all_inner_texts()

    def figures(self, index: str) -> Locator:
        """The line of figures below a GPU's bar."""
        return self.card(index).locator(".jp-gpu-Figures")

    @property
    def stale_mark(self) -> Locator:
        """What says that the figures are old."""
        return self.node.locator('.jp-gpu-Notice[data-kind="stale"]')

    def open_menu(self, label: str) -> Locator:
        """Open a kernel's menu."""
        self.node.get_by_role("button", name=f"Actions for {label}", exact=True).click()
        menu = self.page.locator(".jp-gpu-Menu")
        expect(menu).to_be_visible()
        return menu

    def act(self, label: str, action: str) -> None:
        """Choose an action from a kernel's menu."""
        self.open_menu(label).get_by_role("menuitem", name=action).click()

    def change(self, *, gpu: str | None = None, memory: str | None = None) -> None:
        """Choose in the dialog that changes a kernel's GPU, which is open, and confirm."""
        dialog = self.lab.dialog
        if gpu is not None:
            dialog.get_by_role("radio", name=re.compile(rf"^{gpu}\b")).check()
        if memory is not None:
            dialog.get_by_role("textbox", name="Memory to reserve").fill(memory)
        dialog.get_by_role("button", name="Change").click()
