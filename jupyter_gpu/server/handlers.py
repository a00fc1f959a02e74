"""The REST API under `<base_url>/gpu/api`. All logic is in the manager."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NoReturn

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.handler import ExtensionHandlerMixin
from tornado import web

from ..plain import plain
from .bodies import Body
from .manager import BadRequest, Conflict, GPUManager, KernelChange, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable

AUTH_RESOURCE = "gpu"
_LARGEST_BODY = 64 * 1024
_LONGEST_MESSAGE = 4096
"""In characters; enough for a list of 64 GPUs. What a client sent is part of some, and they are logged."""
_STATUS = {BadRequest: 400, NotFound: 404, Conflict: 409, Unavailable: 503}
_KERNEL_ID = r"(?P<kernel_id>[^/]+)"
_ENTRY_ID = r"(?P<entry_id>[^/]+)"


class GPUHandler(ExtensionHandlerMixin, APIHandler):
    """What all handlers share: the manager, and errors as one sentence of JSON."""

    auth_resource = AUTH_RESOURCE
    _tag: str | None = None

    @property
    def manager(self) -> GPUManager:
        """The server's one manager."""
        manager: GPUManager = self.settings["gpu_manager"]
        return manager

    async def answer(self, model: Awaitable[Any]) -> None:
        """Finish with the model as JSON, or with the error that it raises."""
        try:
            content = await model
        except (BadRequest, NotFound, Conflict, Unavailable) as error:
            self.refuse(_STATUS[type(error)], str(error))
        if isinstance(content, Body):
            self._tag = f'"{content.tag}"'
            content = content.content
        self.finish(content if isinstance(content, bytes) else json.dumps(content))

    def compute_etag(self) -> str | None:
        """What tells the answer from others; `None` for those that are made for one client."""
        return self._tag

    def refuse(self, status: int, message: str) -> NoReturn:
        """End the request with an HTTP status and one sentence."""
        first = message.split(" ", 1)[0]
        if first.isalpha():  # a word, and not a notebook's name, which keeps its letters
            message = message[0].upper() + message[1:]
        message = plain(message, _LONGEST_MESSAGE)
        # The sentence is an argument, so that a % in it is no place for another.
        raise web.HTTPError(status, "%s", message if message.endswith((".", "?")) else f"{message}.")

    def write_error(self, status_code: int, **kwargs: Any) -> None:  # noqa: ARG002 - tornado's signature
        """Errors are `{"message": sentence}`, ours and tornado's alike."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        message = "The server failed to answer; its log says why."
        if isinstance(error, web.HTTPError):
            text = error.log_message or error.reason or self._reason
            message = text % error.args if error.args else text
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"message": message}))


class StatusHandler(GPUHandler):
    """Whether everything is in place."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """The status."""
        await self.answer(self.manager.status())


class DevicesHandler(GPUHandler):
    """The devices."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """All devices with who holds them."""
        await self.answer(self.manager.devices())


class KernelsHandler(GPUHandler):
    """The kernels of this server."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """All kernels with what they hold."""
        await self.answer(self.manager.kernels())


class LiveHandler(GPUHandler):
    """All that changes from second to second."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Devices, kernels and queue."""
        await self.answer(self.manager.live())


class KernelHandler(GPUHandler):
    """One kernel of this server."""

    @web.authenticated
    @authorized
    async def get(self, kernel_id: str) -> None:
        """The kernel."""
        await self.answer(self.manager.kernel(kernel_id))

    @web.authenticated
    @authorized
    async def patch(self, kernel_id: str) -> None:
        """Set another request for it, or whether it is kept though idle."""
        change = self._change()
        await self.answer(self.manager.apply(kernel_id, change))

    def _change(self) -> KernelChange:
        expected = 'send a JSON object such as {"request": "1:8GiB", "restart": true} or {"keep_when_idle": true}'
        if len(self.request.body) > _LARGEST_BODY:
            self.refuse(413, f"The body has more than {_LARGEST_BODY} bytes; {expected}")
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError):
            self.refuse(400, f"The body is not JSON; {expected}")
        if not isinstance(body, dict) or not ("request" in body or "keep_when_idle" in body):
            self.refuse(400, f'The body has neither "request" nor "keep_when_idle"; {expected}')
        if not isinstance(body.get("request", ""), str):
            self.refuse(400, f'The body has no text under "request"; {expected}')
        for name in ("restart", "keep_when_idle"):
            if not isinstance(body.get(name, False), bool):
                self.refuse(400, f'"{name}" is neither true nor false; {expected}')
        if "restart" in body and "request" not in body:
            self.refuse(400, f'The body has "restart" without a "request"; {expected}')
        unknown = sorted(set(body) - {"request", "restart", "keep_when_idle"})
        if unknown:
            self.refuse(400, f"The body has the unknown name {unknown[0]!r}; {expected}")
        return KernelChange(body.get("request"), body.get("restart", False), body.get("keep_when_idle"))


class HistoryHandler(GPUHandler):
    """What was used over time."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """What is newer than the query's `since`."""
        await self.answer(self.manager.history(self._since()))

    def _since(self) -> float:
        text = self.get_query_argument("since", "0")
        try:
            since = float(text)
        except ValueError:
            since = math.nan
        if not 0 <= since < math.inf:
            self.refuse(400, f"since={text!r} is no time; give seconds since the epoch, such as the last answer's time")
        return since


class QueueHandler(GPUHandler):
    """The requests that wait."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """All of them, in order of arrival."""
        await self.answer(self.manager.queue())


class QueueEntryHandler(GPUHandler):
    """One request that waits."""

    @web.authenticated
    @authorized
    async def delete(self, entry_id: str) -> None:
        """Take it out of the queue."""
        try:
            await self.manager.cancel(entry_id)
        except (NotFound, Unavailable) as error:
            self.refuse(_STATUS[type(error)], str(error))
        self.set_status(204)
        self.finish()


handlers = [
    (r"/gpu/api/status", StatusHandler),
    (r"/gpu/api/devices", DevicesHandler),
    (r"/gpu/api/kernels", KernelsHandler),
    (r"/gpu/api/live", LiveHandler),
    (rf"/gpu/api/kernels/{_KERNEL_ID}", KernelHandler),
    (r"/gpu/api/history", HistoryHandler),
    (r"/gpu/api/queue", QueueHandler),
    (rf"/gpu/api/queue/{_ENTRY_ID}", QueueEntryHandler),
]
