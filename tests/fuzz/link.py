"""A relay that says anything at all to its program: the SDK's codec, from the welcome on."""

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
from fuzz.finding import promise
from fuzz.grammar import relayed_messages
from fuzz.loop import FakeLoop, FakeTransport
from fuzz.mutator import Mutator
from fuzz.script import steps
from fuzz.shadow import Shadow
from fuzz.target import Target
from fuzz.world import INBOX, OUTBOX, World, check_inbox, check_outbox, small_bounds

# Events: what the program does, and what becomes of its relay.
ASKS = 0x10
OPENS = 0x11
LISTENS = 0x12
WATCHES = 0x13
TELLS = 0x14
LATER = 0x15
STALLED = 0x16
GOING_ON = 0x17
AGAIN = 0x18  # the relay is gone, and another is there
CANNED = {
    0x20: (Op.CHUNK, 0, 2 * CHUNK, bytes(CHUNK)),
    0x21: (Op.CHUNK, 1, CHUNK + 1, bytes(CHUNK)),
    0x22: (Op.DELIVER_REQUEST, 1, bytes(CHUNK), 1000, 1, "x", None),
    0x23: (Op.DATA, 1, CHUNK, bytes(CHUNK)),
    0x24: (Op.OFFER, 1, b"", 60_000, 1, 0, MIN_WINDOW, MIN_WINDOW, "x", None),
}
_PACKED = {number: packb(tuple(message)) for number, message in CANNED.items()}
_CLUSTER = "s"
_LIMITS = arke.Limits(window=MIN_WINDOW, max_message=256 * 1024)
_TOKEN = 4711
_ZEROS = 512 * 1024
logging.getLogger("arke").setLevel(logging.CRITICAL)


