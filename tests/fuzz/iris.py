"""An untrusted program that speaks the Iris protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from arke.wire.limits import CHUNK, READ_SIZE
from arke_relay.attachments.iris.connection import CloseState, IrisConnection
from arke_relay.attachments.iris.packets import Packet
from fuzz.finding import require
from fuzz.mutator import Blocks, escaped
from fuzz.script import CUT, REPEAT, SINGLY, event
from fuzz.simulated_loop import SimulatedLoop
from fuzz.target import Target
from fuzz.untrusted_program import EVENTS, UntrustedProgram, play
from fuzz.world import MAX_MESSAGE, WORLD_EVENTS

_TOPIC = "still there"


def varint(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*data, value))


def field(data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return varint(len(data)) + data


def packet(kind: int, *fields: bytes) -> bytes:
    return bytes((kind,)) + b"".join(fields)


def hello(cluster: str, version: str = "v1.0-draft2") -> bytes:
    return packet(Packet.WELCOME, field("iris-client-magic"), field(version), field(cluster))


class UntrustedIrisProgram(UntrustedProgram):
    """An untrusted program whose bytes are packets of the Iris protocol."""

    def follow(self, data: bytes) -> None:
        connection = self.connection
        if isinstance(connection, IrisConnection):
            rest = len(connection._incomplete)
            require(rest <= MAX_MESSAGE + READ_SIZE, f"{rest} bytes of a packet are kept")

    async def check_alive(self) -> None:
        connection = self.connection
        assert isinstance(connection, IrisConnection)
        if connection._close_state is not CloseState.OPEN:
            for _ in range(3):
                await self.world.pass_time(7 * 24 * 3600.0)
            closed = self.transport.is_closing() or self.transport.ended
            require(closed, "a closing program without open requests is not disconnected")
        elif not connection._incomplete:
            self.feed(packet(Packet.SUBSCRIBE, field(_TOPIC)))
            await self.world.rest()
            subscribed = _TOPIC in self.world.core.directory.topics
            answered = subscribed or self.transport.is_closing()
            require(answered, "the messages of an attached program are ignored")
        else:  # inside a packet: zeros complete it, and no packet starts with a zero
            for _ in range(2 * MAX_MESSAGE // CHUNK):
                self.feed(bytes(CHUNK))
                await self.world.rest()
            require(self.transport.is_closing(), "zeros are accepted as packets")


def _constant(data: bytes) -> Callable[[UntrustedProgram], bytes]:
    return lambda _: data


PRESET_MESSAGES = {
    0x20: _constant(hello("")),
    0x21: _constant(hello("d")),
    0x22: _constant(
        packet(Packet.REQUEST, varint(1), field("c"), field(bytes(CHUNK)), varint(1000))
    ),
    0x23: _constant(packet(Packet.TUNNEL_TRANSFER, varint(1), varint(0), field(bytes(CHUNK)))),
    0x24: _constant(packet(Packet.PUBLISH, field("t"), field(bytes(2 * CHUNK)))),
}


async def run(loop: SimulatedLoop, data: bytes) -> None:
    await play(loop, data, UntrustedIrisProgram, PRESET_MESSAGES)


# Likely packets.

Field = Callable[[Random], bytes]


def _number(random: Random) -> bytes:
    if random.random() < 0.8:
        return varint(random.randrange(8))
    return varint(random.choice((127, 128, CHUNK, CHUNK + 1, 2**32, 2**63, 2**64 - 1, 2**64)))


def _name(random: Random) -> bytes:
    return field(random.choice(("c", "d", "t", "t", "", "n" * 255, "n" * 256, "\n")))


def _bytes(random: Random) -> bytes:
    return field(random.choice((b"", b"x", random.randbytes(random.randrange(200)), b"\xff\xfe")))


def _flag(random: Random) -> bytes:
    return random.choice((b"\0", b"\1", b"\2"))


_PACKETS: dict[int, Sequence[Field]] = {
    Packet.CLOSE: (),
    Packet.BROADCAST: (_name, _bytes),
    Packet.REQUEST: (_number, _name, _bytes, _number),
    Packet.REPLY: (_number, _flag, _bytes),
    Packet.SUBSCRIBE: (_name,),
    Packet.UNSUBSCRIBE: (_name,),
    Packet.PUBLISH: (_name, _bytes),
    Packet.TUNNEL_INIT: (_number, _name, lambda _: varint(60_000)),
    Packet.TUNNEL_CONFIRM: (_number, _number),
    Packet.TUNNEL_ALLOWANCE: (_number, _number),
    Packet.TUNNEL_TRANSFER: (_number, _number, _bytes),
    Packet.TUNNEL_CLOSE: (_number,),
}
_EVENTS = (CUT, CUT, CUT, SINGLY, *REPEAT, *WORLD_EVENTS, *EVENTS, *PRESET_MESSAGES)


def _generated(random: Random) -> bytes:
    if random.random() < 0.05:
        version = random.choice(("v1.0-draft2", "v1.0-draft3"))
        made = hello(random.choice(("", "c", "d", "n" * 256)), version)
    else:
        kind = random.choice(list(_PACKETS))
        made = packet(kind, *(make(random) for make in _PACKETS[kind]))
    if random.random() < 0.1:
        made = made[: random.randrange(len(made)) + 1]
    behind = event(random.choice(_EVENTS)) if random.random() < 0.5 else b""
    return escaped(made) + behind


TARGET = Target(run, Blocks(_generated))
