"""Whatever is sent by somebody who may: one sentence comes back, the kernel is as it was, and the log is sound."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pytest
from stranger import Answer, Victim

from jupyter_gpu.plain import plain

_LONGEST_MESSAGE = 4200
_LONGEST_LINE = 20_000

BODIES = {
    "nothing": b"",
    "a NUL": b"\x00",
    "no UTF-8": b"\xff\xfe\xfa",
    "half a document": b'{"request": "1"',
    "two documents": b'{"request": "cpu"}{"request": "cpu"}',
    "null": b"null",
    "a number": b"1e999",
    "a list": b'[{"request": "cpu"}]',
    "lists in lists": b"[" * 60_000,
    "objects in objects": b'{"request":' * 5_000 + b"1" + b"}" * 5_000,
    "a number of 60000 digits": b'{"request": ' + b"9" * 60_000 + b"}",
    "not a number": b'{"request": "cpu", "restart": NaN}',
    "infinity": b'{"request": "cpu", "restart": 1e999}',
    "one for true": b'{"request": "cpu", "restart": 1}',
    "a list for the request": b'{"request": ["cpu"]}',
    "an object for the request": b'{"request": {"$ne": ""}}',
    "an unknown name": b'{"request": "cpu", "__class__": "os.system"}',
    "an unknown name with commands for the terminal": b'{"request": "cpu", "\\u001b[2J\\n[I] all is well": 1}',
    "an unknown name of 60000 letters": b'{"request": "cpu", "' + b"k" * 60_000 + b'": 1}',
    "an idle exemption that is no truth": b'{"keep_when_idle": "yes"}',
    "a request with a NUL": b'{"request": "\\u0000"}',
    "a request that is half a character": b'{"request": "\\ud800"}',
    "a request written backwards": b'{"request": "1\\u202e"}',
    "a request with commands for the terminal": b'{"request": "\\u001b]0;gone\\u0007\\u001b[2J"}',
    "a request of 60000 letters": b'{"request": "' + b"x" * 60_000 + b'"}',
    "a request with spaces without end": b'{"request": "' + b" " * 60_000 + b'x"}',
    "a request for many GPUs": b'{"request": "' + b"0," * 60 + b'1"}',
    "a request for GPUs beyond counting": b'{"request": "' + b"9" * 190 + b'x"}',
    "digits of another script": '{"request": "٣"}'.encode(),
    "wide digits": '{"request": "１:8GiB"}'.encode(),
    "a count in another script": '{"request": "٢x"}'.encode(),
    "memory beyond counting": b'{"request": "0:' + b"9" * 190 + b'GiB"}',
    "memory of ten to the four hundredth": b'{"request": "0:1e400GiB"}',
    "memory that is no number": b'{"request": "0:nanGiB"}',
    "memory below nothing": b'{"request": "0:-1GiB"}',
    "memory of nothing": b'{"request": "0:0GiB"}',
    "more than all": b'{"request": "0:101%"}',
    "a share beyond counting": b'{"request": "0:' + b"0" * 150 + b'.%"}',
    "a way out": b'{"request": "../../../../etc/passwd"}',
    "a shell's command": b'{"request": "$(reboot)"}',
    "a statement": b'{"request": "1\'; DROP TABLE leases; --"}',
    "places for values": b'{"request": "%s%n%(x)s{0}{x.__class__}"}',
    "markup": b'{"request": "<img src=x onerror=alert(1)>"}',
}
OVERSIZED = {"70000 bytes": 70_000, "8 MB": 8_000_000}
IDS = {
    "nobody's": "00000000-0000-0000-0000-000000000000",
    "a way out": "..%2f..%2f..%2fetc%2fpasswd",
    "a way out in dots": "%2e%2e",
    "a NUL": "%00",
    "no UTF-8": "%ff%fe",
    "half a character": "%ed%a0%80",
    "commands for the terminal": quote("\x1b[2J\n[I 2026-01-01 ServerApp] all is well\r"),
    "written backwards": quote("\u202egnp.exe"),
    "12000 letters": "a" * 12_000,
    "a statement": quote("x' OR '1'='1"),
    "places for values": quote("%s%n%(x)s{0}"),
    "a list": "a,b",
    "self": "self",
    "an object's own": "__proto__",
    "a blank": "%20",
}
TIMES = [
    "nan", "-nan", "inf", "-inf", "-1", "-1e-300", "1e400", "0x10", "1,5", "", "%20", "%00", "%ff", "now", "[]", "true",
    "9" * 10_000, "1e", "--1", "1;2", quote("1\x1b[2J"), quote("%s%n"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_comes_of_it(victim: Victim) -> Iterator[None]:
    before = victim.kernel()
    yield
    after = victim.kernel()
    assert after["request"] == before["request"] == "1"
    assert (after["pending_request"], after["pid"]) == (None, before["pid"])
    log = victim.log()
    assert "Traceback" not in log, log[-4000:]
    assert plain(log.replace("\n", "")) == log.replace("\n", "")
    assert max(len(line) for line in log.splitlines()) < _LONGEST_LINE
    assert not any(line.startswith("[I 2026-01-01") for line in log.splitlines())


def is_one_sentence(answer: Answer) -> bool:
    message = answer.message
    return plain(message) == message and 0 < len(message) < _LONGEST_MESSAGE


@pytest.mark.parametrize("body", BODIES)
def test_a_hostile_body_is_refused_with_one_sentence(victim: Victim, body: str) -> None:
    path = f"/gpu/api/kernels/{victim.kernel_id}"
    answer = victim.stranger.ask("PATCH", path, body=BODIES[body], token=victim.server.token)
    assert answer.status == 400, answer
    assert is_one_sentence(answer), answer


@pytest.mark.parametrize("size", OVERSIZED)
def test_an_oversized_body_is_refused(victim: Victim, size: str) -> None:
    body = json.dumps({"request": "cpu", "x": "y" * OVERSIZED[size]}).encode()
    answer = victim.stranger.ask("PATCH", f"/gpu/api/kernels/{victim.kernel_id}", body=body, token=victim.server.token)
    assert answer.status == 413, answer
    assert is_one_sentence(answer)


@pytest.mark.parametrize("name", IDS)
def test_a_hostile_id_is_nobodys(victim: Victim, name: str) -> None:
    token = victim.server.token
    for method, path, body in (
        ("GET", "kernels", None),
        ("PATCH", "kernels", b'{"request": "cpu"}'),
        ("DELETE", "queue", None),
    ):
        answer = victim.stranger.ask(method, f"/gpu/api/{path}/{IDS[name]}", body=body, token=token)
        assert answer.status in (400, 404), (method, path, answer)
        assert is_one_sentence(answer), (method, path, answer)


@pytest.mark.parametrize("since", TIMES, ids=range(len(TIMES)))
def test_a_hostile_time_is_refused_with_one_sentence(victim: Victim, since: str) -> None:
    answer = victim.stranger.ask("GET", f"/gpu/api/history?since={since}", token=victim.server.token)
    assert answer.status == 400, answer
    assert is_one_sentence(answer)


def test_what_is_said_twice_is_taken_once(victim: Victim) -> None:
    token, path = victim.server.token, f"/gpu/api/kernels/{victim.kernel_id}"
    answer = victim.stranger.ask("PATCH", path, body=b'{"request": "cpu", "request": "1"}', token=token)
    assert answer.status == 200
    assert victim.stranger.ask("GET", "/gpu/api/history?since=5&since=nan", token=token).status == 400


@pytest.mark.parametrize(
    "lie",
    [
        b"Content-Length: 100\r\n\r\n{}",
        b"Content-Length: -1\r\n\r\n{}",
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
)
def test_a_lie_about_the_body_does_nothing(victim: Victim, lie: bytes) -> None:
    parts = urlsplit(victim.server.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60) as connection:
        head = f"PATCH /gpu/api/kernels/{victim.kernel_id} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        connection.sendall(f"{head}Authorization: token {victim.server.token}\r\n".encode() + lie)
        connection.shutdown(socket.SHUT_WR)
        said = connection.recv(65536)
    assert not said or said.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), said
