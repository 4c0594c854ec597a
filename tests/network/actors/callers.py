"""64 callers, all waiting for members that hold their requests, when a relay gets a signal.

usage: callers.py PID SIGNAL SECONDS

Sends SIGNAL to the process PID, lets the members that are left answer, gives the callers SECONDS,
and prints how often each outcome came as JSON: an answer, the name of an error, or `still waiting`.
Half of the calls are idempotent.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter

import arke

CALLERS = 64
CALL_TIMEOUT = 60.0  # far beyond every limit here: who waits for it is found waiting


def outcome(call: asyncio.Task[bytes]) -> str:
    if not call.done():
        return "still waiting"
    error = call.exception()
    return type(error).__name__ if error else call.result().decode()


def count(calls: list[asyncio.Task[bytes]]) -> Counter[str]:
    return Counter(map(outcome, calls))


async def main(pid: int, number: signal.Signals, seconds: float) -> None:
    async with arke.connect() as mesh:
        async with mesh.subscribe("held") as held:

            def call(n: int, *, idempotent: bool) -> asyncio.Task[bytes]:
                request = mesh.request(
                    "cluster", b"%d" % n, timeout=CALL_TIMEOUT, idempotent=idempotent
                )
                return asyncio.create_task(request)

            idempotent = [call(n, idempotent=True) for n in range(0, CALLERS, 2)]
            once = [call(n, idempotent=False) for n in range(1, CALLERS, 2)]
            calls = [*idempotent, *once]
            for _ in calls:
                await anext(held)
        os.kill(pid, number)
        await mesh.broadcast("cluster", b"release")
        await asyncio.wait(calls, timeout=seconds)
        outcomes = {"idempotent": count(idempotent), "once": count(once)}
        for task in calls:
            task.cancel()
    sys.stdout.write(json.dumps(outcomes))


asyncio.run(main(int(sys.argv[1]), signal.Signals[sys.argv[2]], float(sys.argv[3])))
