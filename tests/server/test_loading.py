"""Loading the server extension."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOAD = """
import gc, sys
{before}
collections = []
gc.callbacks.append(lambda phase, info: collections.append(info["generation"]) if phase == "start" else None)
import jupyter_server.extension.application
collections.clear()
import jupyter_gpu
[point] = jupyter_gpu._jupyter_server_extension_points()
print(point["app"].__name__, gc.isenabled(), len(collections))
"""


@pytest.mark.parametrize(("before", "collects"), [("", True), ("gc.disable()", False)])
def test_no_garbage_is_looked_for_while_it_is_imported_and_as_ever_after(before: str, collects: bool) -> None:
    code = LOAD.format(before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    name, enabled, collections = done.stdout.split()
    assert (name, enabled) == ("GPUExtension", str(collects))
    # What follows the import may begin one.
    assert int(collections) <= 1
