"""Send the bytes of an HTTP request, and read to the end of the connection."""

from __future__ import annotations

import asyncio

from support.waiting import LIMIT


async def send_raw_request(address: tuple[str, int], request: bytes) -> bytes:
    """Return everything that the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection(*address)
    async with asyncio.timeout(LIMIT):
        writer.write(request)
        await writer.drain()
        reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    return reply
