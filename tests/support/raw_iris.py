"""A raw connection to a relay with the Iris protocol: it sends bytes and packets, valid or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.iris_packets import CLIENT_MAGIC, RELAY_MAGIC, VERSION, Decoder, Op, Packet, encoded
from support.waiting import LIMIT

READ = 1 << 16


def hello(cluster: str = "", *, magic: str = CLIENT_MAGIC, version: str = VERSION) -> bytes:
    """Return the handshake of a client, or of a service of `cluster`."""
    return encoded(Op.INIT, magic, version, cluster)


class RawIris:
    """A connection. Each wait has a time limit."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._decoder = Decoder()

    async def attach(self, cluster: str = "") -> None:
        """Complete the handshake."""
        await self.send(hello(cluster))
        assert await self.receive() == (Op.INIT, RELAY_MAGIC, VERSION)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(LIMIT):
            await self.writer.drain()

    async def send_packet(self, op: Op, *fields: Any) -> None:
        await self.send(encoded(op, *fields))

    def send_packet_nowait(self, op: Op, *fields: Any) -> None:
        """Send a small packet without waiting, for code that must not stop reading."""
        self.writer.write(encoded(op, *fields))

    async def receive(self) -> Packet:
        """Return the next packet. Raises EOFError or ConnectionError at the end."""
        async with asyncio.timeout(LIMIT):
            return await self.receive_without_limit()

    async def receive_without_limit(self) -> Packet:
        """Return the next packet, however long it takes."""
        while True:
            for packet in self._decoder:
                return packet
            data = await self.reader.read(READ)
            if not data:
                assert self._decoder.rest == b"", "the connection ended inside a packet"
                raise EOFError
            self._decoder.feed(data)

    async def receive_only(self, op: Op) -> Packet:
        """Return the next packet of one kind; drop others."""
        while (packet := await self.receive())[0] != op:
            pass
        return packet

    async def wait_until_processed(self) -> None:
        """Wait until the relay has handled all sent packets; drop packets received meanwhile."""
        topic = f"settled {id(self)}"
        await self.send_packet(Op.SUBSCRIBE, topic)
        await self.send_packet(Op.PUBLISH, topic, b"now")
        while await self.receive_only(Op.PUBLISH) != (Op.PUBLISH, topic, b"now"):
            pass
        await self.send_packet(Op.UNSUBSCRIBE, topic)

    async def wait_until_closed(self) -> str | None:
        """Wait for the end of the connection; return the reason that the relay sent."""
        reason = None
        try:
            while True:
                packet = await self.receive()
                if packet[0] in {Op.CLOSE, Op.DENY}:
                    reason = packet[-1]
        except (EOFError, ConnectionError):
            return reason


async def send_in_pieces(raw: RawIris, data: bytes, piece: int) -> None:
    """Send data in pieces of `piece` bytes, and let other tasks run between them."""
    for at in range(0, len(data), piece):
        raw.writer.write(data[at : at + piece])
        if piece > 1 or at % 100 == 0:
            await raw.writer.drain()
            await asyncio.sleep(0)


@asynccontextmanager
async def raw_iris(port: int, cluster: str | None = None) -> AsyncIterator[RawIris]:
    """Connect to the relay at `port`, and attach if a cluster is given; "" attaches a client."""
    made = RawIris(*await asyncio.open_connection("127.0.0.1", port))
    try:
        if cluster is not None:
            await made.attach(cluster)
        yield made
    finally:
        made.writer.transport.abort()
