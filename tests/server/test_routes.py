"""Every endpoint asks who is there, whether they may, and whether another site sent them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from jupyter_server.auth.authorizer import Authorizer
from tornado.httpclient import HTTPClientError

from jupyter_gpu.server.handlers import GPUHandler, handlers

METHODS = ("get", "post", "put", "patch", "delete")


def implemented(handler: type[GPUHandler]) -> list[str]:
    return [
        method
        for method in METHODS
        if any(method in cls.__dict__ for cls in handler.__mro__[: handler.__mro__.index(GPUHandler)])
    ]


def example(pattern: str) -> str:
    """A path that a route's pattern matches."""
    path = pattern.replace(r"(?P<kernel_id>[^/]+)", "00000000-0000-0000-0000-000000000000")
    path = path.replace(r"(?P<entry_id>[^/]+)", "some-entry")
    assert re.fullmatch(pattern, path), pattern
    return path.lstrip("/")


ROUTES = [(method.upper(), example(pattern)) for pattern, handler in handlers for method in implemented(handler)]
CHANGES = [(method, path) for method, path in ROUTES if method != "GET"]
BODY = json.dumps({"request": "cpu"})


def body_for(method: str) -> str | None:
    return BODY if method in ("PATCH", "POST", "PUT") else None


def test_all_routes_are_walked() -> None:
    assert len(ROUTES) >= 7
    assert len(CHANGES) >= 2
    assert all(issubclass(handler, GPUHandler) for _, handler in handlers)


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("headers", [{"Authorization": ""}, {"Authorization": "token wrong"}])
async def test_nobody_gets_in_without_the_token(
    jp_fetch: Callable[..., Any], method: str, path: str, headers: dict[str, str]
) -> None:
    with pytest.raises(HTTPClientError) as error:
        await jp_fetch(path, method=method, headers=headers, body=body_for(method))
    assert error.value.code == 403


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_another_site_cannot_change_anything_with_a_persons_cookie(
    jp_serverapp: Any, jp_fetch: Callable[..., Any], http_server_client: Any, jp_base_url: str, method: str, path: str
) -> None:
    login = await jp_fetch("api", "me")
    cookie = "; ".join(value.split(";")[0] for value in login.headers.get_list("Set-Cookie"))
    assert "username-" in cookie
    with pytest.raises(HTTPClientError) as error:
        await http_server_client.fetch(
            f"{jp_base_url}{path}", method=method, headers={"Cookie": cookie}, body=body_for(method)
        )
    assert error.value.code == 403
    assert "_xsrf" in json.loads(error.value.response.body)["message"]


class NobodyMayTouchGPUs(Authorizer):
    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        return resource != "gpu"


class EverybodyMayLook(Authorizer):
    def is_authorized(self, handler: Any, user: Any, action: str, resource: str) -> bool:
        return action == "read"


class TestWithAnAuthorizer:
    @pytest.fixture
    def gpu_server_config(self) -> dict[str, object]:
        return {"ServerApp": {"jpserver_extensions": {"jupyter_gpu": True}, "authorizer_class": NobodyMayTouchGPUs}}

    @pytest.mark.parametrize(("method", "path"), ROUTES)
    async def test_the_resource_gpu_can_be_denied(self, jp_fetch: Callable[..., Any], method: str, path: str) -> None:
        with pytest.raises(HTTPClientError) as error:
            await jp_fetch(path, method=method, body=body_for(method))
        assert error.value.code == 403


class TestWithReadersOnly:
    @pytest.fixture
    def gpu_server_config(self) -> dict[str, object]:
        return {"ServerApp": {"jpserver_extensions": {"jupyter_gpu": True}, "authorizer_class": EverybodyMayLook}}

    @pytest.mark.parametrize(("method", "path"), CHANGES)
    async def test_changing_is_another_right_than_looking(
        self, jp_fetch: Callable[..., Any], method: str, path: str
    ) -> None:
        assert (await jp_fetch("gpu/api/queue")).code == 200
        with pytest.raises(HTTPClientError) as error:
            await jp_fetch(path, method=method, body=body_for(method))
        assert error.value.code == 403
