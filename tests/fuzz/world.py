"""One relay without sockets, two honest programs at it, and room for somebody who is not.

The relay's bounds are small here: what an input can send in a moment must be able to reach them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from unittest.mock import patch

from arke.program.logging import Log
from arke.wire import outbox
from arke.wire.limits import CHUNK, MAX_HEADERS, MAX_STREAMS, MAX_TUNNELS
from arke.wire.messages import Op
from arke.wire.reassembly import Reassembler
from arke_relay.attachments.build import build_attachments
from arke_relay.attachments.connection import ProgramConnection
from arke_relay.attachments.iris import connection as iris
from arke_relay.attachments.native import connection as native
from arke_relay.core import router
from arke_relay.core.endpoints import Endpoint
from arke_relay.core.message_core import MessageCore
from arke_relay.environment import RelayEnvironment
from arke_relay.flusher import Flusher
from fuzz.finding import Finding, promise
from fuzz.loop import FakeLoop
from fuzz.program import HonestProgram

OUTBOX = 256 * 1024
RESERVE = 64 * 1024
INBOX = 512 * 1024
MAX_MESSAGE = 256 * 1024
HELD = 512 * 1024
NODE = "aaaaaaaaaaaaaaaa"
PARTS = 1024 * 1024
MOST_WAITING = OUTBOX + RESERVE + PARTS + MAX_MESSAGE + 4 * CHUNK
"""What may wait for one receiver: all but the last message is within the bounds."""
CLUSTER = "c"
TOPIC = "t"

# Events that every target with a world understands.
ASKED = 0x10  # a program asks the clusters that the guest may serve
OFFERED = 0x11  # and opens tunnels to them
TOLD = 0x12  # and tells everybody
LATER = 0x15  # a second passes
MUCH_LATER = 0x16
MEMBER_STALLED = 0x18  # the innocent member reads nothing more, as long as that is borne
MEMBER_GOING_ON = 0x19
HAPPENINGS = (ASKED, OFFERED, TOLD, LATER, MUCH_LATER, MEMBER_STALLED, MEMBER_GOING_ON)

_GUESTS = "d"  # a cluster that only guests serve
_ROUNDS = 1_000
_STALL = 12
"""Ticks of the registry in which the member may read nothing. Each counts as 1.25 s at most, and
with the 10 s before a ping they stay below the silence after which a program is given up."""
_OVERHEAD = 48  # octets that Python needs for each
_LOG = Log(logging.getLogger("arke fuzz"))
logging.getLogger("arke fuzz").setLevel(logging.CRITICAL)


@contextmanager
def small_bounds() -> Iterator[None]:
    with (
        patch.object(native, "MAX_QUEUED", OUTBOX),
        patch.object(native, "_MAX_PARTIAL_BYTES", INBOX),
        patch.object(iris, "MAX_QUEUED", OUTBOX),
        patch.object(outbox, "_CONTROL_RESERVE", RESERVE),
        patch.object(outbox, "_MAX_TUNNEL_BYTES", PARTS),
        patch.object(router, "HELD_LIMIT", HELD),
    ):
        yield


class World:
    """A relay that is settled, a member of the cluster `c` who hears `t`, and a client."""

    def __init__(self, loop: FakeLoop) -> None:
        self.loop = loop
        self.core = MessageCore(NODE, Random(0).random)
        self.core.router.settled = True
        self.flusher = Flusher()
        self.context = build_attachments(
            RelayEnvironment(
                loop=loop,
                clock=loop.time,
                lifetime_clock=loop.time,
                random=Random(0).random,
                random_bytes=Random(0).randbytes,
                log=_LOG,
            ),
            self.core,
            self.flusher,
            network="net",
            max_message=MAX_MESSAGE,
            status_document=lambda: b"{}",
        )
        self.registry = self.context.registry
        self.member = HonestProgram(self.context, loop, "member")
        self.client = HonestProgram(self.context, loop, "client")
        self.member.say(Op.REGISTER, CLUSTER, None)
        self.member.say(Op.SUBSCRIBE, TOPIC)
        self.client.say(Op.WATCH, CLUSTER)
        self.innocents = (self.member, self.client)
        self._looks = 0
        """Of the registry, since the member stalled."""

    async def rest(self) -> None:
        """Until nobody has anything left to say."""
        for _ in range(_ROUNDS):
            await self.loop.rest()
            awake = [each for each in self.innocents if not each.transport.stalled]
            if not sum(each.react() for each in awake):
                self.check_bounds()
                return
        promise(False, "the programs of this relay never come to rest")

    async def happen(self, number: int) -> None:
        """One of the happenings; other numbers are for others."""
        client, member = self.client, self.member
        if number == ASKED:
            for cluster in (CLUSTER, _GUESTS):
                client.ask(cluster)
        elif number == OFFERED:
            for cluster in (CLUSTER, _GUESTS):
                client.send(client.open(cluster), b"first")
        elif number == TOLD:
            client.say(Op.BROADCAST, CLUSTER, b"told", None)
            client.say(Op.PUBLISH, TOPIC, b"event", {"h": "v"})
        elif number == MEMBER_STALLED:
            if not member.transport.stalled:
                self._looks = 0
            member.transport.stall()
        elif number == MEMBER_GOING_ON:
            member.transport.go_on()
        elif number in {LATER, MUCH_LATER}:
            await self.pass_time(1.0 if number == LATER else 20.0)
        await self.rest()

    async def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        self.core.router.expire(self.loop.now)
        self.context.keepalive.tick(self.loop.now)
        self.flusher.flush()
        self._looks += 1
        if self._looks >= _STALL:
            self.member.transport.go_on()
        await self.rest()

    def check_bounds(self) -> None:
        """Nobody makes the relay hold more than it is willing to."""
        for endpoint in (*self.core.programs.by_number.values(), *self.core.peers.by_node.values()):
            check_endpoint(endpoint)
        for each in list(self.registry.connections):
            check_connection(each)
        for each in list(self.context.keepalive._closing):
            check_connection(each)

    async def check_innocents(self) -> None:
        """They still reach one another, by request and by tunnel, and then nothing is left."""
        self._check_tunnels()
        for each in self.innocents:
            each.transport.go_on()
        await self.rest()
        self._end_tunnels()
        await self.pass_time(3600.0)
        promise(not self.client.open_calls, "a call outlived its deadline")
        call = self.client.ask(CLUSTER, b"are you there?")
        tunnel = self.client.open(CLUSTER)
        await self.rest()
        answer = self.client.answers.get(call)
        promise(answer == b"are you there?", f"an innocent's call was answered by {answer!r:.200}")
        promise(tunnel in self.client.tunnels, "an innocent's tunnel was not opened")
        self.client.send(tunnel, b"echo")
        await self.rest()
        promise(b"echo" in self.client.echoed.get(tunnel, b""), "a tunnel brought nothing back")
        self._end_tunnels()
        await self.rest()
        self.check_empty()
        for each in self.innocents:
            each.transport.cut()
        await self.loop.rest()
        core = self.core
        left = (core.programs.by_number, core.directory.clusters, core.directory.watchers)
        promise(not any(left), f"left in the tables: {left!r:.200}")
        promise(self.registry._topics == 0, "topics were not counted right")
        promise(not self.registry.connections, "a connection was left")
        promise(not self.context.keepalive._closing, "a closing connection was left")
        promise(not self.context.handshakes._pending, "a pending handshake was left")
        promise(self.loop.timers == 0, "a timer was left")

    def _end_tunnels(self) -> None:
        for each in self.innocents:
            for tunnel in list(each.tunnels):
                each.end(tunnel)

    def _check_tunnels(self) -> None:
        endpoints = (*self.core.programs.by_number.values(), *self.core.peers.by_node.values())
        for endpoint in endpoints:
            for end in endpoint.tunnels.values():
                promise(end.other.endpoint in endpoints, "a tunnel leads to somebody who is gone")

    def check_empty(self) -> None:
        """No call is open, and no tunnel: no table may know of any."""
        core = self.core
        promise(len(core.router) == 0, "a call was left with the router")
        for endpoint in (*core.programs.by_number.values(), *core.peers.by_node.values()):
            left = (*endpoint.requests, *endpoint.tunnels)
            if left or endpoint.held_bytes:
                raise Finding(
                    f"{left} and {endpoint.held_bytes} octets were left with {endpoint!r}"
                )
        for cluster in core.directory.clusters.values():
            for candidate in cluster.candidates.values():
                promise(not candidate.outstanding, "work is counted that nobody does")


def check_endpoint(endpoint: Endpoint) -> None:
    """What is kept for its calls, and how many tunnels it has."""
    held = sum(len(call.body) + _octets_of(call.headers) for call in endpoint.requests.values())
    if held > HELD + MAX_MESSAGE + MAX_HEADERS:
        raise Finding(f"{held} octets are held for {endpoint!r}")
    promise(len(endpoint.tunnels) <= MAX_TUNNELS, "a endpoint has too many tunnels")


def check_connection(connection: ProgramConnection) -> None:
    check_outbox(connection._outbox)
    if isinstance(connection, native.NativeConnection):
        check_inbox(connection._inbox, INBOX)


def check_outbox(box: outbox.Outbox) -> None:
    """In octets, and in what Python needs for each message beside them."""
    waiting = len(box._ready) + sum(map(len, box._flows.values()))
    cost = box.size + _OVERHEAD * waiting
    if cost > MOST_WAITING:
        raise Finding(f"{waiting} messages of {box.size} octets wait for one receiver")


def check_inbox(inbox: Reassembler, limit: int) -> None:
    held = sum(len(half.body) for half in inbox._streams.values() if half.body is not None)
    if not held <= inbox.size <= limit:
        raise Finding(f"{held} octets are half received, {inbox.size} counted")
    promise(len(inbox._streams) <= MAX_STREAMS, "more streams than anybody may have")


def _octets_of(headers: object) -> int:
    if not isinstance(headers, dict):
        return 0
    return sum(len(name) + len(text) for name, text in headers.items())
