"""A program that says anything at all to its relay: the native codec, from its first octet on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from msgpack import packb

from arke.wire.limits import CHUNK
from arke.wire.messages import MAGIC, VERSION, Op
from fuzz.finding import promise
from fuzz.grammar import native_messages
from fuzz.guest import EVENTS, Guest, play
from fuzz.loop import FakeLoop
from fuzz.mutator import Mutator
from fuzz.shadow import Shadow
from fuzz.target import Target
from fuzz.world import CLUSTER, HAPPENINGS, TOPIC, World

_TOKEN = 4711
_ZEROS = 512 * 1024  # more than an unpacker keeps
_HEADERS = {str(number): "x" * 500 for number in range(30)}


class NativeGuest(Guest):
    """Its octets are MessagePack."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._shadow = Shadow()
        self.numbers = count(1000)

    def follow(self, octets: bytes) -> None:
        self._shadow.follow(octets)
        self.left = self._shadow.closed

    async def check_alive(self) -> None:
        if self._shadow.between:
            promise(not self._shadow.broken, "a message that is none was borne")
            self.transport.received.clear()
            self.feed(_pack(Op.PING, _TOKEN))
            await self.world.rest()
            answer = bytes(self.transport.received)
            promise(answer == _pack(Op.PONG, _TOKEN), "a ping was not answered")
        else:  # in the middle of a message: zeros complete it, or are too much; a zero is none
            for _ in range(_ZEROS // CHUNK):
                self.feed(bytes(CHUNK))
                await self.world.rest()
            promise(self.transport.is_closing(), "zeros are borne as messages")


def _pack(op: int, *fields: object) -> bytes:
    return bytes(packb((int(op), *fields)))


def _same(op: int, *fields: object) -> Callable[[Guest], bytes]:
    packed = _pack(op, *fields)
    return lambda _: packed


def _headed(guest: Guest) -> bytes:
    assert isinstance(guest, NativeGuest)
    return _pack(Op.REQUEST, next(guest.numbers), "d", b"", 60_000, False, _HEADERS)


CANNED = {
    0x20: _same(Op.HELLO, MAGIC, VERSION, "guest"),
    0x21: _same(Op.CHUNK, 0, 2 * CHUNK, bytes(CHUNK)),
    0x22: _same(Op.CHUNK, 1, CHUNK + 1, bytes(CHUNK)),
    0x23: _same(Op.REQUEST, 1, CLUSTER, bytes(CHUNK), 1000, True, None),
    0x24: _same(Op.DATA, 1, 2 * CHUNK, bytes(CHUNK)),
    0x25: _same(Op.PUBLISH, TOPIC, bytes(CHUNK), None),
    0x26: _headed,
}


async def run(loop: FakeLoop, data: bytes) -> None:
    await play(loop, data, NativeGuest, CANNED)


TARGET = Target(run, Mutator(native_messages, (*HAPPENINGS, *EVENTS, *CANNED)))
