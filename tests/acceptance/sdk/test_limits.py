"""Mistakes and overload: a clear error, without effect on other requests."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack

import pytest

import arke
from support.relay_status import wait_for_members
from support.relays import Relays
from support.waiting import LIMIT

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [1, 2], ids=["one relay", "two relays"])
async def test_concurrent_large_bodies_beyond_all_buffers(relays: Relays, size: int) -> None:
    """In both directions: every request gets a reply or is refused at once."""
    one, other = relays.start_pair() if size > 1 else (relays.start(),) * 2
    service = arke.Service("echo", port=other.port)

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        return request.body

    body = bytes(MIB)
    async with service, arke.connect(port=one.port) as mesh, asyncio.timeout(LIMIT):
        await wait_for_members(mesh, "echo", 1)
        calls = (mesh.request("echo", body, timeout=10 * LIMIT) for _ in range(100))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused = [each for each in outcomes if isinstance(each, arke.Overloaded)]
        answered = [each for each in outcomes if each == body]
        assert len(refused) + len(answered) == 100
        assert len(answered) >= 50


async def test_close_and_subscribe_behind_a_full_buffer(relays: Relays) -> None:
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
async def test_invalid_timeout_affects_no_other_request(relays: Relays, limit: float) -> None:
    relay = relays.start()
    service = arke.Service("slow", port=relay.port)
    started = asyncio.Event()
    done = asyncio.Event()

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        started.set()
        await done.wait()
        return b"well"

    async with service, arke.connect(port=relay.port) as mesh:
        good = asyncio.ensure_future(mesh.request("slow", b"", timeout=LIMIT))
        await started.wait()
        with pytest.raises(ValueError, match="timeout"):
            await mesh.request("slow", b"", timeout=limit)
        done.set()
        assert await good == b"well"


async def test_name_that_cannot_be_encoded_affects_no_other_message(relays: Relays) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh, mesh.subscribe("fine") as events:
        with pytest.raises(ValueError, match="text of 1 to 255 bytes"):
            await mesh.publish("\ud800", b"x")
        await mesh.publish("fine", b"y")
        async with asyncio.timeout(LIMIT):
            assert (await anext(events)).body == b"y"


async def test_any_exception_of_a_handler_reaches_the_caller(relays: Relays) -> None:
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


async def test_calls_on_a_closed_mesh_raise(relays: Relays) -> None:
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


async def test_resent_body_over_the_limit_of_the_next_relay_fails(relays: Relays) -> None:
    """The request was made while detached, when no limit was known."""
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


async def test_relays_with_different_body_limits_stay_linked(relays: Relays) -> None:
    """A body over the limit of the receiving relay is refused before it is sent."""
    one = relays.start()
    other = relays.start("-max-message", str(MIB), join=[one])
    other.process.wait_for_line("peer linked", LIMIT)
    service = arke.Service("work", port=other.port)
    big = arke.Service("big", port=one.port)

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        return request.body

    @big.on_request
    async def answer_much(_: arke.Request) -> bytes:
        return bytes(2 * MIB)

    async with (
        service,
        big,
        arke.connect(port=one.port) as here,
        arke.connect(port=other.port) as there,
        there.subscribe("news") as news,
    ):
        await wait_for_members(here, "work", 1)
        await wait_for_members(there, "big", 1)
        with pytest.raises(arke.Overloaded):
            await here.request("work", bytes(2 * MIB), timeout=LIMIT)
        with pytest.raises(arke.RemoteError, match="the reply does not fit into the queue"):
            await there.request("big", b"", timeout=LIMIT)
        await here.publish("news", bytes(2 * MIB))
        await here.publish("news", b"small")
        assert (await anext(news)).body == b"small"
        assert await here.request("work", bytes(MIB), timeout=LIMIT) == bytes(MIB)
    for relay in (one, other):
        assert relay.process.log.count("peer lost") == 0


async def test_overloaded_error_has_the_reason_of_the_refusal(relays: Relays) -> None:
    one, other = relays.start_pair()
    async with arke.Service("no-handlers", port=other.port), arke.connect(port=one.port) as mesh:
        await wait_for_members(mesh, "no-handlers", 1)
        with pytest.raises(arke.Overloaded, match="no request handler"):
            await mesh.request("no-handlers", b"", timeout=LIMIT)


async def test_requests_not_started_by_a_stopping_service_are_retried(relays: Relays) -> None:
    """The drain time ends while requests are still queued."""
    relay = relays.start()
    started = asyncio.Event()
    first = arke.Service("work", port=relay.port, limits=arke.Limits(requests=1), drain=0.1)
    second = arke.Service("work", port=relay.port)

    @first.on_request
    async def hang(_: arke.Request) -> bytes:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    @second.on_request
    async def answer(_: arke.Request) -> bytes:
        return b"second"

    async with arke.connect(port=relay.port) as mesh, asyncio.timeout(LIMIT):
        async with first:
            calls = [
                asyncio.ensure_future(mesh.request("work", b"", timeout=LIMIT)) for _ in range(5)
            ]
            await started.wait()
            await second.__aenter__()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        await second.__aexit__(None, None, None)
    assert isinstance(outcomes[0], arke.RemoteError), "it had started, and was cancelled"
    assert outcomes[1:] == [b"second"] * 4


async def test_status_over_the_message_limit_fails_cleanly(relays: Relays) -> None:
    relay = relays.start("-max-message", str(64 * 1024))
    async with arke.connect(port=relay.port) as mesh, asyncio.timeout(LIMIT):
        async with AsyncExitStack() as stack:
            for number in range(600):
                await stack.enter_async_context(mesh.subscribe(f"{number}-{'x' * 200}"))
            with pytest.raises(arke.MessageTooLarge, match="-max-message"):
                await mesh.status()
        assert (await mesh.status())["topics"] == {}


async def test_drops_are_counted(relays: Relays) -> None:
    relay = relays.start()
    service = arke.Service("slow", port=relay.port, limits=arke.Limits(broadcast_bytes=1))
    resume = asyncio.Event()
    received: list[bytes] = []

    @service.on_broadcast
    async def on_broadcast(broadcast: arke.Broadcast) -> None:
        await resume.wait()
        received.append(broadcast.body)

    async with service, arke.connect(port=relay.port) as mesh, asyncio.timeout(LIMIT):
        for number in range(5):
            await mesh.broadcast("slow", b"%d" % number)
        while service.dropped < 3:
            await asyncio.sleep(0.01)
        resume.set()
        while len(received) + service.dropped < 5:
            await asyncio.sleep(0.01)
    assert len(received) + service.dropped == 5
    assert received[0] == b"0", "one is accepted, even over the limit"
