"""Broadcasts and events between real programs, on one node and across two."""

from __future__ import annotations

import asyncio

import pytest

import arke
from support.relay_status import member_count
from support.relays import Relays
from support.waiting import LIMIT


class BroadcastRecorder:
    """A member that records broadcasts."""

    def __init__(self, port: int, count: int) -> None:
        self.bodies: list[bytes] = []
        self.complete = asyncio.Event()
        self.service = arke.Service("recorders", port=port)

        @self.service.on_broadcast
        async def record(broadcast: arke.Broadcast) -> None:
            self.bodies.append(broadcast.body)
            if len(self.bodies) == count:
                self.complete.set()


async def wait_for_subscribers(mesh: arke.Mesh, topic: str, count: int = 1) -> None:
    async with asyncio.timeout(LIMIT):
        while sum((await mesh.status())["topics"].get(topic, {}).values()) != count:
            await asyncio.sleep(0.01)


async def test_every_member_receives_every_broadcast_in_order(ports: tuple[int, int]) -> None:
    bodies = [b"%d" % i * (100_000 if i % 50 == 7 else 1) for i in range(500)]
    recorders = [BroadcastRecorder(ports[i % 2], len(bodies)) for i in range(4)]
    async with (
        recorders[0].service,
        recorders[1].service,
        recorders[2].service,
        recorders[3].service,
        arke.connect(port=ports[0]) as mesh,
    ):
        async with asyncio.timeout(LIMIT):
            while await member_count(mesh, "recorders") != 4:
                await asyncio.sleep(0.01)
            for body in bodies:
                await mesh.broadcast("recorders", body)
            for recorder in recorders:
                await recorder.complete.wait()
    for recorder in recorders:
        assert recorder.bodies == bodies


async def test_every_subscriber_receives_every_event_in_order(ports: tuple[int, int]) -> None:
    bodies = [b"%d" % i * (100_000 if i % 50 == 7 else 1) for i in range(500)]
    async with (
        arke.connect(port=ports[0]) as sender,
        arke.connect(port=ports[1]) as reader,
        reader.subscribe("news") as events,
        sender.subscribe("news") as echo,
    ):
        await wait_for_subscribers(sender, "news", 2)
        for body in bodies:
            await sender.publish("news", body, headers={"kind": "test"})
        for subscription in (events, echo):
            got = []
            async with asyncio.timeout(LIMIT):
                async for event in subscription:
                    assert event.topic == "news"
                    assert event.headers == {"kind": "test"}
                    assert event.sender.startswith(sender.node.id)
                    got.append(event.body)
                    if len(got) == len(bodies):
                        break
            assert got == bodies
            assert subscription.dropped == 0


async def test_unsubscribe_stops_events_and_subscriptions_of_a_topic_are_shared(
    relays: Relays,
) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh:
        async with mesh.subscribe("a") as one:
            async with mesh.subscribe("a") as two:
                await mesh.publish("a", b"1")
                assert (await anext(one)).body == (await anext(two)).body == b"1"
            await mesh.publish("a", b"2")
            assert (await anext(one)).body == b"2"
        assert (await mesh.status())["topics"] == {}
        assert [event async for event in one] == []


async def test_closing_the_mesh_ends_subscriptions(relays: Relays) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh, mesh.subscribe("a") as events:
        reading = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        await mesh.close()
        with pytest.raises(StopAsyncIteration):
            async with asyncio.timeout(LIMIT):
                await reading


async def test_broadcast_without_receivers_is_no_error(relays: Relays) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh:
        await mesh.broadcast("unknown", b"x")
        await mesh.publish("nothing", b"x")
        assert (await mesh.status())["programs"] == 1


async def test_broadcast_handler_that_raises_does_not_stop_the_service(relays: Relays) -> None:
    relay = relays.start()
    service = arke.Service("fragile", port=relay.port)
    received = asyncio.Event()

    @service.on_broadcast
    async def record(broadcast: arke.Broadcast) -> None:
        if broadcast.body == b"bad":
            raise RuntimeError("no")
        received.set()

    async with service, arke.connect(port=relay.port) as mesh:
        await mesh.broadcast("fragile", b"bad")
        await mesh.broadcast("fragile", b"good")
        async with asyncio.timeout(LIMIT):
            await received.wait()


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, 65_536])
async def test_consecutive_broadcasts_of_any_size_arrive_separately(
    ports: tuple[int, int], size: int
) -> None:
    """Small bodies share a message on the wire; receivers see separate broadcasts."""
    bodies = [bytes([i]) * size for i in range(100)]
    recorders = BroadcastRecorder(ports[1], len(bodies))
    async with (
        recorders.service,
        arke.connect(port=ports[0]) as mesh,
        arke.connect(port=ports[1]) as reader,
        reader.subscribe("a") as one,
        reader.subscribe("b") as other,
    ):
        await wait_for_subscribers(mesh, "a")
        await wait_for_subscribers(mesh, "b")
        async with asyncio.timeout(LIMIT):
            while await member_count(mesh, "recorders") != 1:
                await asyncio.sleep(0.01)
            for i, body in enumerate(bodies):
                await mesh.broadcast("recorders", body)
                await mesh.publish("b" if i % 3 == 0 else "a", body)
            await recorders.complete.wait()
            assert recorders.bodies == bodies
            assert [(await anext(other)).body for _ in bodies[::3]] == bodies[::3]
            rest = [body for i, body in enumerate(bodies) if i % 3]
            assert [(await anext(one)).body for _ in rest] == rest
