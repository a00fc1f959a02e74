"""How kernels reach the server: the REST API over a Unix socket in the ledger's directory.

The handlers and models are those of the REST API; only who calls is told in another way: by the uid and the pid at the
other end of the socket, and by the lease that the kernel names. A kernel can see what any client sees, and change
itself only, which it names `kernels/self`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.authorizer import AllowAllAuthorizer
from jupyter_server.auth.decorator import authorized
from jupyter_server.auth.identity import IdentityProvider, User
from jupyter_server.utils import ensure_async
from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket
from traitlets import Instance
from traitlets.config import LoggingConfigurable

from ..background import in_thread
from ..devices.processes import ProcessKey, environment_value, is_alive, process_key, process_stat
from ..leases.survey import LEASE_VARIABLE
from ..paths import UnsafeDirectory, private_directory
from .handlers import DevicesHandler, KernelHandler, QueueHandler, StatusHandler
from .in_place import change_in_place
from .manager import GPUManager

if TYPE_CHECKING:
    from collections.abc import Collection

    from jupyter_server.serverapp import ServerApp

    from ..kernels import KernelRecord
    from .manager import KernelChange
    from .models import JSON

LEASE_HEADER = "X-Jupyter-GPU-Lease"
KERNEL_HEADER = "X-Jupyter-GPU-Kernel"
_PREFIX, _SUFFIX = "server-", ".sock"
_LONGEST_PATH = 107
"""Bytes in `sun_path` less the NUL, unix(7)."""
_LARGEST_BODY = 64 * 1024
_DEEPEST_TREE = 64
_PEER = struct.Struct("=iII")
"""`struct ucred`: pid, uid, gid."""


class PeerIdentity(IdentityProvider):
    """Knows the kernel at the other end of the socket, and nobody else."""

    manager = Instance(GPUManager)

    async def get_user(self, handler: web.RequestHandler) -> User | None:
        """The kernel that calls; `None` for anybody else."""
        pid, uid = _peer(handler)
        if uid != os.getuid():
            return None
        records = list(self.manager.host.kernels)
        lease_id = handler.request.headers.get(LEASE_HEADER, "")
        kernel_id = handler.request.headers.get(KERNEL_HEADER, "")
        record = next((each for each in records if each.lease_id and each.lease_id == lease_id), None) or next(
            (each for each in records if each.kernel_id == kernel_id), None
        )
        if record is None:
            return None
        if pid == 0:
            # A kernel in a container of its own: its pid means nothing here, and the lease that it knows must do.
            return _user(record) if record.lease_id == lease_id else None
        kernels = {each.pid for each in records if each.pid}
        return _user(record) if await in_thread(_belongs, pid, record, kernels) else None

    def is_token_authenticated(self, handler: web.RequestHandler) -> bool:  # noqa: ARG002 - jupyter_server's signature
        """Always: the socket is no place that a web page could make a browser call."""
        return True


class SelfHandler(KernelHandler):
    """The kernel that calls."""

    def log_exception(self, *_: Any) -> None:
        """Nothing: the caller gets the sentence, and it is no fault of the server."""

    @web.authenticated
    @authorized
    async def get(self, kernel_id: str = "self") -> None:
        """The kernel."""
        await self.answer(self.manager.kernel(self._own_id(kernel_id)))

    @web.authenticated
    @authorized
    async def patch(self, kernel_id: str = "self") -> None:
        """Set another request for it, in place where it asks for that with `in_place`."""
        own = self._own_id(kernel_id)
        change, in_place = self._asked()
        if in_place and change.request is not None and not change.restart:
            await self.answer(change_in_place(self.manager, self.serverapp.kernel_manager, own, change.request))
        else:
            await self.answer(self.manager.apply(own, change))

    def _asked(self) -> tuple[KernelChange, bool]:
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError):
            body = None
        in_place = bool(body.pop("in_place", False)) if isinstance(body, dict) else False
        if isinstance(body, dict):
            self.request.body = json.dumps(body).encode()
        # The rest is checked as it is for every client, and so is what is no JSON.
        return self._change(), in_place

    def _own_id(self, kernel_id: str) -> str:
        own = str(self.current_user.username)
        if kernel_id not in ("self", own):
            self.refuse(403, "a kernel can see and change only itself; ask for kernels/self")
        return own


class RestartHandler(SelfHandler):
    """The kernel that calls, started again: for what frameworks take up only when they start."""

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Restart it, with the request that is to hold from its next start on."""
        await self.answer(self._restarted(self._own_id("self")))

    async def _restarted(self, kernel_id: str) -> JSON:
        kernel_manager: Any = self.serverapp.kernel_manager
        await ensure_async(kernel_manager.restart_kernel(kernel_id))
        model = await self.manager.kernel(kernel_id)
        return {**model, "applied": "restarted", "message": f"{model['label']} was restarted."}


