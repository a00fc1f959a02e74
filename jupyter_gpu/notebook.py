"""What a notebook's metadata says of its kernel's GPU."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from .kernelspecs import request_of_variant

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST_NOTEBOOK = 512 << 20
_MAY_SAY_SOMETHING = re.compile(rb'"jupyter_gpu"|"[^"]+-(?:cpu|gpu[^"]*)"')


def notebook_request(path: Path) -> str | None:
    """What `metadata.jupyter_gpu.request` says in the notebook at `path`; `None` if there is no such text.

    Clients that know nothing of jupyter_gpu save the name of the variant that was picked as the notebook's kernelspec;
    what that name means is the request then.

    A file that is not there, is no notebook, or cannot be read has none. Blocks while it reads.
    """
    metadata = _metadata(path)
    return _text(metadata, "jupyter_gpu", "request") or _of_variant(_text(metadata, "kernelspec", "name"))


def notebook_keeps_when_idle(path: Path) -> bool:
    """Whether `metadata.jupyter_gpu.keep_when_idle` is true in the notebook at `path`. Blocks while it reads."""
    return _value(_metadata(path), "jupyter_gpu", "keep_when_idle") is True


def _metadata(path: Path) -> Any:
    """The metadata of a notebook that may say something of its GPU; else `None`."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_NOTEBOOK:
            return None
        content = path.read_bytes()
        # Notebooks can be large, and most say nothing of a GPU: those are not parsed.
        return json.loads(content)["metadata"] if _MAY_SAY_SOMETHING.search(content) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _value(metadata: Any, group: str, name: str) -> Any:
    inner = metadata.get(group) if isinstance(metadata, dict) else None
    return inner.get(name) if isinstance(inner, dict) else None


def _text(metadata: Any, group: str, name: str) -> str | None:
    value = _value(metadata, group, name)
    return value if isinstance(value, str) and value.strip() else None


def _of_variant(kernelspec: str | None) -> str | None:
    meant = request_of_variant(kernelspec) if kernelspec else None
    return meant[1] if meant else None
