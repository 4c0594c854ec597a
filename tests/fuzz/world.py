"""One relay without sockets with two valid programs; targets add an untrusted program or peer.

The limits of the relay are lower here, so that a short input can reach them.
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
from fuzz.finding import Finding, require
from fuzz.simulated_loop import SimulatedLoop
from fuzz.valid_program import ValidProgram

MAX_OUTBOX = 256 * 1024
CONTROL_RESERVE = 64 * 1024
MAX_INBOX = 512 * 1024
MAX_MESSAGE = 256 * 1024
HELD_BYTES = 512 * 1024
NODE = "aaaaaaaaaaaaaaaa"
TUNNEL_BYTES = 1024 * 1024
MAX_QUEUED_BYTES = MAX_OUTBOX + CONTROL_RESERVE + TUNNEL_BYTES + MAX_MESSAGE + 4 * CHUNK
"""Bytes that may wait for one receiver: the limits, and one message over them."""
CLUSTER = "c"
TOPIC = "t"

# Events of all targets with a world.
SEND_REQUESTS = 0x10  # the client sends requests to the clusters
OPEN_TUNNELS = 0x11  # the client opens tunnels to the clusters
SEND_FANOUT = 0x12  # the client broadcasts and publishes
PASS_1_SECOND = 0x15
PASS_20_SECONDS = 0x16
STALL_MEMBER = 0x18  # the member stops reading, for less than the time-out
RESUME_MEMBER = 0x19
WORLD_EVENTS = (
    SEND_REQUESTS,
    OPEN_TUNNELS,
    SEND_FANOUT,
    PASS_1_SECOND,
    PASS_20_SECONDS,
    STALL_MEMBER,
    RESUME_MEMBER,
)

_UNTRUSTED_CLUSTER = "d"  # a cluster of untrusted programs only
_MAX_ROUNDS = 1_000
_MAX_STALL_TICKS = 9
"""Ticks for which the member may stop reading. Each counts as 2 s of silence at most. With the 10 s
before a PING this stays below the 30 s after which a silent program is disconnected."""
_OVERHEAD = 48  # bytes that Python needs for each message
_LOG = Log(logging.getLogger("arke fuzz"))
logging.getLogger("arke fuzz").setLevel(logging.CRITICAL)


@contextmanager
def small_limits() -> Iterator[None]:
    with (
        patch.object(native, "MAX_QUEUED", MAX_OUTBOX),
        patch.object(native, "_MAX_PARTIAL_BYTES", MAX_INBOX),
        patch.object(iris, "MAX_QUEUED", MAX_OUTBOX),
        patch.object(outbox, "_CONTROL_RESERVE", CONTROL_RESERVE),
        patch.object(outbox, "_MAX_TUNNEL_BYTES", TUNNEL_BYTES),
        patch.object(router, "HELD_LIMIT", HELD_BYTES),
    ):
        yield


class World:
    """A relay, a member of cluster `c` that subscribes to `t`, and a client."""

    def __init__(self, loop: SimulatedLoop, node: str = NODE) -> None:
        self.loop = loop
        self.core = MessageCore(node, Random(0).random)
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
        self.member = ValidProgram(self.context, loop, "member")
        self.client = ValidProgram(self.context, loop, "client")
        self.member.send_message(Op.REGISTER, CLUSTER, None)
        self.member.send_message(Op.SUBSCRIBE, TOPIC)
        self.client.send_message(Op.WATCH, CLUSTER)
        self.valid_programs = (self.member, self.client)
        self._ticks = 0
        """Ticks since the member stopped reading."""

    async def rest(self) -> None:
        """Run until all programs have handled all messages."""
        for _ in range(_MAX_ROUNDS):
            await self.loop.rest()
            reading = [each for each in self.valid_programs if not each.transport.writes_blocked]
            if not sum(each.process_received() for each in reading):
                self.check_bounds()
                return
        require(False, "the programs of this relay never become idle")

    async def handle_event(self, number: int) -> None:
        """Handle one of WORLD_EVENTS; ignore other numbers."""
        client, member = self.client, self.member
        if number == SEND_REQUESTS:
            for cluster in (CLUSTER, _UNTRUSTED_CLUSTER):
                client.send_request(cluster)
        elif number == OPEN_TUNNELS:
            for cluster in (CLUSTER, _UNTRUSTED_CLUSTER):
                client.send(client.open(cluster), b"first")
        elif number == SEND_FANOUT:
            client.send_message(Op.BROADCAST, CLUSTER, b"news", None)
            client.send_message(Op.PUBLISH, TOPIC, b"event", {"h": "v"})
        elif number == STALL_MEMBER:
            if not member.transport.writes_blocked:
                self._ticks = 0
            member.transport.block_writes()
        elif number == RESUME_MEMBER:
            member.transport.unblock_writes()
        elif number in {PASS_1_SECOND, PASS_20_SECONDS}:
            await self.pass_time(1.0 if number == PASS_1_SECOND else 20.0)
        await self.rest()

    async def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        self.core.router.expire(self.loop.now)
        self.context.keepalive.tick(self.loop.now)
        self.flusher.flush()
        self._ticks += 1
        if self._ticks >= _MAX_STALL_TICKS:
            self.member.transport.unblock_writes()
        await self.rest()

    def check_bounds(self) -> None:
        """Check that no buffer of the relay is over its limit."""
        for endpoint in (*self.core.programs.by_number.values(), *self.core.peers.by_node.values()):
            check_endpoint(endpoint)
        for each in list(self.registry.connections):
            check_connection(each)
        for each in list(self.context.keepalive._closing):
            check_connection(each)

    async def check_valid_programs(self) -> None:
        """Check a request and a tunnel between the valid programs, and that nothing is left."""
        self._check_tunnels()
        for each in self.valid_programs:
            each.transport.unblock_writes()
        await self.rest()
        self._end_tunnels()
        await self.pass_time(3600.0)
        require(not self.client.open_requests, "a request is open after its deadline")
        request_id = self.client.send_request(CLUSTER, b"are you there?")
        tunnel = self.client.open(CLUSTER)
        await self.rest()
        answer = self.client.answers.get(request_id)
        require(answer == b"are you there?", f"a valid request got the reply {answer!r:.200}")
        require(tunnel in self.client.tunnels, "the tunnel of a valid program was not opened")
        self.client.send(tunnel, b"echo")
        await self.rest()
        require(b"echo" in self.client.echoed.get(tunnel, b""), "a tunnel returned no data")
        self._end_tunnels()
        await self.rest()
        self.check_empty()
        for each in self.valid_programs:
            each.transport.disconnect()
        await self.loop.rest()
        core = self.core
        left = (core.programs.by_number, core.directory.clusters, core.directory.watchers)
        require(not any(left), f"left in the tables: {left!r:.200}")
        require(self.registry._topics == 0, "topics are counted wrong")
        require(not self.registry.connections, "a connection was left")
        require(not self.context.keepalive._closing, "a closing connection was left")
        require(not self.context.handshakes._pending, "a pending handshake was left")
        require(self.loop.timers == 0, "a timer was left")

    def _end_tunnels(self) -> None:
        for each in self.valid_programs:
            for tunnel in list(each.tunnels):
                each.end(tunnel)

    def _check_tunnels(self) -> None:
        endpoints = (*self.core.programs.by_number.values(), *self.core.peers.by_node.values())
        for endpoint in endpoints:
            for end in endpoint.tunnels.values():
                require(end.other.endpoint in endpoints, "a tunnel leads to a detached endpoint")

    def check_empty(self) -> None:
        """Check that no table has a request or a tunnel."""
        core = self.core
        require(len(core.router) == 0, "a request was left in the router")
        for endpoint in (*core.programs.by_number.values(), *core.peers.by_node.values()):
            left = (*endpoint.requests, *endpoint.tunnels)
            if left or endpoint.held_bytes:
                raise Finding(f"{left} and {endpoint.held_bytes} data were left with {endpoint!r}")
        for cluster in core.directory.clusters.values():
            for candidate in cluster.candidates.values():
                require(not candidate.outstanding, "ended requests count as outstanding")


def check_endpoint(endpoint: Endpoint) -> None:
    """Check the bytes that are held for the endpoint's requests, and its tunnels."""
    held = sum(
        len(request_id.body) + _header_bytes(request_id.headers)
        for request_id in endpoint.requests.values()
    )
    if held > HELD_BYTES + MAX_MESSAGE + MAX_HEADERS:
        raise Finding(f"{held} bytes are held for {endpoint!r}")
    require(len(endpoint.tunnels) <= MAX_TUNNELS, "an endpoint has too many tunnels")


def check_connection(connection: ProgramConnection) -> None:
    check_outbox(connection._outbox)
    if isinstance(connection, native.NativeConnection):
        check_inbox(connection._inbox, MAX_INBOX)


def check_outbox(box: outbox.Outbox) -> None:
    """Check the bytes in the outbox, including Python's overhead for each message."""
    waiting = len(box._ready) + sum(map(len, box._flows.values()))
    cost = box.size + _OVERHEAD * waiting
    if cost > MAX_QUEUED_BYTES:
        raise Finding(f"{waiting} messages of {box.size} bytes wait for one receiver")


def check_inbox(inbox: Reassembler, limit: int) -> None:
    held = sum(len(half.body) for half in inbox._streams.values() if half.body is not None)
    if not held <= inbox.size <= limit:
        raise Finding(f"{held} bytes of partial bodies, counted as {inbox.size}")
    require(len(inbox._streams) <= MAX_STREAMS, "too many streams")


def _header_bytes(headers: object) -> int:
    if not isinstance(headers, dict):
        return 0
    return sum(len(name) + len(text) for name, text in headers.items())
