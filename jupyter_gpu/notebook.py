"""The GPU request that a notebook carries in its metadata."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_NOTEBOOK = 512 << 20


def notebook_request(path: Path) -> str | None:
    """What `metadata.jupyter_gpu.request` says in the notebook at `path`; `None` if there is no such text.

    A file that is not there, is no notebook, or cannot be read has none. Blocks while it reads.
    """
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_NOTEBOOK:
            return None
        content = path.read_bytes()
        # Notebooks can be large, and most carry no request: those are not parsed.
        if b'"jupyter_gpu"' not in content:
            return None
        request = json.loads(content)["metadata"]["jupyter_gpu"]["request"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return request if isinstance(request, str) and request.strip() else None
