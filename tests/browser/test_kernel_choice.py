"""A person picks a GPU in JupyterLab, and the notebook's kernel runs on it, holds it, and gives it back."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from lab_server import wait_for
from playwright.sync_api import expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab_page import LabPage
    from lab_server import LabServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PLAIN = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
GIB = 2**30
PRINT_DEVICES = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
TAKE_2_GIB = "import jupyter_gpu.simulated as s; taken = s.allocate('2GiB'); print('taken')"


def uuid(server: LabServer, index: str) -> str:
    return str(server.device(index)["uuid"])


def used(server: LabServer, index: str) -> int:
    """What all leases together use of a device."""
    return sum(lease["used_bytes"] or 0 for lease in server.device(index)["leases"])


def test_a_gpu_picked_in_the_kernel_dialog_is_the_kernels_until_it_is_shut_down(
    lab: LabPage, server: LabServer
) -> None:
    server.write_notebook("A.ipynb")
    lab.open("A.ipynb")
    lab.wait_for_kernel()

    lab.pick_gpu("GPU 1")
    lab.wait_for_kernel("python3-gpu1")
    assert lab.run_cell(PRINT_DEVICES) == uuid(server, "1")
    assert lab.run_cell(TAKE_2_GIB) == "taken"
    assert server.holders("1") == ["A.ipynb"]
    assert server.holders("0") == []
    wait_for(lambda: used(server, "1") == 2 * GIB, "2 GiB in use on GPU 1")

    lab.pick_gpu("GPU 2")
    lab.wait_for_kernel("python3-gpu2")
    assert lab.run_cell(PRINT_DEVICES) == uuid(server, "2")
    assert server.holders("1") == []
    assert server.holders("2") == ["A.ipynb"]

    assert lab.run_cell(TAKE_2_GIB) == "taken"
    lab.restart_kernel()
    assert lab.run_cell(PRINT_DEVICES) == uuid(server, "2")
    assert server.holders("2") == ["A.ipynb"]
    wait_for(lambda: used(server, "2") == 0, "nothing in use on GPU 2")

    lab.shut_down_kernel()
    wait_for(lambda: server.holders("2") == [], "GPU 2 is free")


def test_a_picked_gpu_stays_with_the_notebook_and_the_notebook_stays_plain(lab: LabPage, server: LabServer) -> None:
    server.write_notebook("A.ipynb", metadata={"authors": [{"name": "me"}]})
    lab.open("A.ipynb")
    lab.wait_for_kernel()
    lab.pick_gpu("GPU 1")
    lab.wait_for_kernel("python3-gpu1")
    lab.run_cell("x = 1")
    lab.save()

    saved = server.metadata("A.ipynb")
    saved.pop("language_info")
    assert saved == {"kernelspec": PLAIN, "jupyter_gpu": {"request": "1"}, "authors": [{"name": "me"}]}

    # Opened again without a kernel, it starts the plain kernelspec on the same GPU, and is as it was saved.
    lab.shut_down_kernel()
    lab.save()
    lab.reload()
    lab.wait_for_kernel("python3")
    assert lab.run_cell(PRINT_DEVICES) == uuid(server, "1")
    assert server.kernel_of("A.ipynb")["origin"] == "notebook"


def test_any_client_that_starts_a_session_on_the_notebook_gets_its_gpu(lab: LabPage, server: LabServer) -> None:
    server.write_notebook("A.ipynb")
    lab.open("A.ipynb")
    lab.wait_for_kernel()
    lab.pick_gpu("GPU 3")
    lab.wait_for_kernel("python3-gpu3")
    lab.save()
    lab.shut_down_kernel()
    session = {"path": "A.ipynb", "name": "A.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
    server.rest("api/sessions", "POST", session)
    assert server.holders("3") == ["A.ipynb"]


def test_a_page_that_connects_to_a_running_kernel_leaves_the_notebook_unchanged(
    lab: LabPage, server: LabServer
) -> None:
    server.write_notebook("A.ipynb")
    lab.open("A.ipynb")
    lab.wait_for_kernel()
    lab.pick_gpu("GPU 1")
    lab.wait_for_kernel("python3-gpu1")
    lab.save()
    before = server.metadata("A.ipynb")

    lab.reload()
    lab.wait_for_kernel("python3-gpu1")
    assert not lab.dirty
    lab.save()
    assert server.metadata("A.ipynb") == before


def test_a_change_of_request_through_the_api_survives_a_reload(lab: LabPage, server: LabServer) -> None:
    server.write_notebook("A.ipynb")
    lab.open("A.ipynb")
    lab.wait_for_kernel()
    lab.pick_gpu("GPU 1")
    lab.wait_for_kernel("python3-gpu1")
    lab.save()
    content = json.loads((server.root / "A.ipynb").read_text())
    content["metadata"]["jupyter_gpu"]["request"] = "1:8GiB"
    (server.root / "A.ipynb").write_text(json.dumps(content))

    lab.reload()
    lab.wait_for_kernel("python3-gpu1")
    lab.run_cell("x = 1")
    lab.save()
    assert server.metadata("A.ipynb")["jupyter_gpu"] == {"request": "1:8GiB"}


def test_a_tile_of_the_launcher_starts_a_notebook_on_its_gpu(lab: LabPage, server: LabServer) -> None:
    lab.open()
    lab.new_notebook("Python 3 (ipykernel) — GPU 2")
    lab.wait_for_kernel("python3-gpu2")
    assert lab.run_cell(PRINT_DEVICES) == uuid(server, "2")
    lab.save()
    saved = server.metadata("Untitled.ipynb")
    assert saved["kernelspec"] == PLAIN
    assert saved["jupyter_gpu"] == {"request": "2"}


def test_a_notebook_saved_under_the_name_of_a_variant_that_is_not_here_opens_without_a_question(
    lab: LabPage, server: LabServer
) -> None:
    kernelspec = {"name": "python3-gpu7", "display_name": "Python 3 — GPU 7", "language": "python"}
    server.write_notebook("A.ipynb", metadata={"kernelspec": kernelspec})
    lab.open("A.ipynb")
    lab.wait_for_kernel("python3")
    expect(lab.dialog).to_have_count(0)
    lab.run_cell("x = 1")
    lab.save()
    assert server.metadata("A.ipynb")["kernelspec"] == PLAIN
    assert server.metadata("A.ipynb")["jupyter_gpu"] == {"request": "7"}


def test_the_gpu_choices_come_by_themselves_when_the_page_was_loaded_before_the_server_had_looked(
    lab: LabPage, server: LabServer
) -> None:
    early: dict[str, Any] = server.rest("api/kernelspecs")
    early["kernelspecs"] = {name: spec for name, spec in early["kernelspecs"].items() if name == "python3"}
    asked = []

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        # JupyterLab asks twice while it loads; the server has looked at its devices only after that.
        if len(asked) <= 2:
            route.fulfill(json=early)
        else:
            route.continue_()

    lab.page.route(re.compile(r"/api/kernelspecs(\?|$)"), answer)
    lab.open()
    expect(lab.page.locator(".jp-LauncherCard:visible", has_text="GPU 1").first).to_be_visible(timeout=20_000)


def test_the_page_says_that_gpus_are_simulated(lab: LabPage) -> None:
    lab.open()
    expect(lab.simulated_mark).to_be_visible()
    expect(lab.page.locator("#jupyter-gpu-simulated")).to_have_attribute("title", re.compile("4 GPUs .* simulated"))


def test_a_page_goes_on_when_its_server_has_crashed_and_come_back(lab: LabPage, server: LabServer) -> None:
    server.write_notebook("A.ipynb")
    lab.open("A.ipynb")
    lab.wait_for_kernel()
    server.kill()
    server.start()
    lab.wait_for_no_kernel()
    lab.pick_gpu("GPU 1")
    lab.wait_for_kernel("python3-gpu1")
    assert lab.run_cell(PRINT_DEVICES) == uuid(server, "1")
    lab.save()
    assert server.metadata("A.ipynb")["jupyter_gpu"] == {"request": "1"}
    expect(lab.simulated_mark).to_be_visible()


def test_where_there_are_no_gpus_the_kernel_picker_is_as_it_was(
    start_server: Callable[..., LabServer], page: Any
) -> None:
    from lab_page import LabPage

    server = start_server(simulate=None)
    server.write_notebook("A.ipynb")
    lab = LabPage(page, server)
    lab.open("A.ipynb")
    lab.wait_for_kernel("python3")
    lab.open_kernel_dialog()
    assert lab.choices() == ["Python 3 (ipykernel)"]
    expect(lab.simulated_mark).not_to_be_visible()
