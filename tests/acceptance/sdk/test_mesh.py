"""A mesh and its service while they are open: entering twice, repr, and closing iterations."""

from __future__ import annotations

from contextlib import aclosing

import pytest

import arke
from support.relays import Relays


async def test_entering_an_open_mesh_raises(relays: Relays) -> None:
    relay = relays.start()
    mesh = arke.connect(port=relay.port)
    async with mesh:
        with pytest.raises(RuntimeError, match="already open"):
            await mesh.__aenter__()
        assert (await mesh.status())["programs"] == 1
    async with mesh:
        assert mesh.attached, "a closed mesh can be opened again"


def test_entering_an_open_blocking_mesh_raises(relays: Relays) -> None:
    relay = relays.start()
    with arke.blocking.connect(port=relay.port) as mesh:
        with pytest.raises(RuntimeError, match="already open"):
            mesh.__enter__()
        assert mesh.attached


async def test_text_body_raises_at_the_call(relays: Relays) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh:
        for call in (mesh.request, mesh.request_all, mesh.broadcast, mesh.publish):
            with pytest.raises(TypeError, match=r"body must be bytes \(got str\); use \.encode"):
                await call("echo", "text")  # type: ignore[operator]


async def test_repr_shows_the_state_of_meshes_services_and_tunnels(relays: Relays) -> None:
    relay = relays.start()
    service = arke.Service("echo", port=relay.port)
    seen = []

    @service.on_tunnel
    async def echo(tunnel: arke.Tunnel) -> None:
        seen.append(repr(tunnel))
        async for message in tunnel:
            await tunnel.send(message)

    async with service, arke.connect(port=relay.port) as mesh:
        node = mesh.node
        attached = f"attached to 127.0.0.1:{relay.port}, node {node.id}, network {node.network!r}"
        assert repr(mesh) == f"<arke.Mesh {attached}>"
        assert repr(service) == f"<arke.Service 'echo' on <arke.Mesh {attached}>>"
        async with mesh.tunnel("echo") as tunnel:
            assert repr(tunnel).endswith(" open>")
            await tunnel.send(b"x")
            await tunnel.recv()
            tunnel.close_send()
            assert repr(tunnel).endswith(" send_closed>")
        assert f" open opened by {node.id}/" in seen[0]
        async with mesh.subscribe("news") as events:
            assert repr(events) == "<arke.Subscription to 'news', 0 events queued>"
    assert repr(mesh) == "<arke.Mesh closed>"


async def test_aclosing_closes_a_watch_and_a_multipart_reply(relays: Relays) -> None:
    relay = relays.start()
    service = arke.Service("count", port=relay.port)

    @service.on_request_many
    async def count(request: arke.Request):  # type: ignore[no-untyped-def]
        del request
        for number in range(1000):
            yield str(number).encode()

    async with service, arke.connect(port=relay.port) as mesh:
        async with aclosing(mesh.watch("count")) as changes:
            assert (await anext(changes)).joined
        async with aclosing(mesh.request_many("count", b"")) as parts:
            assert await anext(parts) == b"0"
