"""`%gpu` shows itself where nobody takes its value, and gives it to whoever does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from magic_kernel import MagicKernel, StartKernel, leased

GIB = 1 << 30


@pytest.fixture(params=["this Python", "the oldest Python"])
def kernel(request: pytest.FixtureRequest, start_kernel: StartKernel, tmp_path: Path) -> MagicKernel:
    variables = leased(tmp_path, 8 * GIB)
    if request.param == "this Python":
        return start_kernel(variables=variables)
    return start_kernel(request.getfixturevalue("oldest_python"), variables=variables)


def test_shown_as_the_result_in_the_middle_of_a_cell_and_in_a_function(kernel: MagicKernel) -> None:
    assert "of 8 GiB" in kernel.ok("%gpu").shown[0]["text/html"]
    middle = kernel.ok("%gpu\n6 * 7")
    assert "of 8 GiB" in middle.shown[0]["text/plain"]
    assert middle.shown[1]["text/plain"] == "42"
    inside = kernel.ok("def show():\n    %gpu\nshow()")
    assert len(inside.shown) == 1


def test_taken_it_is_not_shown_and_is_data(kernel: MagicKernel) -> None:
    assert kernel.ok("state = %gpu").shown == []
    assert kernel.value("state['devices'][0]['cap_bytes']") == 8 * GIB
    assert kernel.value("state['server']['reachable']") is False
    assert kernel.ok("states = [get_ipython().run_line_magic('gpu', 'list')]").shown == []


def test_as_json_it_is_json(kernel: MagicKernel) -> None:
    [bundle] = kernel.ok("%gpu --json").shown
    assert json.loads(bundle["text/plain"])["devices"][0]["cap_bytes"] == 8 * GIB
    assert bundle["application/json"]["lease_id"] == "lease-1"


def test_an_error_is_one_sentence_and_stops_the_cell(kernel: MagicKernel) -> None:
    output = kernel.run("%gpu nonsense\nafter = 1")
    assert output.stderr.startswith("UsageError: %gpu has no command 'nonsense'; there are list, use,")
    assert output.stderr.count("\n") == 1
    assert kernel.value("'after' in globals()") is False


def test_a_notice_about_a_share_that_is_none(start_kernel: StartKernel, tmp_path: Path) -> None:
    kernel = start_kernel(variables={**leased(tmp_path, 8 * GIB), "JUPYTER_GPU_SHARES": "theano=lots"})
    assert "'theano=lots' in JUPYTER_GPU_SHARES is not a share" in kernel.ok("%gpu").text