class Rig:
    """A service with a relay nobody should trust, and later with a good one."""

    def __init__(self, loop: FakeLoop) -> None:
        self.loop = loop
        self.good: World | None = None
        self.relay: FakeTransport | None = None
        """The program's side of its connection."""
        self.shadow = Shadow()
        self._far: FakeTransport | None = None
        self.tasks: set[asyncio.Task[object]] = set()
        self.service = arke.Service(_CLUSTER, limits=_LIMITS, port=1)
        self.service.on_request(_answer)
        self.service.on_broadcast(_hear)
        self.service.on_tunnel(_echo)
        loop.dial = self._dial

    @property
    def mesh(self) -> arke.Mesh:
        return self.service.mesh

    def _dial(self, protocol: asyncio.Protocol) -> None:
        self.relay = FakeTransport(self.loop, protocol)
        if self.good is not None:
            self._far = FakeTransport(self.loop, ProtocolDetector(self.good.context, self.loop))
            return
        self.shadow = Shadow()
        self.loop.call_soon(self.feed, _welcome())

    def feed(self, octets: bytes) -> None:
        if self.relay is not None and not self.relay.is_closing():
            self.relay.feed(octets)
            self.shadow.follow(octets)

    async def rest(self) -> None:
        await self.loop.rest()
        self.check_bounds()
        while self.good is not None and self._pass_on():
            await self.good.rest()

    def _pass_on(self) -> bool:
        """Octets between the program and the good relay."""
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
            check_inbox(protocol._reassembler, INBOX * 4)
        serving = self.service._dispatcher
        for tunnel in serving.tunnels.running.values() if serving else ():
            held = sum(len(data) for data, _, _ in tunnel._received) + len(tunnel._partial)
            pieces = len(tunnel._received)
            promise(held <= _LIMITS.max_message + 2 * CHUNK, f"{held} octets wait in a tunnel")
            promise(pieces <= MIN_WINDOW, f"{pieces} pieces wait in a tunnel")

    async def check_alive(self) -> None:
        """It answers a ping, or it closed the connection with a reason."""
        assert self.relay
        self.relay.go_on()
        await self.rest()
        if self.relay.is_closing():
            return
        if self.shadow.between:
            self.relay.received.clear()
            self.feed(packb((int(Op.PING), _TOKEN)))
            await self.rest()
            pong = packb((int(Op.PONG), _TOKEN))
            promise(pong in self.relay.received, "a ping was not answered")
        else:
            for _ in range(_ZEROS // CHUNK):
                self.feed(bytes(CHUNK))
                await self.rest()
            promise(self.relay.is_closing(), "zeros are borne as messages")

    async def check_good(self) -> None:
        """At a good relay the program serves, and is served."""
        world = self.good = World(self.loop)
        assert self.relay
        self.relay.cut()
        for _ in range(8):
            await self.later(1.0)
            if self.mesh.attached:
                break
        promise(self.mesh.attached, "the program did not attach again")
        await self.rest()
        call = world.client.ask(_CLUSTER, b"are you there?")
        await self.rest()
        await world.rest()
        await self.rest()
        answer = world.client.answers.get(call)
        promise(answer == b"are you there?", f"the service answered {answer!r:.100}")
        reply = asyncio.ensure_future(self.mesh.request("c", b"and you?", timeout=1e5))
        await self.rest()
        await self.rest()
        promise(reply.done() and reply.result() == b"and you?", "a request was not answered")

    async def stop(self, serving: asyncio.Task[None], stopped: asyncio.Event) -> None:
        """Everything ends, and nothing in another way than it may."""
        stopped.set()
        for _ in range(12):
            await self.later(10.0)
            if serving.done():
                break
        promise(serving.done(), "the service does not stop")
        serving.result()
        await self.later(10.0)
        for task in self.tasks:
            promise(task.done(), "something of the program hangs")
            error = task.exception()
            if error is not None and not isinstance(error, arke.ArkeError):
                raise error


def _welcome() -> bytes:
    """And the pongs that whoever registers or subscribes waits for."""
    pongs = [packb((int(Op.PONG), token)) for token in range(1, 9)]
    welcome = packb((int(Op.WELCOME), VERSION, "node", "10.1.1.1", "net", 1 << 20))
    return b"".join((welcome, *pongs))


async def _answer(request: arke.Request) -> bytes:
    return request.body[:CHUNK]


async def _hear(broadcast: arke.Broadcast) -> None:
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


_DOINGS: dict[int, Callable[[arke.Mesh], Awaitable[object]]] = {
    ASKS: lambda mesh: mesh.request("x", b"question", timeout=1e5),
    OPENS: _open,
    LISTENS: _listen,
    WATCHES: _watch,
    TELLS: lambda mesh: mesh.publish("t", b"event"),
}


async def run(loop: FakeLoop, data: bytes) -> None:
    with small_bounds(), patch.object(link, "_OUTBOX", OUTBOX):
        rig = Rig(loop)
        stopped = asyncio.Event()
        serving = asyncio.ensure_future(rig.service._serve(stopped))
        await rig.rest()
        for reads, happening in steps(data):
            for octets in reads:
                rig.feed(octets)
            await rig.rest()
            await _happen(rig, happening)
        await rig.check_alive()
        await rig.check_good()
        await rig.stop(serving, stopped)


async def _happen(rig: Rig, happening: int) -> None:
    assert rig.relay
    if happening in _PACKED:
        rig.feed(_PACKED[happening])
    elif happening in _DOINGS and len(rig.tasks) < 16:
        rig.start(_DOINGS[happening](rig.mesh))
    elif happening == LATER:
        await rig.later(1.0)
    elif happening == STALLED:
        rig.relay.stall()
    elif happening == GOING_ON:
        rig.relay.go_on()
    elif happening == AGAIN:
        rig.relay.cut()
        await rig.later(2.0)
    await rig.rest()


TARGET = Target(run, Mutator(relayed_messages, (*_DOINGS, *range(LATER, AGAIN + 1), *CANNED)))
