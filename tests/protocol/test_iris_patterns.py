"""Iris programs and native ones serve each other, on one node and across two."""

from __future__ import annotations

import asyncio
import time

import pytest

import arke
from support.iris_client import Handlers, IrisFault, IrisTimeout, iris_program
from support.iris_packets import Op
from support.protocol_pairs import ECHO, FAULT, NO_MEMBERS, TIMEOUT, ProtocolPair, program
from support.raw_iris import raw_iris
from support.relay_status import wait_for_members
from support.relays import Relay, Relays
from support.waiting import LIMIT, wait_until_async

MIB = 1024 * 1024


# Requests.


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 5 * MIB, 16 * MIB])
async def test_bodies_of_every_size_are_echoed(ends: ProtocolPair, size: int) -> None:
    body = (bytes(range(251)) * (size // 251 + 1))[:size]
    async with ends.connected_caller(ECHO) as caller:
        assert await caller.request(ends.cluster, body) == body


async def test_many_concurrent_requests_get_their_own_replies(ends: ProtocolPair) -> None:
    bodies = [f"{i}".encode() * (1 + i % 50) for i in range(1_000)]
    async with ends.connected_caller(ECHO) as caller:
        replies = await asyncio.gather(*(caller.request(ends.cluster, body) for body in bodies))
    assert replies == bodies


async def test_text_of_a_handler_error_reaches_the_caller(ends: ProtocolPair) -> None:
    async def fail(body: bytes) -> bytes:
        if body == b"bad":
            raise LookupError("no räkor")
        return body

    async with ends.connected_caller(Handlers(fail)) as caller:
        with pytest.raises(FAULT[ends.caller], match="no räkor"):
            await caller.request(ends.cluster, b"bad")
        assert await caller.request(ends.cluster, b"good") == b"good"


async def test_late_reply_to_a_timed_out_request_is_dropped(
    ends: ProtocolPair,
) -> None:
    release = asyncio.Event()

    async def answer(body: bytes) -> bytes:
        if body == b"wait":
            await release.wait()
        return b"late"

    async with ends.connected_caller(Handlers(answer)) as caller:
        with pytest.raises(TIMEOUT[ends.caller]):
            await caller.request(ends.cluster, b"wait", 0.2)
        release.set()
        for _ in range(3):
            assert await caller.request(ends.cluster, b"now") == b"late"


async def test_request_to_an_empty_cluster_fails_at_once(ends: ProtocolPair) -> None:
    async with program(ends.caller, ends.caller_relay.port) as caller:
        began = time.monotonic()
        with pytest.raises(NO_MEMBERS[ends.caller]):
            await caller.request("unknown", b"x", LIMIT)
        with pytest.raises(NO_MEMBERS[ends.caller]):
            async with caller.tunnel("unknown", LIMIT):
                pass
        # A relay that just started waits for its peers' directories first, 2 s at most.
        assert time.monotonic() - began < LIMIT / 2


async def test_death_of_a_member_fails_its_requests_at_once(nodes: tuple[Relay, Relay]) -> None:
    running = asyncio.Event()

    async def hang(_: bytes) -> bytes:
        running.set()
        await asyncio.Event().wait()
        raise AssertionError

    ends = ProtocolPair("iris", "iris", *nodes)
    async with (
        raw_iris(ends.member_relay.port, ends.cluster) as member,
        iris_program(ends.caller_relay.port) as caller,
        arke.connect(port=ends.caller_relay.port) as native,
    ):
        await wait_for_members(native, ends.cluster, 1)
        calls = [
            asyncio.ensure_future(caller.request(ends.cluster, b"x")),
            asyncio.ensure_future(native.request(ends.cluster, b"x", timeout=LIMIT)),
        ]
        for _ in calls:
            await member.receive_only(Op.REQUEST)
        member.writer.transport.abort()
        with pytest.raises(IrisFault, match="member"):
            await calls[0]
        with pytest.raises(arke.MemberLost):
            await calls[1]


async def test_iris_caller_gets_the_reason_of_a_refused_request(nodes: tuple[Relay, Relay]) -> None:
    ends = ProtocolPair("iris", "native", *nodes)
    async with ends.connected_caller(Handlers()) as caller:
        with pytest.raises(IrisFault, match="no request handler"):
            await caller.request(ends.cluster, b"x")
        with pytest.raises(IrisTimeout):
            async with caller.tunnel(ends.cluster):
                pass


async def test_member_gets_the_remaining_time_of_a_request(nodes: tuple[Relay, Relay]) -> None:
    ends = ProtocolPair("native", "iris", *nodes)
    async with (
        raw_iris(ends.member_relay.port, ends.cluster) as member,
        arke.connect(port=ends.caller_relay.port) as native,
    ):
        await wait_for_members(native, ends.cluster, 1)
        call = asyncio.ensure_future(native.request(ends.cluster, b"x", timeout=20.0))
        _, number, body, left = await member.receive()
        assert body == b"x"
        assert 15_000 < left <= 20_000 + 10  # each relay rounds up
        await member.send_packet(Op.REPLY, number, b"y")
        assert await call == b"y"


async def test_requests_are_spread_over_members_of_both_protocols(
    nodes: tuple[Relay, Relay],
) -> None:
    counts = dict.fromkeys(("iris", "native"), 0)

    def counting(kind: str) -> Handlers:
        async def answer(body: bytes) -> bytes:
            counts[kind] += 1
            return body

        return Handlers(answer)

    ends = ProtocolPair("iris", "native", *nodes)
    async with (
        ends.connected_caller(counting("native")) as caller,
        iris_program(ends.caller_relay.port, ends.cluster, counting("iris")),
        arke.connect(port=ends.caller_relay.port) as observer,
    ):
        await wait_for_members(observer, ends.cluster, 2)
        for _ in range(200):
            await caller.request(ends.cluster, b"x")
    assert sum(counts.values()) == 200
    assert min(counts.values()) > 40


# Broadcasts and events.


async def test_broadcasts_reach_every_member_and_the_sender_in_order(
    ends: ProtocolPair,
) -> None:
    bodies = [b"%d" % i * (70_000 if i % 50 == 7 else 1) for i in range(300)]
    async with (
        program(ends.caller, ends.caller_relay.port, ends.cluster) as sender,
        program(ends.member, ends.member_relay.port, ends.cluster) as other,
        program(ends.member, ends.caller_relay.port, ends.cluster) as third,
        arke.connect(port=ends.caller_relay.port) as observer,
    ):
        await wait_for_members(observer, ends.cluster, 3)
        for body in bodies:
            await sender.broadcast(ends.cluster, body)
        for member in (sender, other, third):
            assert [await member.next_broadcast() for _ in bodies] == bodies


async def test_events_reach_every_subscriber_and_the_publisher_in_order(
    ends: ProtocolPair,
) -> None:
    topic = ends.cluster
    bodies = [b"%d" % i * (70_000 if i % 50 == 7 else 1) for i in range(300)]
    async with (
        program(ends.caller, ends.caller_relay.port) as sender,
        program(ends.member, ends.member_relay.port) as reader,
        arke.connect(port=ends.caller_relay.port) as observer,
    ):
        for each in (sender, reader):
            await each.subscribe(topic)

        async def both() -> bool:
            known: dict[str, int] = (await observer.status())["topics"].get(topic, {})
            return sum(known.values()) == 2

        await wait_until_async(both)
        for body in bodies:
            await sender.publish(topic, body)
        for each in (sender, reader):
            assert [await each.next_event() for _ in bodies] == [(topic, body) for body in bodies]


async def test_unsubscribed_topic_delivers_no_events(node: Relay) -> None:
    async with iris_program(node.port) as reader:
        await reader.subscribe("a")
        await reader.subscribe("b")
        await reader.publish("a", b"1")
        assert await reader.next_event() == ("a", b"1")
        await reader.unsubscribe("a")
        await reader.publish("a", b"2")
        await reader.publish("b", b"3")
        assert await reader.next_event() == ("b", b"3")


# Detaching.


async def test_detaching_member_finishes_its_running_requests(ends: ProtocolPair) -> None:
    """The relay waits for its replies, and delivers no new requests."""
    running, release = asyncio.Event(), asyncio.Event()

    async def answer(_: bytes) -> bytes:
        running.set()
        await release.wait()
        return b"done"

    ends.member = "iris"
    async with (
        iris_program(ends.member_relay.port, ends.cluster, Handlers(answer)) as member,
        program(ends.caller, ends.caller_relay.port) as caller,
        arke.connect(port=ends.caller_relay.port) as observer,
    ):
        await wait_for_members(observer, ends.cluster, 1)
        call = asyncio.ensure_future(caller.request(ends.cluster, b"x"))
        await running.wait()
        detach = asyncio.ensure_future(member.detach())
        await wait_for_members(observer, ends.cluster, 0)
        assert not detach.done()
        with pytest.raises(NO_MEMBERS[ends.caller]):
            await caller.request(ends.cluster, b"x")
        release.set()
        await detach
        assert await call == b"done"


async def test_relay_reads_a_detaching_program_until_it_closes(node: Relay) -> None:
    """Closing with unread data would reset the connection and could discard the CLOSE packet."""
    async with raw_iris(node.port, "") as detaching:
        await detaching.send_packet(Op.CLOSE)
        assert await detaching.receive() == (Op.CLOSE, "")
        await detaching.send(bytes(32 * MIB))


async def test_stopping_relay_sends_a_reason_to_iris_programs(relays: Relays) -> None:
    relay = relays.start()
    async with iris_program(relay.port, "work", ECHO) as member:
        assert await member.request("work", b"x") == b"x"
        relay.process.terminate()
        assert await member.wait_until_closed()
        assert relay.process.wait(LIMIT) == 0
