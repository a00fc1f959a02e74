"""Clients of a server, to be run in processes of their own, so that they cost the server nothing but their requests.

python clients.py probe URL TOKEN SECONDS        ask for /api/status again and again, print the latencies as JSON
python clients.py panel URL TOKEN COUNT          be so many open panels of ours, until standard input ends
python clients.py dashboard URL TOKEN COUNT      be so many GPU charts of jupyterlab-nvdashboard, likewise
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import sys
import time
from urllib.parse import urlsplit

INTERVAL_S = 1.0
THINKING_S = 0.005
"""The mean pause between two probes. They come at random moments, so as not to fall into step with anything."""
PANEL_PATH = "/gpu/api/live"
"""What an open panel asks for every second: devices, kernels and queue."""


def probe(url: str, token: str, seconds: float) -> list[float]:
    """The seconds that answers of /api/status took.

    One that took longer than the pause between two probes also stands for those that would have been sent meanwhile:
    else a server that stands still for a third of each second would seem to do so to one request in a hundred. One that
    does not come before the time is over counts with the time that was waited for it.
    """
    address = urlsplit(url)
    headers = {"Authorization": f"token {token}"}
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=seconds)
    connection.request("GET", "/api/status", headers=headers)
    connection.getresponse().read()
    end = time.perf_counter() + seconds
    latencies = []
    while (left_s := end - time.perf_counter()) > 0:
        assert connection.sock is not None
        connection.sock.settimeout(left_s)
        began = time.perf_counter()
        try:
            connection.request("GET", "/api/status", headers=headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
        except TimeoutError:
            pass  # the time is over
        latency = time.perf_counter() - began
        while latency > 0:
            latencies.append(latency)
            latency -= THINKING_S
        time.sleep(random.expovariate(1 / THINKING_S))
    return latencies


async def panels(url: str, token: str, count: int) -> None:
    """Be so many panels: each asks a second after it had the last answer, as a browser would."""
    await asyncio.gather(*(_panel(url, token, number / count) for number in range(count)))


async def _panel(url: str, token: str, delay_s: float) -> None:
    address = urlsplit(url)
    await asyncio.sleep(delay_s * INTERVAL_S)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    while True:
        # The time is how JupyterLab gets past the browser's cache.
        writer.write(
            f"GET {PANEL_PATH}?{round(1000 * time.time())} HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Authorization: token {token}\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200"), head
        await reader.readexactly(int(head.split("content-length:")[1].split()[0]))
        await asyncio.sleep(INTERVAL_S)


async def dashboards(url: str, token: str, count: int) -> None:
    """Be so many "GPU Resources" charts, updated once a second. Ten times a second is their default."""
    await asyncio.gather(*(_dashboard(url, token, number / count) for number in range(count)))


async def _dashboard(url: str, token: str, delay_s: float) -> None:
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    await asyncio.sleep(delay_s * INTERVAL_S)
    address = f"ws{url.removeprefix('http')}nvdashboard/gpu_resource"
    headers = {"Authorization": f"token {token}"}
    socket = await websocket_connect(HTTPRequest(address, headers=headers, request_timeout=0, connect_timeout=0))
    await socket.write_message(json.dumps({"updateFrequency": round(1000 * INTERVAL_S), "isPaused": False}))
    while await socket.read_message() is not None:
        pass


def stand_back() -> None:
    """Leave the processor to the server and the probe, as browsers on other machines do, but not to everybody else."""
    if os.sched_getscheduler(0) == os.SCHED_RR:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


async def watch(kind: str, url: str, token: str, count: int) -> None:
    """Be clients of a kind until whoever started this closes the pipe. That they end before is an error."""
    clients = asyncio.ensure_future((panels if kind == "panel" else dashboards)(url, token, count))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    end = asyncio.ensure_future(reader.read())
    await asyncio.wait({end, clients}, return_when=asyncio.FIRST_COMPLETED)
    if clients.done():
        clients.result()
        raise RuntimeError("The server hung up.")
    clients.cancel()
    await asyncio.wait({clients})


if __name__ == "__main__":
    what, where, secret, amount = sys.argv[1:]
    if what == "probe":
        print(json.dumps(probe(where, secret, float(amount))))
    else:
        stand_back()
        asyncio.run(watch(what, where, secret, int(amount)))
