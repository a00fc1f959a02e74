"""The GPU request that a notebook carries in its metadata."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from .kernelspecs import request_of_variant

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_NOTEBOOK = 512 << 20
_MAY_CARRY_REQUEST = re.compile(rb'"jupyter_gpu"|"[^"]+-(?:cpu|gpu[^"]*)"')


def notebook_request(path: Path) -> str | None:
    """What `metadata.jupyter_gpu.request` says in the notebook at `path`; `None` if there is no such text.

    Clients that know nothing of jupyter_gpu save the name of the variant that was picked as the notebook's kernelspec;
    what that name means is the request then.

    A file that is not there, is no notebook, or cannot be read has none. Blocks while it reads.
    """
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_NOTEBOOK:
            return None
        content = path.read_bytes()
        # Notebooks can be large, and most carry no request: those are not parsed.
        if not _MAY_CARRY_REQUEST.search(content):
            return None
        metadata = json.loads(content)["metadata"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return _text(metadata, "jupyter_gpu", "request") or _of_variant(_text(metadata, "kernelspec", "name"))


def _text(metadata: Any, group: str, name: str) -> str | None:
    inner = metadata.get(group) if isinstance(metadata, dict) else None
    value = inner.get(name) if isinstance(inner, dict) else None
    return value if isinstance(value, str) and value.strip() else None


def _of_variant(kernelspec: str | None) -> str | None:
    meant = request_of_variant(kernelspec) if kernelspec else None
    return meant[1] if meant else None
