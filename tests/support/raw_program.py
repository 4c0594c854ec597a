"""A program without the SDK: the native protocol, valid or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgpack

from arke.wire.messages import MAGIC, VERSION, Op
from support.waiting import LIMIT

Message = tuple[Any, ...]


def packed(*messages: Sequence[Any]) -> bytes:
    return b"".join(msgpack.packb(message) for message in messages)


class RawProgram:
    """One connection to a relay's program port."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._messages = msgpack.Unpacker(use_list=False, max_buffer_size=2**31 - 1)

    async def hello(self, name: str = "raw", program: bytes | None = None) -> None:
        """Attach. `program` is the program id of an earlier connection, to reattach."""
        await self.send_message(
            (Op.HELLO.value, MAGIC, VERSION, name, *((program,) if program else ()))
        )
        assert (await self.receive())[0] == Op.WELCOME

    async def send_message(self, *messages: Sequence[Any]) -> None:
        await self.send(packed(*messages))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(LIMIT):
            await self.writer.drain()

    async def receive(self) -> Message:
        """Return the next message. Raises EOFError or ConnectionError at the end."""
        async with asyncio.timeout(LIMIT):
            while True:
                for message in self._messages:
                    return tuple(message)
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self._messages.feed(data)

    async def receive_only(self, op: int) -> Message:
        """Return the next message of one kind; drop others."""
        while (message := await self.receive())[0] != op:
            pass
        return message

    async def wait_until_processed(self) -> None:
        """Wait until the relay has handled all sent messages."""
        await self.send_message((Op.PING.value, 4711))
        while await self.receive_only(Op.PONG) != (Op.PONG, 4711):
            pass

    async def wait_until_closed(self) -> str | None:
        """Wait for the end of the connection; return the reason that the relay sent."""
        reason = None
        try:
            while True:
                message = await self.receive()
                if message[0] == Op.CLOSE:
                    reason = message[1]
        except (EOFError, ConnectionError):
            return reason


@asynccontextmanager
async def raw_program(port: int, name: str = "") -> AsyncIterator[RawProgram]:
    """A connection to the relay at `port`, attached if it has a name."""
    made = RawProgram(*await asyncio.open_connection("127.0.0.1", port))
    try:
        if name:
            await made.hello(name)
        yield made
    finally:
        made.writer.transport.abort()
