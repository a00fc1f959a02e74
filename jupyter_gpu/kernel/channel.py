"""The way from a kernel to its server: HTTP over the Unix socket that `JUPYTER_GPU_SOCKET` names.

The server knows who calls by the uid and pid at the other end of the socket and by the lease; a kernel can see all
devices and act on itself only. The paths and models are those of the REST interface.
"""

from __future__ import annotations

import http.client
import json
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LEASE_HEADER = "X-Jupyter-GPU-Lease"
KERNEL_HEADER = "X-Jupyter-GPU-Kernel"
_LONGEST_ANSWER = 8 << 20


class ChannelError(Exception):
    """The server cannot be asked, or it refused. The message is one sentence for the user."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status of a refusal; `None` where no server answered."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout)
            connection.connect(self._path)
        except BaseException:
            connection.close()
            raise
        self.sock = connection


class Channel:
    """Asks the server on behalf of this kernel.

    Args:
        path: the socket; empty where the kernel was given none.
        lease_id: the kernel's lease; empty for none.
        kernel_id: the kernel's own id where it is known; it helps where there is no lease.
        timeout_s: for one answer, in seconds.
    """

    def __init__(self, path: str, lease_id: str = "", kernel_id: str = "", timeout_s: float = 10.0) -> None:
        self.path = path
        self.lease_id = lease_id
        self.kernel_id = kernel_id
        self.timeout_s = timeout_s

    def get(self, path: str) -> Any:
        """What `GET gpu/api/<path>` answers.

        Raises:
            ChannelError: there is no server, or it refused.
        """
        return self._request("GET", path, None)

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """What `PATCH gpu/api/<path>` with this JSON body answers.

        Raises:
            ChannelError: there is no server, or it refused.
        """
        return self._request("PATCH", path, body)

    def post(self, path: str) -> Any:
        """What `POST gpu/api/<path>` answers.

        Raises:
            ChannelError: there is no server, or it refused.
        """
        return self._request("POST", path, {})

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        if not self.path:
            raise ChannelError(
                "this kernel has no Jupyter server with jupyter_gpu to ask (JUPYTER_GPU_SOCKET is not set); "
                "start it from JupyterLab with jupyter_gpu installed there"
            )
        headers = {"Accept": "application/json"}
        if self.lease_id:
            headers[LEASE_HEADER] = self.lease_id
        if self.kernel_id:
            headers[KERNEL_HEADER] = self.kernel_id
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection = _UnixConnection(self.path, self.timeout_s)
        try:
            connection.request(method, "/gpu/api/" + path, content, headers)
            response = connection.getresponse()
            text = response.read(_LONGEST_ANSWER)
        except socket.timeout as error:
            raise ChannelError(
                f"the Jupyter server did not answer within {self.timeout_s:g} seconds; try again when it is less busy"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ChannelError(
                f"the Jupyter server that started this kernel does not listen any more ({error}); "
                "restart the kernel from a running server"
            ) from error
        finally:
            connection.close()
        try:
            answer = json.loads(text.decode()) if text else None
        except ValueError:
            answer = None
        if response.status >= 400:
            message = answer.get("message") if isinstance(answer, dict) else None
            raise ChannelError(str(message or f"the Jupyter server answered {response.status}"), response.status)
        return answer