class KernelSocket(LoggingConfigurable):
    """The socket of one server, from `start` to `stop`. Without it kernels run, and `%gpu` says what it lacks."""

    manager = Instance(GPUManager)

    def __init__(self, serverapp: ServerApp, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._serverapp = serverapp
        self._server: HTTPServer | None = None
        self.path: Path | None = None
        """Where it listens; `None` while it does not."""

    def start(self) -> None:
        """Listen. A failure is logged."""
        host = self.manager.host
        me = process_key()
        assert me is not None
        try:
            directory = private_directory(Path(host.runtime_directory))
            _remove_dead(directory)
            path = directory / f"{_PREFIX}{me.pid}-{me.start_time}{_SUFFIX}"
            listening = _listening(path)
        except (OSError, ValueError, UnsafeDirectory) as error:  # ValueError: what is in its place is no socket
            self.log.warning("Kernels cannot reach this server for %%gpu: %s", error)
            return
        self._server = HTTPServer(self._application(), max_body_size=_LARGEST_BODY)
        self._server.add_socket(listening)
        self.path = host.socket_path = path

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is None or self.path is None:
            return
        self._server.stop()
        await self._server.close_all_connections()
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._server, self.path, self.manager.host.socket_path = None, None, None

    def _application(self) -> web.Application:
        settings = {
            name: value
            for name, value in self._serverapp.web_app.settings.items()
            if not name.startswith("static_") and name != "default_handler_class"
        }
        identity = PeerIdentity(parent=self, manager=self.manager)
        settings.update(
            base_url="/",
            gpu_manager=self.manager,
            identity_provider=identity,
            authorizer=AllowAllAuthorizer(parent=self, identity_provider=identity),
            allow_unauthenticated_access=False,
        )
        name = {"name": "jupyter_gpu"}
        return web.Application(
            [
                (r"/gpu/api/status", StatusHandler, name),
                (r"/gpu/api/devices", DevicesHandler, name),
                (r"/gpu/api/queue", QueueHandler, name),
                (r"/gpu/api/kernels/self/restart", RestartHandler, name),
                (r"/gpu/api/kernels/(?P<kernel_id>[\w-]{1,64})", SelfHandler, name),
            ],
            **settings,
        )


def _listening(path: Path) -> socket.socket:
    """A socket at `path` for this user alone."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise OSError(f"its path {path} is longer than the {_LONGEST_PATH} bytes that a Unix socket can have")
    return bind_unix_socket(str(path), mode=0o600)


def _peer(handler: web.RequestHandler) -> tuple[int, int]:
    """The pid (0 where it is in a pid namespace that we cannot see) and the uid at the other end of the socket."""
    connection: Any = handler.request.connection
    peer = connection.stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid, uid, _ = _PEER.unpack(peer)
    return pid, uid


def _user(record: KernelRecord) -> User:
    return User(username=record.kernel_id, name=record.label)


def _belongs(pid: int, record: KernelRecord, kernels: Collection[int]) -> bool:
    """Whether a process is the kernel's or one of those that it started.

    Args:
        pid: the process.
        record: the kernel.
        kernels: the pids of all kernels. Below one of them, what a process's environment says does not count: a kernel
            could start a process with another's.
    """
    ancestor = pid
    for _ in range(_DEEPEST_TREE):
        if ancestor in kernels:
            return ancestor == record.pid
        stat = process_stat(ancestor)
        if stat is None or stat[0] <= 1:
            break
        ancestor = stat[0]
    return record.lease_id is not None and environment_value(pid, LEASE_VARIABLE) == record.lease_id


def _remove_dead(directory: Path) -> None:
    """Remove the sockets of servers that ended without doing so."""
    for path in directory.glob(f"{_PREFIX}*{_SUFFIX}"):
        pid, _, start_time = path.name[len(_PREFIX) : -len(_SUFFIX)].partition("-")
        if pid.isdecimal() and start_time.isdecimal() and not is_alive(ProcessKey(int(pid), int(start_time))):
            with contextlib.suppress(OSError):
                path.unlink()
