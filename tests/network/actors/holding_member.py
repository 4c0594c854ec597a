"""A member that holds each request until a broadcast, and publishes `held` when one arrives."""

from __future__ import annotations

import asyncio

import arke

service = arke.Service("cluster")
released = asyncio.Event()


@service.on_request
async def hold(request: arke.Request) -> bytes:
    await service.mesh.publish("held", request.body)
    await released.wait()
    return service.mesh.node.address.encode()


@service.on_broadcast
async def release(broadcast: arke.Broadcast) -> None:
    released.set()


service.run()
