"""What the relay does when a program reads so little that not even an answer to a ping has room."""

from __future__ import annotations

import asyncio

from arke.wire.messages import MAGIC, VERSION, Op
from support.in_process_relay import InProcessRelay, packed

HALF = 40 * 1024 * 1024


async def test_a_program_is_cut_off_where_an_answer_to_its_ping_has_no_room() -> None:
    stage = InProcessRelay()
    stage.attach("deaf")
    stage.send("deaf", packed((Op.HELLO, MAGIC, VERSION, "deaf")))
    connection = stage.connection("deaf")
    connection.pause_writing()
    for _ in range(2):
        assert connection.put_body((Op.REPLY.value, 1, bytes(HALF)), 2)
    stage.send("deaf", packed((Op.PING, 1)))
    await asyncio.sleep(0)  # not at once: whoever found out was in the middle of something
    assert connection.program is None
