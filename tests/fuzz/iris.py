"""A program that says anything at all in the Iris protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from arke.wire.limits import CHUNK, READ_SIZE
from arke_relay.attachments.iris.connection import CloseState, IrisConnection
from arke_relay.attachments.iris.packets import Packet
from fuzz.finding import promise
from fuzz.guest import EVENTS, Guest, play
from fuzz.loop import FakeLoop
from fuzz.mutator import Blocks, escaped
from fuzz.script import CUT, REPEAT, SINGLY, event
from fuzz.target import Target
from fuzz.world import HAPPENINGS, MAX_MESSAGE

_STILL = "still there"


def varint(value: int) -> bytes:
    octets = bytearray()
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*octets, value))


def field(octets: bytes | str) -> bytes:
    data = octets.encode() if isinstance(octets, str) else octets
    return varint(len(data)) + data


def packet(kind: int, *fields: bytes) -> bytes:
    return bytes((kind,)) + b"".join(fields)


def hello(cluster: str, version: str = "v1.0-draft2") -> bytes:
    return packet(Packet.WELCOME, field("iris-client-magic"), field(version), field(cluster))


class IrisGuest(Guest):
    """Its octets are packets of the Iris protocol."""

    def follow(self, octets: bytes) -> None:
        connection = self.connection
        if isinstance(connection, IrisConnection):
            rest = len(connection._incomplete)
            promise(rest <= MAX_MESSAGE + READ_SIZE, f"{rest} octets of a packet are kept")

    async def check_alive(self) -> None:
        connection = self.connection
        assert isinstance(connection, IrisConnection)
        if connection._close_state is not CloseState.OPEN:
            for _ in range(3):
                await self.world.pass_time(7 * 24 * 3600.0)
            gone = self.transport.is_closing() or self.transport.ended
            promise(gone, "who leaves, and owes nothing any more, is not let go")
        elif not connection._incomplete:
            self.feed(packet(Packet.SUBSCRIBE, field(_STILL)))
            await self.world.rest()
            heard = _STILL in self.world.core.directory.topics
            promise(heard or self.transport.is_closing(), "a program is attached, and not heard")
        else:  # in the middle of a packet: zeros complete it, and a zero begins none
            for _ in range(2 * MAX_MESSAGE // CHUNK):
                self.feed(bytes(CHUNK))
                await self.world.rest()
            promise(self.transport.is_closing(), "zeros are borne as packets")


def _same(octets: bytes) -> Callable[[Guest], bytes]:
    return lambda _: octets


CANNED = {
    0x20: _same(hello("")),
    0x21: _same(hello("d")),
    0x22: _same(packet(Packet.REQUEST, varint(1), field("c"), field(bytes(CHUNK)), varint(1000))),
    0x23: _same(packet(Packet.TUNNEL_TRANSFER, varint(1), varint(0), field(bytes(CHUNK)))),
    0x24: _same(packet(Packet.PUBLISH, field("t"), field(bytes(2 * CHUNK)))),
}


async def run(loop: FakeLoop, data: bytes) -> None:
    await play(loop, data, IrisGuest, CANNED)


# What is likely to be said.

Field = Callable[[Random], bytes]


def _number(random: Random) -> bytes:
    if random.random() < 0.8:
        return varint(random.randrange(8))
    return varint(random.choice((127, 128, CHUNK, CHUNK + 1, 2**32, 2**63, 2**64 - 1, 2**64)))


def _name(random: Random) -> bytes:
    return field(random.choice(("c", "d", "t", "t", "", "n" * 255, "n" * 256, "\n")))


def _octets(random: Random) -> bytes:
    return field(random.choice((b"", b"x", random.randbytes(random.randrange(200)), b"\xff\xfe")))


def _flag(random: Random) -> bytes:
    return random.choice((b"\0", b"\1", b"\2"))


_PACKETS: dict[int, Sequence[Field]] = {
    Packet.CLOSE: (),
    Packet.BROADCAST: (_name, _octets),
    Packet.REQUEST: (_number, _name, _octets, _number),
    Packet.REPLY: (_number, _flag, _octets),
    Packet.SUBSCRIBE: (_name,),
    Packet.UNSUBSCRIBE: (_name,),
    Packet.PUBLISH: (_name, _octets),
    Packet.TUNNEL_INIT: (_number, _name, lambda _: varint(60_000)),
    Packet.TUNNEL_CONFIRM: (_number, _number),
    Packet.TUNNEL_ALLOWANCE: (_number, _number),
    Packet.TUNNEL_TRANSFER: (_number, _number, _octets),
    Packet.TUNNEL_CLOSE: (_number,),
}
_HAPPENINGS = (CUT, CUT, CUT, SINGLY, *REPEAT, *HAPPENINGS, *EVENTS, *CANNED)


def _generated(random: Random) -> bytes:
    if random.random() < 0.05:
        version = random.choice(("v1.0-draft2", "v1.0-draft3"))
        made = hello(random.choice(("", "c", "d", "n" * 256)), version)
    else:
        kind = random.choice(list(_PACKETS))
        made = packet(kind, *(make(random) for make in _PACKETS[kind]))
    if random.random() < 0.1:
        made = made[: random.randrange(len(made)) + 1]
    behind = event(random.choice(_HAPPENINGS)) if random.random() < 0.5 else b""
    return escaped(made) + behind


TARGET = Target(run, Blocks(_generated))
