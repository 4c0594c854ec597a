"""The web server of the demo. All its instances, on any node, are one cluster behind the proxy."""

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

PORT = 63450  # the proxy's default for a backend whose address has no port
ANY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - hosts that mean every address of this machine


@dataclass(frozen=True, slots=True)
class Options:
    cluster: str = flags.flag("NAME", parse=flags.name, required=True, help="cluster to join")
    listen: flags.HostPort = flags.flag(
        "[HOST]:PORT", parse=flags.listen_address, default=f":{PORT}", help="address to listen on"
    )
    port: int = flags.flag("N", parse=flags.port, default=55555, help="port of the relay")
    publish: bool = flags.switch(
        help="publish the address in the mesh, so that proxies need not ask for it; a loopback "
        "address of another machine needs a proxy with -via tunnel or -via auto"
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
    await web.TCPSite(runner, None if host in ANY_ADDRESS else host, port).start()
    host, port = min(runner.addresses, key=len)[:2]  # prefer IPv4, which the nodes use
    published = str(flags.HostPort("" if host in ANY_ADDRESS else host, port))
    http = published if options.publish else None
    service = arke.Service(options.cluster, port=options.port, http=http)

    def address() -> flags.HostPort:
        return flags.HostPort(service.mesh.node.address if host in ANY_ADDRESS else host, port)

    @service.on_request
    async def answer_with_address(_: arke.Request) -> bytes:
        return (address().host if port == PORT else str(address())).encode()

    serving = asyncio.current_task()
    assert serving

    def stop() -> None:
        if not serving.cancelling():  # a second signal changes nothing
            serving.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        async with service:  # register only now that the server listens
            print(f"httpserver ready: {address()} serves {options.cluster}", flush=True)
            await asyncio.Event().wait()
    await asyncio.sleep(1.0)  # a proxy may have just learned the address, and connect
    await runner.cleanup()  # waits for running requests


if __name__ == "__main__":
    given = flags.Command(
        "httpserver", Options, "Serves a web page as a member of a cluster."
    ).parse(sys.argv[1:], os.environ)
    try:
        asyncio.run(serve(given))
    except arke.ArkeError as error:
        flags.fail("httpserver", str(error), status=1)
    except OSError as error:
        fault = (error.strerror or str(error)).rpartition(": ")[2]  # without asyncio's prefix
        flags.fail(
            "httpserver", f"-listen {given.listen}: {fault}; choose another address with -listen"
        )
