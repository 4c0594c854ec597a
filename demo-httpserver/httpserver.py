"""The demo's web server: any number of them, on any nodes, form one cluster behind the proxy."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass

from aiohttp import web

import arke
from arke import flags

PORT = 63450  # where the proxy looks for a back end that is named by its IP alone


@dataclass(frozen=True, slots=True)
class Options:
    cluster: str = flags.flag("NAME", required=True, help="the cluster to serve in")
    listen: flags.HostPort = flags.flag(
        "[HOST]:PORT", parse=flags.listen_address, default=f":{PORT}", help="where to listen"
    )
    port: int = flags.flag("N", parse=flags.port, default=55555, help="the relay's port")


async def serve(options: Options) -> None:
    service = arke.Service(options.cluster, port=options.port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    @service.on_request
    async def where(_: arke.Request) -> bytes:
        here = flags.HostPort(options.listen.host or service.mesh.node.address, options.listen.port)
        return (here.host if here.port == PORT else str(here)).encode()

    async def welcome(_: web.Request) -> web.Response:
        return web.Response(text="Welcome!\n")

    async def hello(request: web.Request) -> web.Response:
        name, address = request.match_info["name"], service.mesh.node.address
        return web.Response(text=f"hello, {name}!\nhello, {address}!\n")

    site = web.Application()
    site.add_routes([web.get("/", welcome), web.get("/hello/{name}", hello)])
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, options.listen.host or None, options.listen.port).start()
    async with service:  # registers, now that the server listens
        await stop.wait()
    await asyncio.sleep(1.0)  # who asked the cluster just before may only be connecting
    await runner.cleanup()  # lets running requests finish


if __name__ == "__main__":
    given = flags.parse(
        Options,
        program="httpserver",
        summary="Serves a web page as a member of a cluster.",
        argv=sys.argv[1:],
        environ=os.environ,
    )
    try:
        asyncio.run(serve(given))
    except OSError as error:
        fault = os.strerror(error.errno or 0)
        flags.fail("httpserver", f"-listen {given.listen}: {fault}; choose another")
    except arke.RelayUnreachable as error:
        flags.fail("httpserver", str(error), status=1)
