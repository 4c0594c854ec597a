"""What programs do wrong, or in an unlucky moment: a clear error, and harm to nobody else."""

from __future__ import annotations

import asyncio
import math

import pytest

import arke
from relays import LIMIT, Relays, members

MIB = 1024 * 1024


async def known(mesh: arke.Mesh, cluster: str) -> None:
    async with asyncio.timeout(LIMIT):
        while not await members(mesh, cluster):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("size", [1, 2], ids=["one relay", "two relays"])
async def test_more_large_bodies_at_once_than_any_buffer_holds(relays: Relays, size: int) -> None:
    """In both directions: each is answered, or refused at once; none is lost on the way."""
    one, other = relays.pair() if size > 1 else (relays.start(),) * 2
    service = arke.Service("echo", port=other.port)

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        return request.body

    body = bytes(MIB)
    async with service, arke.connect(port=one.port) as mesh, asyncio.timeout(LIMIT):
        await known(mesh, "echo")
        calls = (mesh.request("echo", body, timeout=10 * LIMIT) for _ in range(100))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = [each for each in outcomes if isinstance(each, arke.Overloaded)]
        answered = [each for each in outcomes if each == body]
        assert len(refused) + len(answered) == 100
        assert len(answered) >= 50


async def test_closing_and_subscribing_behind_a_full_buffer(relays: Relays) -> None:
    relay = relays.start()
    async with asyncio.timeout(2 * LIMIT):
        async with arke.connect(port=relay.port) as mesh, mesh.subscribe("big") as events:
            for _ in range(100):
                await mesh.publish("big", bytes(MIB))
            async with mesh.subscribe("other") as others:
                await mesh.publish("other", b"x")
                assert (await anext(others)).body == b"x"
            assert len((await anext(events)).body) == MIB


@pytest.mark.parametrize("limit", [-1.0, math.nan, math.inf, 8 * 24 * 3600.0])
async def test_a_bad_time_out_harms_no_other_call(relays: Relays, limit: float) -> None:
    relay = relays.start()
    service = arke.Service("slow", port=relay.port)
    begun = asyncio.Event()
    done = asyncio.Event()

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        begun.set()
        await done.wait()
        return b"well"

    async with service, arke.connect(port=relay.port) as mesh:
        good = asyncio.ensure_future(mesh.request("slow", b"", timeout=LIMIT))
        await begun.wait()
        with pytest.raises(ValueError, match="time-out"):
            await mesh.request("slow", b"", timeout=limit)
        done.set()
        assert await good == b"well"


async def test_a_name_that_cannot_be_written_harms_no_other_message(relays: Relays) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh, mesh.subscribe("fine") as events:
        with pytest.raises(ValueError, match="octets of text"):
            await mesh.publish("\ud800", b"x")
        await mesh.publish("fine", b"y")
        async with asyncio.timeout(LIMIT):
            assert (await anext(events)).body == b"y"


async def test_whatever_a_handler_raises_reaches_the_caller(relays: Relays) -> None:
    relay = relays.start()
    odd = arke.Service("odd", port=relay.port)
    plain = arke.Service("plain", port=relay.port)

    @odd.on_request
    async def raise_odd(request: arke.Request) -> bytes:
        raise ValueError("x\udcff")

    @plain.on_request
    def raise_stop(request: arke.Request) -> bytes:
        return bytes(next(iter(())))

    async with odd, plain, arke.connect(port=relay.port) as mesh:
        with pytest.raises(arke.RemoteError, match=r"ValueError: x\?"):
            await mesh.request("odd", b"", timeout=LIMIT)
        with pytest.raises(arke.RemoteError, match="StopIteration"):
            await mesh.request("plain", b"", timeout=LIMIT)


async def test_a_closed_mesh_says_so(relays: Relays) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh:
        pass
    with pytest.raises(arke.MeshClosed):
        await mesh.request("x", b"", timeout=LIMIT)
    with pytest.raises(arke.MeshClosed):
        await mesh.publish("x", b"")
    with pytest.raises(arke.MeshClosed):
        async with mesh.subscribe("x"):
            raise AssertionError("subscribed to nothing")


async def test_a_body_over_the_limit_of_the_relay_that_comes_back(relays: Relays) -> None:
    """It was within no relay's limit when it was handed over: there was none."""
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh:
        relay.process.kill()
        relay.process.wait(LIMIT)
        async with asyncio.timeout(LIMIT):
            while mesh.attached:
                await asyncio.sleep(0.001)
        large = asyncio.ensure_future(mesh.request("x", bytes(17 * MIB), timeout=LIMIT))
        small = asyncio.ensure_future(mesh.request("x", b"", timeout=LIMIT))
        await asyncio.sleep(0)
        relays.start(address=relay.address, port=relay.port)
        with pytest.raises(arke.MessageTooLarge):
            await large
        with pytest.raises(arke.NoSuchCluster):
            await small
