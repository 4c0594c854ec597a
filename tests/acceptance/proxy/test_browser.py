"""A real browser through the proxy: pages, WebSockets, server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from support import needs
from support.certificates import write_certificate
from support.deployment import new_deployment
from support.proxy_process import tls_port
from support.waiting import LIMIT

PAGE = """<!doctype html><title>try</title><script>
const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
const received = [];
const report = (result) => fetch("/report", {method: "POST", body: JSON.stringify({
  protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol, ...result})});
socket.onopen = () => { socket.send("hello"); socket.send(new Uint8Array([1, 2, 3])); };
socket.onerror = () => report({error: "the socket failed"});
socket.onmessage = (message) => {
  received.push(typeof message.data === "string" ? message.data : message.data.size);
  if (received.length < 2) return;
  const events = new EventSource("/events");
  events.onmessage = (event) => {
    events.close();
    socket.close(4000);
    report({received, event: event.data});
  };
};
</script>"""


class Pages:
    """The backend: a page, the endpoints that its script uses, and what the script reports."""

    def __init__(self) -> None:
        self.reported: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def page(self, _: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        async for message in websocket:
            if message.type is WSMsgType.TEXT:
                await websocket.send_str(message.data.upper())
            else:
                await websocket.send_bytes(message.data)
        self.closed.set_result(websocket.close_code)
        return websocket

    async def events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await asyncio.wait((self.reported,))  # the response must be forwarded before its end
        return response

    async def report(self, request: web.Request) -> web.Response:
        self.reported.set_result(await request.json())
        return web.Response()


@asynccontextmanager
async def serve(pages: Pages) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/", pages.page)
    app.router.add_get("/ws", pages.socket)
    app.router.add_get("/events", pages.events)
    app.router.add_post("/report", pages.report)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def browser(profile: Path, url: str) -> AsyncIterator[None]:
    command = [
        needs.require_tool("chromium", "chromium"),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--disable-background-networking", "--no-first-run", "--ignore-certificate-errors"),
        *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={profile}"),
    ]
    devnull = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, url, stdout=devnull, stderr=devnull)
    try:
        yield
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), LIMIT)
        except TimeoutError:
            process.kill()


@pytest.mark.parametrize("use_tls", [False, True])
async def test_browser_gets_page_websocket_and_events(tmp_path: Path, use_tls: bool) -> None:
    pages = Pages()
    certificate = write_certificate(tmp_path, "localhost")
    async with serve(pages) as address:
        with new_deployment() as deployment:
            flags = ["-choose", "static", "-backend", address]
            proxy = deployment.proxy(*flags, "-tls-listen", "127.0.0.1:0", "-cert", certificate)
            url = f"http://127.0.0.1:{proxy.port}/"
            if use_tls:
                url = f"https://127.0.0.1:{tls_port(proxy.process)}/"
            async with browser(tmp_path / "profile", url), asyncio.timeout(LIMIT):
                protocol = "h2" if use_tls else "http/1.1"
                expected = {"protocol": protocol, "received": ["HELLO", 3], "event": "first"}
                assert await pages.reported == expected
                assert await pages.closed == 4000
