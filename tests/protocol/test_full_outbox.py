"""A program that does not read is disconnected when its outbox has no room for a PONG."""

from __future__ import annotations

import asyncio

from arke.wire.messages import MAGIC, VERSION, Op
from support.in_process_relay import InProcessRelay
from support.raw_program import packed

HALF = 40 * 1024 * 1024


async def test_program_is_disconnected_when_its_outbox_has_no_room_for_a_pong() -> None:
    relay = InProcessRelay()
    relay.attach("stalled")
    relay.send("stalled", packed((Op.HELLO, MAGIC, VERSION, "stalled")))
    connection = relay.connection("stalled")
    connection.pause_writing()
    for _ in range(2):
        assert connection.put_body((Op.REPLY.value, 1, bytes(HALF)), 2)
    relay.send("stalled", packed((Op.PING, 1)))
    await asyncio.sleep(0)  # the relay disconnects it in the next iteration of the loop
    assert connection.program is None
