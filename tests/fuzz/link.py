"""The SDK's codec with an untrusted relay, from the WELCOME message on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from unittest.mock import patch

from msgpack import packb

import arke
from arke.runtime import relay_connection as link
from arke.wire.limits import CHUNK, MIN_WINDOW
from arke.wire.messages import VERSION, Op
from arke_relay.attachments.protocol_detection import ProtocolDetector
from fuzz.finding import require
from fuzz.grammar import relayed_messages
from fuzz.message_boundaries import MessageBoundaries
from fuzz.mutator import Mutator
from fuzz.script import steps
from fuzz.simulated_loop import SimulatedLoop, SimulatedTransport
from fuzz.target import Target
from fuzz.world import MAX_INBOX, MAX_OUTBOX, World, check_inbox, check_outbox, small_limits

# Events: actions of the program, and faults of its relay.
SEND_REQUEST = 0x10
OPEN_TUNNEL = 0x11
SUBSCRIBE = 0x12
WATCH = 0x13
PUBLISH_EVENT = 0x14
PASS_1_SECOND = 0x15
STOP_READING = 0x16
RESUME_READING = 0x17
REPLACE_RELAY = 0x18  # the connection breaks, and the program attaches again
PRESET_MESSAGES = {
    0x20: (Op.CHUNK, 0, 2 * CHUNK, bytes(CHUNK)),
    0x21: (Op.CHUNK, 1, CHUNK + 1, bytes(CHUNK)),
    0x22: (Op.DELIVER_REQUEST, 1, bytes(CHUNK), 1000, 1, "x", None),
    0x23: (Op.DATA, 1, CHUNK, bytes(CHUNK)),
    0x24: (Op.OFFER, 1, b"", 60_000, 1, 0, MIN_WINDOW, MIN_WINDOW, "x", None),
}
_PACKED_PRESETS = {number: packb(tuple(message)) for number, message in PRESET_MESSAGES.items()}
_CLUSTER = "s"
_LIMITS = arke.Limits(window=MIN_WINDOW, max_message=256 * 1024)
_TOKEN = 4711
_ZEROS = 512 * 1024
logging.getLogger("arke").setLevel(logging.CRITICAL)


class ServiceUnderTest:
    """A service that is attached to an untrusted relay, and at the end to a valid one."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.valid_relay: World | None = None
        self.relay: SimulatedTransport | None = None
        """The program's side of its connection."""
        self.boundaries = MessageBoundaries()
        self._far: SimulatedTransport | None = None
        self.tasks: set[asyncio.Task[object]] = set()
        self.service = arke.Service(_CLUSTER, limits=_LIMITS, port=1)
        self.service.on_request(_answer)
        self.service.on_broadcast(_ignore_broadcast)
        self.service.on_tunnel(_echo)
        loop.dial = self._dial

    @property
    def mesh(self) -> arke.Mesh:
        return self.service.mesh

    def _dial(self, protocol: asyncio.Protocol) -> None:
        self.relay = SimulatedTransport(self.loop, protocol)
        if self.valid_relay is not None:
            self._far = SimulatedTransport(
                self.loop, ProtocolDetector(self.valid_relay.context, self.loop)
            )
            return
        self.boundaries = MessageBoundaries()
        self.loop.call_soon(self.feed, _welcome())

    def feed(self, data: bytes) -> None:
        if self.relay is not None and not self.relay.is_closing():
            self.relay.feed(data)
            self.boundaries.follow(data)

    async def rest(self) -> None:
        await self.loop.rest()
        self.check_bounds()
        while self.valid_relay is not None and self._forward():
            await self.valid_relay.rest()

    def _forward(self) -> bool:
        """Forward bytes between the program and the valid relay."""
        near, far = self.relay, self._far
        if near is None or far is None:
            return False
        passed = bytes(near.received), bytes(far.received)
        near.received.clear()
        far.received.clear()
        if passed[0]:
            far.feed(passed[0])
        if passed[1]:
            near.feed(passed[1])
        return any(passed)

    async def later(self, seconds: float) -> None:
        self.loop.now += seconds
        await self.rest()

    def start(self, doing: Awaitable[object]) -> None:
        self.tasks.add(asyncio.ensure_future(doing))

    def check_bounds(self) -> None:
        assert self.relay
        protocol = self.relay.protocol
        if isinstance(protocol, link.RelayConnection) and not self.relay.is_closing():
            check_outbox(protocol._outbox)
            check_inbox(protocol._reassembler, MAX_INBOX * 4)
        serving = self.service._dispatcher
        for tunnel in serving.tunnels.running.values() if serving else ():
            held = sum(len(data) for data, _, _ in tunnel._received) + len(tunnel._partial)
            pieces = len(tunnel._received)
            require(held <= _LIMITS.max_message + 2 * CHUNK, f"{held} bytes wait in a tunnel")
            require(pieces <= MIN_WINDOW, f"{pieces} pieces wait in a tunnel")

    async def check_alive(self) -> None:
        """Check that the program answers a ping, or has closed the connection."""
        assert self.relay
        self.relay.unblock_writes()
        await self.rest()
        if self.relay.is_closing():
            return
        if self.boundaries.at_boundary:
            self.relay.received.clear()
            self.feed(packb((int(Op.PING), _TOKEN)))
            await self.rest()
            pong = packb((int(Op.PONG), _TOKEN))
            require(pong in self.relay.received, "a ping was not answered")
        else:
            for _ in range(_ZEROS // CHUNK):
                self.feed(bytes(CHUNK))
                await self.rest()
            require(self.relay.is_closing(), "zeros are accepted as messages")

    async def check_with_valid_relay(self) -> None:
        """Check that the program handles and makes requests at a valid relay."""
        world = self.valid_relay = World(self.loop)
        assert self.relay
        self.relay.disconnect()
        for _ in range(8):
            await self.later(1.0)
            if self.mesh.attached:
                break
        require(self.mesh.attached, "the program did not attach again")
        await self.rest()
        request_id = world.client.send_request(_CLUSTER, b"are you there?")
        await self.rest()
        await world.rest()
        await self.rest()
        answer = world.client.answers.get(request_id)
        require(answer == b"are you there?", f"the service answered {answer!r:.100}")
        reply = asyncio.ensure_future(self.mesh.request("c", b"and you?", timeout=1e5))
        await self.rest()
        await self.rest()
        require(reply.done() and reply.result() == b"and you?", "a request was not answered")

    async def stop(self, serving: asyncio.Task[None], stopped: asyncio.Event) -> None:
        """Stop the service; every task must end, with success or an ArkeError."""
        stopped.set()
        for _ in range(12):
            await self.later(10.0)
            if serving.done():
                break
        require(serving.done(), "the service does not stop")
        serving.result()
        await self.later(10.0)
        for task in self.tasks:
            require(task.done(), "a task of the program hangs")
            error = task.exception()
            if error is not None and not isinstance(error, arke.ArkeError):
                raise error


def _welcome() -> bytes:
    """WELCOME, and the PONG messages for which a program waits after it registers."""
    pongs = [packb((int(Op.PONG), token)) for token in range(1, 9)]
    welcome = packb((int(Op.WELCOME), VERSION, "node", "10.1.1.1", "net", 1 << 20))
    return b"".join((welcome, *pongs))


async def _answer(request: arke.Request) -> bytes:
    return request.body[:CHUNK]


async def _ignore_broadcast(broadcast: arke.Broadcast) -> None:
    del broadcast


async def _echo(tunnel: arke.Tunnel) -> None:
    async for message in tunnel:
        await tunnel.send(message)


async def _open(mesh: arke.Mesh) -> None:
    async with mesh.tunnel("x", timeout=1e5, window=MIN_WINDOW) as tunnel:
        await tunnel.send(b"first")
        async for _ in tunnel:
            pass


async def _listen(mesh: arke.Mesh) -> None:
    async with mesh.subscribe("t") as events:
        async for _ in events:
            pass


async def _watch(mesh: arke.Mesh) -> None:
    async for _ in mesh.watch("c"):
        pass


_ACTIONS: dict[int, Callable[[arke.Mesh], Awaitable[object]]] = {
    SEND_REQUEST: lambda mesh: mesh.request("x", b"question", timeout=1e5),
    OPEN_TUNNEL: _open,
    SUBSCRIBE: _listen,
    WATCH: _watch,
    PUBLISH_EVENT: lambda mesh: mesh.publish("t", b"event"),
}


async def run(loop: SimulatedLoop, data: bytes) -> None:
    with small_limits(), patch.object(link, "_OUTBOX", MAX_OUTBOX):
        service = ServiceUnderTest(loop)
        stopped = asyncio.Event()
        serving = asyncio.ensure_future(service.service._serve(stopped))
        await service.rest()
        for reads, event_number in steps(data):
            for data in reads:
                service.feed(data)
            await service.rest()
            await _handle_event(service, event_number)
        await service.check_alive()
        await service.check_with_valid_relay()
        await service.stop(serving, stopped)


async def _handle_event(service: ServiceUnderTest, event_number: int) -> None:
    assert service.relay
    if event_number in _PACKED_PRESETS:
        service.feed(_PACKED_PRESETS[event_number])
    elif event_number in _ACTIONS and len(service.tasks) < 16:
        service.start(_ACTIONS[event_number](service.mesh))
    elif event_number == PASS_1_SECOND:
        await service.later(1.0)
    elif event_number == STOP_READING:
        service.relay.block_writes()
    elif event_number == RESUME_READING:
        service.relay.unblock_writes()
    elif event_number == REPLACE_RELAY:
        service.relay.disconnect()
        await service.later(2.0)
    await service.rest()


TARGET = Target(
    run,
    Mutator(
        relayed_messages, (*_ACTIONS, *range(PASS_1_SECOND, REPLACE_RELAY + 1), *PRESET_MESSAGES)
    ),
)
