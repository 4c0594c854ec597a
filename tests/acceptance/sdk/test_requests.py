"""Requests between real programs through real relays, on one node and across two."""

from __future__ import annotations

import asyncio
import time

import pytest

import arke
from support.relay_status import wait_for_members
from support.relays import Relay, Relays
from support.waiting import LIMIT


def echo(port: int, **settings: object) -> arke.Service:
    service = arke.Service("echo", port=port, **settings)

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        return request.body

    return service


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 200_000, 16 * 1024 * 1024])
async def test_bodies_of_every_size_are_echoed_unchanged(ports: tuple[int, int], size: int) -> None:
    body = bytes(i * 31 & 0xFF for i in range(256)) * (size // 256 + 1)
    async with echo(ports[1]), arke.connect(port=ports[0]) as mesh:
        await wait_for_members(mesh, "echo", 1)
        assert await mesh.request("echo", body[:size], timeout=LIMIT) == body[:size]


async def test_request_has_headers_sender_and_deadline(ports: tuple[int, int]) -> None:
    service = arke.Service("tell", port=ports[1])

    @service.on_request
    async def tell(request: arke.Request) -> bytes:
        return f"{request.sender} {request.headers['colour']} {request.remaining():.1f}".encode()

    async with service, arke.connect(port=ports[0]) as mesh:
        await wait_for_members(mesh, "tell", 1)
        reply = await mesh.request("tell", b"", timeout=20.0, headers={"colour": "blue"})
        sender, colour, remaining = reply.decode().split()
        assert sender.startswith(f"{mesh.node.id}/")
        assert colour == "blue"
        assert 15.0 < float(remaining) <= 20.0


async def test_concurrent_requests_get_their_own_replies(
    ports: tuple[int, int],
) -> None:
    async with echo(ports[1]), arke.connect(port=ports[0]) as mesh:
        await wait_for_members(mesh, "echo", 1)
        bodies = [f"{i}".encode() * (1 + i % 50) for i in range(2_000)]
        replies = await asyncio.gather(
            *(mesh.request("echo", body, timeout=LIMIT) for body in bodies)
        )
        assert replies == bodies


async def test_plain_handler_runs_in_threads(ports: tuple[int, int]) -> None:
    service = arke.Service("thread", port=ports[1], limits=arke.Limits(requests=40))
    barrier_size = 40  # more than asyncio's default executor has threads
    waiting = []

    @service.on_request
    def answer(request: arke.Request) -> bytes:
        waiting.append(request)
        deadline = time.monotonic() + LIMIT
        while len(waiting) < barrier_size and time.monotonic() < deadline:
            time.sleep(0.001)
        return str(len(waiting) >= barrier_size).encode()

    async with service, arke.connect(port=ports[0]) as mesh:
        await wait_for_members(mesh, "thread", 1)
        calls = (mesh.request("thread", b"", timeout=LIMIT) for _ in range(barrier_size))
        assert set(await asyncio.gather(*calls)) == {b"True"}


async def test_handler_exception_is_a_remote_error_and_the_service_continues(
    ports: tuple[int, int],
) -> None:
    service = arke.Service("picky", port=ports[1])

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        if request.body == b"bad":
            raise LookupError("no such thing")
        return b"fine"

    async with service, arke.connect(port=ports[0]) as mesh:
        await wait_for_members(mesh, "picky", 1)
        with pytest.raises(arke.RemoteError) as caught:
            await mesh.request("picky", b"bad")
        assert (caught.value.type, caught.value.text) == ("LookupError", "no such thing")
        assert await mesh.request("picky", b"good") == b"fine"


async def test_slow_handler_times_out_and_its_late_reply_is_dropped(
    ports: tuple[int, int],
) -> None:
    service = arke.Service("slow", port=ports[1])
    release = asyncio.Event()

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        if request.body == b"wait":
            await release.wait()
        return b"late"

    async with service, arke.connect(port=ports[0]) as mesh:
        await wait_for_members(mesh, "slow", 1)
        with pytest.raises(TimeoutError) as caught:
            await mesh.request("slow", b"wait", timeout=0.2)
        assert isinstance(caught.value, arke.RequestTimeout)
        release.set()
        assert await mesh.request("slow", b"now") == b"late"


async def test_begin_request_has_the_outcomes_of_request(ports: tuple[int, int]) -> None:
    async with echo(ports[1]), arke.connect(port=ports[0]) as mesh:
        await wait_for_members(mesh, "echo", 1)
        bodies = [b"%d" % i for i in range(500)]
        futures = [mesh.begin_request("echo", body, timeout=LIMIT) for body in bodies]
        futures[7].cancel()  # it affects no other request
        unknown = mesh.begin_request("unknown", b"", timeout=LIMIT)
        with pytest.raises(ValueError, match="cluster"):
            mesh.begin_request("", b"")
        for number, outcome in enumerate(futures):
            if number != 7:
                assert await outcome == bodies[number]
        with pytest.raises(arke.NoSuchCluster):
            await unknown
    with pytest.raises(arke.MeshClosed):
        mesh.begin_request("echo", b"")


async def test_request_to_an_empty_cluster_raises_at_once(ports: tuple[int, int]) -> None:
    async with arke.connect(port=ports[0]) as mesh:
        # A relay that just started waits for its peers' directories first, 2 s at most.
        with pytest.raises(arke.NoSuchCluster):
            await mesh.request("unknown", b"", timeout=LIMIT)
        began = time.monotonic()
        with pytest.raises(arke.NoSuchCluster):
            await mesh.request("unknown", b"", timeout=LIMIT)
        assert time.monotonic() - began < LIMIT / 10  # long before its timeout


async def test_body_over_the_limit_raises_before_sending(relays: Relays) -> None:
    relay = relays.start("-max-message", "1000")
    async with echo(relay.port), arke.connect(port=relay.port) as mesh:
        with pytest.raises(arke.MessageTooLarge):
            await mesh.request("echo", bytes(1001))
        with pytest.raises(arke.MessageTooLarge):
            await mesh.broadcast("echo", bytes(1001))
        with pytest.raises(arke.MessageTooLarge):
            await mesh.publish("topic", bytes(1001))
        assert await mesh.request("echo", bytes(1000)) == bytes(1000)


async def test_request_refused_by_a_full_member_is_retried(relays: Relays) -> None:
    relay = relays.start()
    blocked = asyncio.Event()
    busy = arke.Service("work", port=relay.port, limits=arke.Limits(requests=1, request_bytes=1))
    free = arke.Service("work", port=relay.port)

    running = asyncio.Event()

    @busy.on_request
    async def hold(request: arke.Request) -> bytes:
        running.set()
        await blocked.wait()
        return b"busy"

    @free.on_request
    async def answer(request: arke.Request) -> bytes:
        return b"free"

    async with busy, arke.connect(port=relay.port) as mesh:
        # One request runs and one is queued; then the member is full.
        held = [asyncio.ensure_future(mesh.request("work", b"", timeout=LIMIT))]
        await running.wait()
        held.append(asyncio.ensure_future(mesh.request("work", b"", timeout=LIMIT)))
        await asyncio.sleep(0)
        with pytest.raises(arke.Overloaded):
            await mesh.request("work", b"", timeout=LIMIT)
        async with free:
            replies = [await mesh.request("work", b"", timeout=LIMIT) for _ in range(20)]
            assert set(replies) == {b"free"}
            blocked.set()
            assert await asyncio.gather(*held) == [b"busy", b"busy"]


async def test_cancelled_request_leaves_no_state(relays: Relays) -> None:
    relay = relays.start()
    service = arke.Service("stuck", port=relay.port)
    running = asyncio.Event()
    forever = asyncio.Event()

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        running.set()
        await forever.wait()
        return b""

    async with service, arke.connect(port=relay.port) as mesh:
        call = asyncio.ensure_future(mesh.request("stuck", b"", timeout=LIMIT))
        await running.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert len(mesh.runtime.requests.pending) == 0
        forever.set()
        # The relay drains at once: no request is pending there.
        relay.process.terminate()
        assert relay.process.wait(LIMIT) == 0
        assert "requests=0" in relay.process.log


async def test_nested_requests_inherit_deadline_and_traceparent(relays: Relays) -> None:
    relay = relays.start()
    inner = arke.Service("inner", port=relay.port)
    outer = arke.Service("outer", port=relay.port)

    @inner.on_request
    async def tell(request: arke.Request) -> bytes:
        return f"{request.remaining():.1f} {request.headers['traceparent']}".encode()

    @outer.on_request
    async def ask(request: arke.Request) -> bytes:
        return await request.mesh.request("inner", b"", timeout=1000.0)

    async with inner, outer, arke.connect(port=relay.port) as mesh:
        headers = {"traceparent": "00-abc-def-01"}
        reply = await mesh.request("outer", b"", timeout=10.0, headers=headers)
        remaining, trace = reply.decode().split()
        assert float(remaining) <= 10.0
        assert trace == "00-abc-def-01"


async def test_nested_requests_beyond_any_thread_pool(relays: Relays) -> None:
    relay = relays.start()
    service = arke.Service("deep", port=relay.port)

    @service.on_request
    async def dig(request: arke.Request) -> bytes:
        depth = int(request.body)
        if depth == 0:
            return b"bottom"
        return await request.mesh.request("deep", str(depth - 1).encode(), timeout=LIMIT)

    async with service, arke.connect(port=relay.port) as mesh:
        calls = (mesh.request("deep", b"20", timeout=LIMIT) for _ in range(10))
        assert set(await asyncio.gather(*calls)) == {b"bottom"}


@pytest.mark.parametrize("bad", ["", "x" * 256, "ü" * 128, 7])
async def test_invalid_name_raises_at_the_sender(relays: Relays, bad: str) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh:
        with pytest.raises(ValueError, match="must be text of 1 to 255 bytes"):
            await mesh.request(bad, b"")
        with pytest.raises(ValueError, match="must be text of 1 to 255 bytes"):
            mesh.subscribe(bad)


async def test_requests_are_balanced_over_members_and_nodes(relays: Relays) -> None:
    one, other = relays.start_pair()
    counts: dict[str, int] = {}

    def named(name: str, relay: Relay) -> arke.Service:
        service = arke.Service("spread", port=relay.port)
        counts[name] = 0

        @service.on_request
        async def answer(request: arke.Request) -> bytes:
            counts[name] += 1
            return b""

        return service

    async with (
        named("a", one),
        named("b", one),
        named("c", other),
        named("d", other),
        arke.connect(port=one.port) as mesh,
    ):
        await wait_for_members(mesh, "spread", 4)
        for _ in range(400):
            await mesh.request("spread", b"")
    assert sum(counts.values()) == 400
    assert min(counts.values()) > 40
