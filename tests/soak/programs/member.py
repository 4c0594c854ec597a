"""A member that replies, receives broadcasts, echoes tunnels, and records what it executed.

usage: python -m soak.programs.member JOURNAL

When the handler of a non-idempotent request starts, it writes a line to the file JOURNAL. Errors
are lines of stdout that start with `wrong`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator

import arke
from soak.messages import CLUSTER, ONCE, PARTS, parse_head, reply_to
from soak.programs.ordering import Ordering

_WORK = 0.02  # seconds a request takes, at most
_PART = 0.005

journal = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
service = arke.Service(CLUSTER, wait=60.0)
ordering = Ordering()


@service.on_request
async def reply(request: arke.Request) -> bytes:
    head = parse_head(request.body)
    if head.kind == ONCE:
        # Unbuffered, so that the line survives if the process is killed.
        os.write(journal, f"{head.caller} {head.number}\n".encode())
    await asyncio.sleep(random.uniform(0, _WORK))
    return reply_to(request.body)


@service.on_request_many
async def reply_in_parts(request: arke.Request) -> AsyncIterator[bytes]:
    for part in range(PARTS):
        await asyncio.sleep(random.uniform(0, _PART))
        yield b"%d " % part + request.body


@service.on_broadcast
async def check(broadcast: arke.Broadcast) -> None:
    if wrong := ordering.check(parse_head(broadcast.body)):
        print("wrong:", wrong, flush=True)  # noqa: T201


@service.on_tunnel
async def echo(tunnel: arke.Tunnel) -> None:
    async for message in tunnel:
        await tunnel.send(message)


service.run()
