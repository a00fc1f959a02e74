"""The OpenAPI document is valid, complete, and what a live server does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from live_server import live_server
from openapi_spec_validator import validate

import jupyter_gpu
from jupyter_gpu.server.handlers import GPUHandler, handlers

DOCUMENT = Path(jupyter_gpu.__file__).parent / "server" / "openapi.yaml"
METHODS = ("get", "post", "put", "patch", "delete")


def test_the_document_is_valid_openapi() -> None:
    validate(yaml.safe_load(DOCUMENT.read_text()))


def test_the_document_has_exactly_the_servers_routes() -> None:
    described = {
        (method, path)
        for path, operations in yaml.safe_load(DOCUMENT.read_text())["paths"].items()
        for method in operations
        if method in METHODS
    }
    served = set()
    for pattern, handler in handlers:
        path = re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", pattern)
        own = [cls for cls in handler.__mro__ if issubclass(cls, GPUHandler) and cls is not GPUHandler]
        served |= {(method, path) for method in METHODS if any(method in cls.__dict__ for cls in own)}
    assert described == served


def test_a_live_server_does_what_the_document_says_whatever_it_is_sent(tmp_path: Path, simulated_gpus: str) -> None:
    with live_server(tmp_path / "root") as server:
        server.start_session("a.ipynb", "python3-gpu1")
        # Who is let in at all is test_routes' subject: here every call carries the token.
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "run", str(DOCUMENT), "--url", server.url.rstrip("/"),
                "--header", f"Authorization: token {server.token}", "--checks", "all",
                "--exclude-checks", "unsupported_method,positive_data_acceptance,ignored_auth,missing_required_header",
                "--max-examples", "25", "--seed", "7", "--request-timeout", "30", "--no-color",
            ],
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert server.send("GET", "gpu/api/status")[0] == 200
