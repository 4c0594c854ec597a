"""The demo's web server: any number of them, on any nodes, form one cluster behind the proxy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass

from aiohttp import web

import arke
from arke.program import flags

PORT = 63450  # where the proxy looks for a backend that is named by its IP alone
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - hosts that name no one machine


@dataclass(frozen=True, slots=True)
class Options:
    cluster: str = flags.flag(
        "NAME", parse=flags.name, required=True, help="the cluster to serve in"
    )
    listen: flags.HostPort = flags.flag(
        "[HOST]:PORT", parse=flags.listen_address, default=f":{PORT}", help="where to listen"
    )
    port: int = flags.flag("N", parse=flags.port, default=55555, help="the relay's port")
    publish: bool = flags.switch(
        help="publish the address, so that proxies choose by themselves and need not ask; "
        "one on loopback is reached by those with -via tunnel or auto"
    )


async def serve(options: Options) -> None:
    async def welcome(_: web.Request) -> web.Response:
        return web.Response(text="Welcome!\n")

    async def hello(request: web.Request) -> web.Response:
        name, node = request.match_info["name"], service.mesh.node.address
        return web.Response(text=f"hello, {name}!\nhello, {node}!\n")

    site = web.Application()
    site.add_routes([web.get("/", welcome), web.get("/hello/{name}", hello)])
    runner = web.AppRunner(site, access_log=None, shutdown_timeout=10.0)
    await runner.setup()
    host, port = options.listen
    await web.TCPSite(runner, None if host in EVERYWHERE else host, port).start()
    host, port = min(runner.addresses, key=len)[:2]  # IPv4, as the nodes have, where there is any
    published = str(flags.HostPort("" if host in EVERYWHERE else host, port))
    http = published if options.publish else None
    service = arke.Service(options.cluster, port=options.port, http=http)

    def address() -> flags.HostPort:
        return flags.HostPort(service.mesh.node.address if host in EVERYWHERE else host, port)

    @service.on_request
    async def where(_: arke.Request) -> bytes:
        return (address().host if port == PORT else str(address())).encode()

    serving = asyncio.current_task()
    assert serving

    def stop() -> None:
        if not serving.cancelling():  # being asked twice does not make it faster
            serving.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        async with service:  # registers, now that the server listens
            print(f"httpserver ready: {address()} serves {options.cluster}", flush=True)
            await asyncio.Event().wait()
    await asyncio.sleep(1.0)  # who asked the cluster just before may only be connecting
    await runner.cleanup()  # lets running requests finish


if __name__ == "__main__":
    given = flags.Command(
        "httpserver", Options, "Serves a web page as a member of a cluster."
    ).parse(sys.argv[1:], os.environ)
    try:
        asyncio.run(serve(given))
    except arke.ArkeError as error:
        flags.fail("httpserver", str(error), status=1)
    except OSError as error:
        fault = (error.strerror or str(error)).rpartition(": ")[2]  # asyncio says it at length
        flags.fail("httpserver", f"-listen {given.listen}: {fault}; choose another")
