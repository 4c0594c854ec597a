"""Send 64 requests to members that hold them, then send a signal to a relay.

usage: callers.py PID SIGNAL SECONDS

Sends SIGNAL to the process PID, tells the remaining members to reply, waits up to SECONDS for the
requests, and prints the count of each outcome as JSON: a reply, the name of an error, or
`still waiting`. Half of the requests are idempotent.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter

import arke

REQUESTS = 64
REQUEST_TIMEOUT = 60.0  # longer than every other limit, so it never hides a stuck request


def outcome(request: asyncio.Task[bytes]) -> str:
    if not request.done():
        return "still waiting"
    error = request.exception()
    return type(error).__name__ if error else request.result().decode()


def count(requests: list[asyncio.Task[bytes]]) -> Counter[str]:
    return Counter(map(outcome, requests))


async def main(pid: int, number: signal.Signals, seconds: float) -> None:
    async with arke.connect() as mesh:
        async with mesh.subscribe("held") as held:

            def start_request(n: int, *, idempotent: bool) -> asyncio.Task[bytes]:
                request = mesh.request(
                    "cluster", b"%d" % n, timeout=REQUEST_TIMEOUT, idempotent=idempotent
                )
                return asyncio.create_task(request)

            idempotent = [start_request(n, idempotent=True) for n in range(0, REQUESTS, 2)]
            once = [start_request(n, idempotent=False) for n in range(1, REQUESTS, 2)]
            requests = [*idempotent, *once]
            for _ in requests:
                await anext(held)
        os.kill(pid, number)
        await mesh.broadcast("cluster", b"release")
        await asyncio.wait(requests, timeout=seconds)
        outcomes = {"idempotent": count(idempotent), "once": count(once)}
        for task in requests:
            task.cancel()
    sys.stdout.write(json.dumps(outcomes))


asyncio.run(main(int(sys.argv[1]), signal.Signals[sys.argv[2]], float(sys.argv[3])))
