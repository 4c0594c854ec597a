"""An untrusted program at the relay of a `World`. Subclasses know the protocol of its bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from arke_relay.attachments.connection import ProgramConnection
from arke_relay.attachments.protocol_detection import HELLO_TIMEOUT, ProtocolDetector
from fuzz.finding import require
from fuzz.script import steps
from fuzz.simulated_loop import SimulatedLoop, SimulatedTransport
from fuzz.world import World, small_limits

# Events, in addition to those of the world.
STOP_READING = 0x13
RESUME_READING = 0x14
RECONNECT = 0x17
EVENTS = (STOP_READING, RESUME_READING, RECONNECT)


class UntrustedProgram(ABC):
    """One connection of an untrusted program."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._refused = world.core.counters.drops["handshake_refused"]
        self._detector = ProtocolDetector(world.context, world.loop)
        self.transport = SimulatedTransport(world.loop, self._detector)
        self.sent_close = False
        """It has sent CLOSE."""

    @property
    def connection(self) -> ProgramConnection | None:
        return self._detector._connection

    def feed(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.feed(data)
            self.follow(data)

    def handle_event(
        self, number: int, preset_messages: Mapping[int, Callable[[UntrustedProgram], bytes]]
    ) -> None:
        """Send a preset message, stop reading or read again; other events do nothing here."""
        if number in preset_messages:
            self.feed(preset_messages[number](self))
        elif number == STOP_READING:
            self.transport.block_writes()
        elif number == RESUME_READING:
            self.transport.unblock_writes()

    @abstractmethod
    def follow(self, data: bytes) -> None:
        """Track where messages end, as the codec must."""

    @abstractmethod
    async def check_alive(self) -> None:
        """Check that an open connection, after its handshake, still handles messages."""

    async def leave(self) -> None:
        """Check that the connection is alive or was closed with a reason, then disconnect."""
        self.transport.unblock_writes()
        await self.world.rest()
        if not self.transport.is_closing():
            require(self.transport.reading, "a connection that is open is not read")
            require(self.transport.undelivered == 0, "received bytes were not read")
            if self.connection is None or self.connection.program is None:
                for _ in range(2):  # a program that is detaching has done so after the first
                    await self.world.pass_time(HELLO_TIMEOUT + 1)
                require(
                    self.transport.is_closing(), "a connection without a handshake is not closed"
                )
            else:
                await self.check_alive()
        if self.transport.is_closing() and not self.sent_close:
            refused = self.world.core.counters.drops["handshake_refused"] > self._refused
            reason = self.connection and self.connection._reason
            require(refused or reason, "the connection was closed without a reason")
        self.transport.disconnect()
        await self.world.rest()


async def play(
    loop: SimulatedLoop,
    data: bytes,
    arrive: Callable[[World], UntrustedProgram],
    preset_messages: Mapping[int, Callable[[UntrustedProgram], bytes]],
) -> None:
    """Send an input from an untrusted program. `preset_messages` are too large for an input."""
    with small_limits():
        world = World(loop)
        await world.rest()
        program = arrive(world)
        for reads, event_number in steps(data):
            for data in reads:
                program.feed(data)
                if not loop._ready:
                    world.check_bounds()
            await world.rest()
            program.handle_event(event_number, preset_messages)
            if event_number == RECONNECT:
                await program.leave()
                program = arrive(world)
            await world.handle_event(event_number)
        await program.leave()
        await world.check_valid_programs()
