"""A backend whose pages take 0.2 s, so that some requests are always active.

Prints `page NAME` when a request starts. The pages are those of the demo's web server.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

import arke

WORK = 0.2
service = arke.Service("cluster")


@service.on_request
async def node_address(request: arke.Request) -> bytes:
    return service.mesh.node.address.encode()


async def hello(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    print("page", name, flush=True)  # noqa: T201
    await asyncio.sleep(WORK)
    return web.Response(text=f"hello, {name}!\nhello, {service.mesh.node.address}!\n")


async def main() -> None:
    site = web.Application()
    site.add_routes([web.get("/hello/{name}", hello)])
    runner = web.AppRunner(site)
    await runner.setup()
    await web.TCPSite(runner, port=63450).start()
    async with service:
        await asyncio.Event().wait()


asyncio.run(main())
