"""A member that answers, hears and echoes, and writes down what it executed.

usage: python -m soak.programs.member JOURNAL

Each request that must be handled once at most is a line of the file JOURNAL, written when its
handler begins. What is wrong is a line of stdout that begins with `wrong`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator

import arke
from soak.programs.ordering import Ordering
from soak.questions import CLUSTER, ONCE, PARTS, answer_to, question_of

_WORK = 0.02  # seconds a request takes, at most
_PART = 0.005

journal = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
service = arke.Service(CLUSTER, wait=60.0)
heard = Ordering()


@service.on_request
async def answer(request: arke.Request) -> bytes:
    question = question_of(request.body)
    if question.kind == ONCE:
        # Without a buffer: what a killed process executed is written down all the same.
        os.write(journal, f"{question.caller} {question.number}\n".encode())
    await asyncio.sleep(random.uniform(0, _WORK))
    return answer_to(request.body)


@service.on_request_many
async def answer_in_parts(request: arke.Request) -> AsyncIterator[bytes]:
    for part in range(PARTS):
        await asyncio.sleep(random.uniform(0, _PART))
        yield b"%d " % part + request.body


@service.on_broadcast
async def hear(broadcast: arke.Broadcast) -> None:
    if wrong := heard.hear(question_of(broadcast.body)):
        print("wrong:", wrong, flush=True)  # noqa: T201


@service.on_tunnel
async def echo(tunnel: arke.Tunnel) -> None:
    async for message in tunnel:
        await tunnel.send(message)


service.run()
