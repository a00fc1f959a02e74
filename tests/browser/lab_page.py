"""JupyterLab and Notebook 7 as a person sees them: what can be done on the page, in a person's words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from playwright.sync_api import Locator, Page, expect

if TYPE_CHECKING:
    from lab_server import LabServer

READY_MS = 60_000
"""How long a page may take to load, or a kernel to start, on a busy machine of two cores."""

_KERNEL = "window.jupyterapp?.shell.currentWidget?.context?.sessionContext.session?.kernel"
_MODEL = "window.jupyterapp.shell.currentWidget.context.model"
_KERNEL_READY = f"""name => {{
    const kernel = {_KERNEL};
    return !!kernel && kernel.connectionStatus === 'connected' && kernel.status === 'idle'
        && (name === null || kernel.name === name);
}}"""

_EXECUTE = """async ([id, code, wait]) => {
    const kernels = (window.kernelsOfTests ??= new Map());
    if (!kernels.has(id)) {
        const model = { id, name: 'python3' };
        kernels.set(id, window.jupyterapp.serviceManager.kernels.connectTo({ model }));
    }
    const future = kernels.get(id).requestExecute({ code });
    let printed = '';
    future.onIOPub = ({ header, content }) => {
        printed += header.msg_type === 'stream' ? content.text : '';
        printed += header.msg_type === 'error' ? `${content.ename}: ${content.evalue}` : '';
    };
    if (wait) {
        await future.done;
    } else {
        future.done.catch(() => undefined);
    }
    return printed.trim();
}"""

_CLOSE_ALL = """() => {
    for (const widget of [...window.jupyterapp.shell.widgets('main')]) {
        if (!widget.node.querySelector('.jp-Launcher')) {
            widget.dispose();
        }
    }
}"""


class LabPage:
    """One page of one server."""

    def __init__(self, page: Page, server: LabServer) -> None:
        self.page = page
        self.server = server

    # Coming and going

    def open(self, notebook: str | None = None) -> None:
        """Load the page, with a notebook open in it if one is named."""
        lab = self.server.application == "lab"
        place = "" if notebook is None else ("/lab/tree/" if lab else "/notebooks/") + notebook
        url = self.server.url if notebook is None else self.server.url.replace("/lab" if lab else "/tree", place, 1)
        self.page.goto(url)
        if notebook is not None:
            expect(self.notebook).to_be_visible(timeout=READY_MS)
        self.wait_until_loaded()

    def wait_until_loaded(self) -> None:
        """Return once the application is on the screen."""
        expect(self.page.locator("#main, #main-panel").first).to_be_visible(timeout=READY_MS)
        if self.server.application == "lab":
            expect(self.page.locator("#jupyterlab-splash")).to_have_count(0, timeout=READY_MS)

    def open_beside(self, notebook: str) -> None:
        """Open another notebook on the same page."""
        self.page.evaluate("path => { window.jupyterapp.commands.execute('docmanager:open', { path }); }", notebook)
        expect(self.page.locator(".jp-mod-current .lm-TabBar-tabLabel").first).to_have_text(notebook, timeout=READY_MS)
        expect(self.notebook.locator(".jp-Cell").first).to_be_visible(timeout=READY_MS)

    def close_all(self) -> None:
        """Close what is open in the main area, and return when only a launcher is there."""
        self.page.evaluate(_CLOSE_ALL)
        expect(self.page.locator(".jp-Launcher:visible")).to_be_visible()

    def dismiss_dialogs(self) -> None:
        """Close dialogs that somebody has left open."""
        while self.dialog.count():
            self.page.keyboard.press("Escape")
            self.page.wait_for_timeout(100)

    def reload(self) -> None:
        """Load the page again."""
        self.page.reload()
        expect(self.notebook).to_be_visible(timeout=READY_MS)

    def new_notebook(self, choice: str) -> None:
        """Click a tile of the launcher."""
        launcher = self.page.locator(".jp-Launcher:visible")
        launcher.locator(".jp-Launcher-section", has_text="Notebook").locator(
            f'.jp-LauncherCard[title^="{choice}"]'
        ).first.click()
        expect(self.notebook).to_be_visible(timeout=READY_MS)

    # The notebook

    @property
    def notebook(self) -> Locator:
        """The notebook that is seen."""
        return self.page.locator(".jp-NotebookPanel:visible")

    @property
    def title(self) -> str:
        """The seen notebook's file name."""
        return self.page.locator(".jp-mod-current .lm-TabBar-tabLabel").first.inner_text()

    @property
    def kernel_name(self) -> Locator:
        """The button that shows the kernel's name and opens the kernel dialog."""
        return self.notebook.locator(".jp-KernelName")

    def wait_for_kernel(self, name: str | None = None) -> None:
        """Return once the seen notebook's kernel is ready for a cell; if named, a kernel of that kernelspec."""
        self.page.wait_for_function(_KERNEL_READY, arg=name, timeout=READY_MS)

    def wait_for_no_kernel(self) -> None:
        """Return once the page knows that the seen notebook's kernel is gone."""
        self.page.wait_for_function(f"() => !({_KERNEL})", timeout=READY_MS)

    def save(self) -> None:
        """Save as a person does, and return once the notebook is saved."""
        self.notebook.locator(".jp-Notebook").first.press("Escape")
        with self.page.expect_response(lambda r: r.request.method == "PUT" and "/api/contents/" in r.url):
            self.page.keyboard.press("Control+s")
        self.page.wait_for_function(f"() => !({_MODEL}.dirty)")

    @property
    def dirty(self) -> bool:
        """Whether the seen notebook has changes that are not saved."""
        return bool(self.page.evaluate(f"() => {_MODEL}.dirty"))

    def run_cell(self, source: str) -> str:
        """Write the first cell, run it, and return what it printed."""
        cell = self.notebook.locator(".jp-Cell").first
        editor = cell.locator(".cm-content")
        editor.click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Control+Enter")
        prompt = cell.locator(".jp-InputPrompt")
        expect(prompt).to_have_text(re.compile(r"^\[\d+\]:$"), timeout=READY_MS)
        self.wait_for_kernel()
        output = cell.locator(".jp-OutputArea-output")
        return "\n".join(output.all_inner_texts()).strip()

    # Kernels

    def execute(self, kernel_id: str, source: str, *, wait: bool = True) -> str:
        """Run code in a kernel, open or not, over the page's own connection, and return what it printed.

        Args:
            kernel_id: a kernel of this server.
            source: what to run.
            wait: whether to wait for its end; without, nothing is returned.
        """
        return str(self.page.evaluate(_EXECUTE, [kernel_id, source, wait]))

    def set_theme(self, name: str) -> None:
        """Change the theme, and return once it is there."""
        self.page.evaluate("t => window.jupyterapp.commands.execute('apputils:change-theme', {theme: t})", name)
        self.page.wait_for_function("t => document.body.dataset.jpThemeName === t", arg=name)

    def choices(self) -> list[str]:
        """The kernels that the kernel dialog, which is open, offers to start."""
        options = self.dialog.locator("select optgroup[label^='Start'] option")
        return [text.strip() for text in options.all_inner_texts()]

    def open_kernel_dialog(self) -> None:
        """Click the kernel's name."""
        self.kernel_name.click()
        expect(self.dialog.locator("select")).to_be_visible()

    def pick_gpu(self, gpu: str, kernel: str = "Python 3 (ipykernel)") -> None:
        """Start another kernel from the kernel dialog, with a GPU, and return once that was said to JupyterLab.

        Args:
            gpu: what the choice begins with, such as "GPU 1" or "CPU".
            kernel: the kernelspec's display name.
        """
        self.open_kernel_dialog()
        radio = self.dialog.get_by_role("radio", name=re.compile(rf"^{gpu}\b"))
        if radio.count():
            self.dialog.locator("select").select_option(label=kernel)
            radio.check()
        else:
            # JupyterLab before 4.3, whose dialog cannot be added to, lists the kernel once for each GPU.
            label = next(text for text in self.choices() if text.startswith(f"{kernel} — {gpu}"))
            self.dialog.locator("select").select_option(label=label)
        self.dialog.locator(".jp-mod-accept").click()
        expect(self.dialog).to_have_count(0)

    def restart_kernel(self) -> None:
        """Restart by the command that the menu has, and return once the kernel is ready."""
        self.notebook.locator(".jp-Notebook").first.press("Escape")
        self.page.keyboard.press("0")
        self.page.keyboard.press("0")
        self.dialog.locator(".jp-mod-accept").click()
        expect(self.dialog).to_have_count(0)
        self.wait_for_kernel()

    def shut_down_kernel(self) -> None:
        """Shut down by the menu."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Kernel$")).click()
        self.page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Shut Down Kernel$")).click()
        expect(self.kernel_name).to_have_text(re.compile("No Kernel"), timeout=READY_MS)

    @property
    def dialog(self) -> Locator:
        """The dialog that is open."""
        return self.page.locator(".jp-Dialog")

    # What the extension shows

    def notification(self, text: str) -> Locator:
        """The notification on the screen that has this text."""
        return self.page.locator(".Toastify__toast", has_text=text)

    @property
    def simulated_mark(self) -> Locator:
        """What says that the GPUs are simulated."""
        return self.page.get_by_text("Simulated GPUs")
