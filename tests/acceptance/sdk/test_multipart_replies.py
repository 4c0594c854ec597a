"""Multipart replies, and cancelling handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

import arke
from support.relay_status import wait_for_members
from support.relays import Relay, Relays
from support.waiting import LIMIT


class Counter:
    """A service that yields numbers without end, and records its progress and its end."""

    def __init__(self, port: int) -> None:
        self.service = arke.Service("count", port=port)
        self.yielded = 0
        self.ended = asyncio.Event()

        @self.service.on_request_many
        async def count(request: arke.Request) -> AsyncGenerator[bytes, None]:
            most, size = map(int, request.body.split())
            try:
                for number in range(most):
                    self.yielded += 1
                    yield b"%d " % number + bytes(size)
                if request.headers.get("raise"):
                    raise ValueError(request.headers["raise"])
            finally:
                self.ended.set()


async def test_parts_arrive_in_order_and_end_with_the_handler(nodes: tuple[Relay, Relay]) -> None:
    counter = Counter(nodes[1].port)
    async with counter.service, arke.connect(port=nodes[0].port) as mesh:
        await wait_for_members(mesh, "count", 1)
        parts = [int(part.split()[0]) async for part in mesh.request_many("count", b"1000 7")]
        assert parts == list(range(1000))
        assert [part async for part in mesh.request_many("count", b"0 0")] == []


async def test_handler_exception_arrives_after_its_parts(nodes: tuple[Relay, Relay]) -> None:
    counter = Counter(nodes[1].port)
    got = 0
    async with counter.service, arke.connect(port=nodes[0].port) as mesh:
        await wait_for_members(mesh, "count", 1)
        parts = mesh.request_many("count", b"5 0", headers={"raise": "enough"})
        with pytest.raises(arke.RemoteError, match="ValueError: enough"):  # noqa: PT012
            async for _ in parts:
                got += 1
    assert got <= 5


async def test_multipart_handler_waits_for_the_reader(nodes: tuple[Relay, Relay]) -> None:
    counter = Counter(nodes[1].port)
    async with counter.service, arke.connect(port=nodes[0].port) as mesh:
        await wait_for_members(mesh, "count", 1)
        async with aclosing(mesh.request_many("count", b"10000 50000")) as parts:
            await anext(parts)
            before = -1
            while counter.yielded != before:
                before = counter.yielded
                for _ in range(5):
                    assert await mesh.status()
            assert counter.yielded * 50_000 < 10_000_000, "a window, and what is being sent"
            assert not counter.ended.is_set()


@pytest.mark.parametrize("leaving", ["the caller's", "the member's"])
async def test_draining_relay_finishes_a_multipart_reply(relays: Relays, leaving: str) -> None:
    near, far = relays.start_pair()
    counter = Counter(far.port)
    async with counter.service, arke.connect(port=near.port) as mesh:
        await wait_for_members(mesh, "count", 1)
        async with aclosing(mesh.request_many("count", b"200 50000")) as parts:
            await anext(parts)
            relay = near if leaving == "the caller's" else far
            relay.process.terminate()
            relay.process.wait_for_line("relay draining", LIMIT)
            assert len([part async for part in parts]) == 199
        assert await asyncio.to_thread(relay.process.wait, LIMIT) == 0


async def test_closing_the_iteration_cancels_the_handler(nodes: tuple[Relay, Relay]) -> None:
    counter = Counter(nodes[1].port)
    async with counter.service, arke.connect(port=nodes[0].port) as mesh:
        await wait_for_members(mesh, "count", 1)
        async with aclosing(mesh.request_many("count", b"1000000 1000")) as parts:
            async for part in parts:
                if part.startswith(b"10 "):
                    break
        async with asyncio.timeout(LIMIT):
            await counter.ended.wait()
        assert counter.yielded < 1_000_000
        assert len(mesh.runtime.tunnels) == 0


async def test_request_handler_replies_in_one_part(relays: Relays) -> None:
    relay = relays.start()
    service = arke.Service("plain", port=relay.port)

    @service.on_request
    def answer(request: arke.Request) -> bytes:
        return request.body * 2

    async with service, arke.connect(port=relay.port) as mesh:
        assert [part async for part in mesh.request_many("plain", b"ab")] == [b"abab"]


async def test_multipart_handler_does_not_serve_plain_requests(relays: Relays) -> None:
    relay = relays.start()
    counter = Counter(relay.port)
    async with counter.service, arke.connect(port=relay.port) as mesh:
        with pytest.raises(arke.Overloaded, match="no request handler"):
            await mesh.request("count", b"", timeout=LIMIT)
        with pytest.raises(arke.NoSuchCluster):
            await anext(mesh.request_many("unknown", b""))


async def test_late_part_raises_request_timeout(relays: Relays) -> None:
    relay = relays.start()
    service = arke.Service("slow", port=relay.port)
    stopped = asyncio.Event()

    @service.on_request_many
    async def answer(_: arke.Request) -> AsyncGenerator[bytes, None]:
        yield b"first"
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with service, arke.connect(port=relay.port) as mesh, asyncio.timeout(LIMIT):
        parts = mesh.request_many("slow", b"", timeout=0.2)
        assert await anext(parts) == b"first"
        with pytest.raises(arke.RequestTimeout):
            await anext(parts)
        await stopped.wait()


async def test_multipart_reply_of_a_lost_member_raises_member_lost(relays: Relays) -> None:
    one, other = relays.start_pair()
    counter = Counter(other.port)
    await counter.service.__aenter__()
    async with arke.connect(port=one.port) as mesh, asyncio.timeout(2 * LIMIT):
        await wait_for_members(mesh, "count", 1)
        parts = mesh.request_many("count", b"1000000 100000", timeout=LIMIT)
        await anext(parts)
        other.process.kill()
        with pytest.raises(arke.MemberLost):  # noqa: PT012
            while True:
                await anext(parts)
    await counter.service.__aexit__(None, None, None)


def test_multipart_handler_must_be_an_async_generator() -> None:
    service = arke.Service("x")
    with pytest.raises(TypeError, match="async generator"):
        service.on_request_many(lambda _: None)  # type: ignore[type-var, arg-type, return-value]
    with pytest.raises(TypeError, match="coroutine function"):
        service.on_tunnel(lambda _: None)  # type: ignore[type-var, arg-type, return-value]


# Cancelled requests.


@pytest.mark.parametrize("alone", [False, True], ids=["any member", "one member"])
async def test_cancelling_a_request_cancels_its_handler(
    nodes: tuple[Relay, Relay], alone: bool
) -> None:
    service = arke.Service("slow", port=nodes[1].port, limits=arke.Limits(requests=2))
    started, stopped = asyncio.Semaphore(0), asyncio.Semaphore(0)
    ran: list[bytes] = []

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        ran.append(request.body)
        started.release()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.release()
        raise AssertionError

    async with (
        service,
        arke.connect(port=nodes[0].port) as mesh,
        asyncio.timeout(LIMIT),
    ):
        await wait_for_members(mesh, "slow", 1)
        member = (await mesh.members("slow"))[0].id if alone else None
        calls = [
            asyncio.ensure_future(
                mesh.request("slow", b"%d" % number, timeout=LIMIT, member=member)
            )
            for number in range(3)
        ]
        for _ in range(2):
            await started.acquire()
        calls[2].cancel()  # it is queued and never starts
        for call in calls[:2]:
            call.cancel()
        for _ in range(2):
            await stopped.acquire()
        last = asyncio.ensure_future(mesh.request("slow", b"last", timeout=LIMIT))
        await started.acquire()
        last.cancel()
        await stopped.acquire()
    assert ran == [b"0", b"1", b"last"]


async def test_many_queued_requests_are_cancelled_quickly(nodes: tuple[Relay, Relay]) -> None:
    """The cost of a cancellation must not grow with the queue.

    60,000 cancellations take under a second. They took over 50 s when each searched the queue.
    """
    limits = arke.Limits(requests=1, request_bytes=1 << 30)
    service = arke.Service("busy", port=nodes[1].port, limits=limits)
    started, release = asyncio.Event(), asyncio.Event()

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        started.set()
        await release.wait()
        return request.body

    async with (
        service,
        arke.connect(port=nodes[0].port) as mesh,
        arke.connect(port=nodes[0].port) as other,
        asyncio.timeout(LIMIT),
    ):
        await wait_for_members(other, "busy", 1)
        first = asyncio.ensure_future(other.request("busy", b"first", timeout=LIMIT))
        await started.wait()
        storm = [
            asyncio.ensure_future(mesh.request("busy", b"", timeout=LIMIT)) for _ in range(60_000)
        ]
        dispatcher = service._dispatcher
        assert dispatcher
        while dispatcher.requests.queued < len(storm):
            await asyncio.sleep(0.01)
        for request in storm:
            request.cancel()
        last = asyncio.ensure_future(other.request("busy", b"last", timeout=LIMIT))
        while dispatcher.requests.queued > 1:
            await asyncio.sleep(0.01)
        release.set()
        assert await asyncio.gather(first, last) == [b"first", b"last"]
        assert dispatcher.requests._bytes == 0


async def test_death_of_the_caller_cancels_its_handlers(nodes: tuple[Relay, Relay]) -> None:
    service = arke.Service("slow", port=nodes[1].port)
    started, stopped = asyncio.Event(), asyncio.Event()

    @service.on_request
    async def answer(_: arke.Request) -> bytes:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        raise AssertionError

    async with service, arke.connect(port=nodes[0].port) as mesh, asyncio.timeout(LIMIT):
        await wait_for_members(mesh, "slow", 1)
        call = asyncio.ensure_future(mesh.request("slow", b"", timeout=LIMIT))
        await started.wait()
        link = mesh.runtime.attachment.connection
        assert link
        link.abort("as if killed")
        with pytest.raises(arke.ConnectionLost):
            await call
        await stopped.wait()
