"""A proxy whose back ends are the members of a cluster, each at the far end of a tunnel.

The address that it knows of them leads nowhere: only a member knows where its server is.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

import arke
from arke_proxy.back_ends.dial import Dialer
from arke_proxy.choosing.address import Address
from arke_proxy.choosing.routes import Route, Routes
from arke_proxy.choosing.static import Static
from arke_proxy.hub import Hub, Times
from arke_proxy.record import NoJournal
from arke_proxy.server import Server, bind


async def main(port: int, cluster: str) -> None:
    loop = asyncio.get_running_loop()
    times = Times(grace=1.0, parting=0.1)
    async with arke.connect(port=port) as mesh:
        members = await mesh.members(cluster)
        known = [Address("192.0.2.1", 9, member.id) for member in members]
        routes = Routes(Route(cluster, Static(known)))
        dialer = Dialer(loop, mesh, times.connect)
        hub = Hub(routes, times, loop, 100, NoJournal(), dialer)
        sock = bind("127.0.0.1", 0)
        await Server(hub).start(sock)
        sys.stdout.write(f"listening on {sock.getsockname()[1]}\n")
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
