"""A program nobody trusts, at the relay of a `World`; codecs add what its octets mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from arke_relay.attachments.connection import ProgramConnection
from arke_relay.attachments.protocol_detection import HELLO_TIMEOUT, ProtocolDetector
from fuzz.finding import promise
from fuzz.loop import FakeLoop, FakeTransport
from fuzz.script import steps
from fuzz.world import World, small_bounds

# Events, beside those of the world.
STALLED = 0x13  # it reads nothing more
GOING_ON = 0x14
AGAIN = 0x17  # it is gone, and comes again
EVENTS = (STALLED, GOING_ON, AGAIN)


class Guest(ABC):
    """One connection of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._refused = world.core.counters.drops["handshake_refused"]
        self._greeting = ProtocolDetector(world.context, world.loop)
        self.transport = FakeTransport(world.loop, self._greeting)
        self.left = False
        """It said that it leaves."""

    @property
    def connection(self) -> ProgramConnection | None:
        return self._greeting._connection

    def feed(self, octets: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.feed(octets)
            self.follow(octets)

    @abstractmethod
    def follow(self, octets: bytes) -> None:
        """Know where messages end, as the codec must."""

    @abstractmethod
    async def check_alive(self) -> None:
        """A connection that has said hello still understands what comes, and answers."""

    async def leave(self) -> None:
        """It is alive, or it was closed with a reason; and then it is gone."""
        self.transport.go_on()
        await self.world.rest()
        if not self.transport.is_closing():
            promise(self.transport.reading, "a connection that is open is not read")
            promise(self.transport.left == 0, "what came was not read")
            if self.connection is None or self.connection.program is None:
                for _ in range(2):  # who was about to leave has done so after the first
                    await self.world.pass_time(HELLO_TIMEOUT + 1)
                promise(self.transport.is_closing(), "who is no program is not closed")
            else:
                await self.check_alive()
        if self.transport.is_closing() and not self.left:
            refused = self.world.core.counters.drops["handshake_refused"] > self._refused
            reason = self.connection and self.connection._reason
            promise(refused or reason, "it was closed without a reason")
        self.transport.cut()
        await self.world.rest()


async def play(
    loop: FakeLoop,
    data: bytes,
    arrive: Callable[[World], Guest],
    canned: Mapping[int, Callable[[Guest], bytes]],
) -> None:
    """Let a guest say what an input has; `canned` are messages too large to stand in one."""
    with small_bounds():
        world = World(loop)
        await world.rest()
        guest = arrive(world)
        for reads, happening in steps(data):
            for octets in reads:
                guest.feed(octets)
                if not loop._ready:
                    world.check_bounds()
            await world.rest()
            if happening in canned:
                guest.feed(canned[happening](guest))
            elif happening == STALLED:
                guest.transport.stall()
            elif happening == GOING_ON:
                guest.transport.go_on()
            elif happening == AGAIN:
                await guest.leave()
                guest = arrive(world)
            await world.happen(happening)
        await guest.leave()
        await world.check_innocents()
