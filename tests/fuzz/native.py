"""The native codec of the relay with an untrusted program, from its first byte on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from msgpack import packb

from arke.wire.limits import CHUNK
from arke.wire.messages import MAGIC, VERSION, Op
from fuzz.finding import require
from fuzz.grammar import native_messages
from fuzz.message_boundaries import MessageBoundaries
from fuzz.mutator import Mutator
from fuzz.simulated_loop import SimulatedLoop
from fuzz.target import Target
from fuzz.untrusted_program import EVENTS, UntrustedProgram, play
from fuzz.world import CLUSTER, TOPIC, WORLD_EVENTS, World

_TOKEN = 4711
_ZEROS = 512 * 1024  # bytes; more than an unpacker keeps
_HEADERS = {str(number): "x" * 500 for number in range(30)}


class UntrustedNativeProgram(UntrustedProgram):
    """An untrusted program whose bytes are MessagePack."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._boundaries = MessageBoundaries()
        self.numbers = count(1000)

    def follow(self, data: bytes) -> None:
        self._boundaries.follow(data)
        self.sent_close = self._boundaries.closed

    async def check_alive(self) -> None:
        if self._boundaries.at_boundary:
            require(not self._boundaries.invalid, "an invalid message was accepted")
            self.transport.received.clear()
            self.feed(_pack(Op.PING, _TOKEN))
            await self.world.rest()
            answer = bytes(self.transport.received)
            require(answer == _pack(Op.PONG, _TOKEN), "a ping was not answered")
        else:  # inside a message: zeros complete it or exceed the limit; no message is a zero
            for _ in range(_ZEROS // CHUNK):
                self.feed(bytes(CHUNK))
                await self.world.rest()
            require(self.transport.is_closing(), "zeros are accepted as messages")


def _pack(op: int, *fields: object) -> bytes:
    return bytes(packb((int(op), *fields)))


def _constant(op: int, *fields: object) -> Callable[[UntrustedProgram], bytes]:
    packed = _pack(op, *fields)
    return lambda _: packed


def _request_with_headers(program: UntrustedProgram) -> bytes:
    assert isinstance(program, UntrustedNativeProgram)
    return _pack(Op.REQUEST, next(program.numbers), "d", b"", 60_000, False, _HEADERS)


PRESET_MESSAGES = {
    0x20: _constant(Op.HELLO, MAGIC, VERSION, "guest"),
    0x21: _constant(Op.CHUNK, 0, 2 * CHUNK, bytes(CHUNK)),
    0x22: _constant(Op.CHUNK, 1, CHUNK + 1, bytes(CHUNK)),
    0x23: _constant(Op.REQUEST, 1, CLUSTER, bytes(CHUNK), 1000, True, None),
    0x24: _constant(Op.DATA, 1, 2 * CHUNK, bytes(CHUNK)),
    0x25: _constant(Op.PUBLISH, TOPIC, bytes(CHUNK), None),
    0x26: _request_with_headers,
}


async def run(loop: SimulatedLoop, data: bytes) -> None:
    await play(loop, data, UntrustedNativeProgram, PRESET_MESSAGES)


TARGET = Target(run, Mutator(native_messages, (*WORLD_EVENTS, *EVENTS, *PRESET_MESSAGES)))
