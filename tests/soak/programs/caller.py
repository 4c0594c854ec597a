"""Use the cluster with every operation of the SDK until SIGTERM, and count the outcomes.

usage: python -m soak.programs.caller NAME SEED REPORT

The file REPORT is a JSON object that is replaced every half second. Wrong results and hanging
operations are lines of stdout.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from random import Random

import arke
from soak.messages import (
    BROADCAST,
    CLUSTER,
    EVENT,
    IDEMPOTENT,
    MULTIPART,
    ONCE,
    PARTS,
    SHORT_TIMEOUT,
    TOPIC,
    MessageHead,
    make_body,
    parse_head,
    random_size,
    reply_to,
)
from soak.programs.operations import MARGIN, Operations
from soak.programs.ordering import Ordering
from soak.programs.tunnel_session import TunnelSession

TIMEOUT = 10.0
MAX_SHORT_TIMEOUT = 0.02
RELAY_WAIT = 30.0
"""Seconds for which operations without a deadline wait for a relay, at most."""

_REPORT = 0.5

Action = Callable[[], Awaitable[None]]


class Caller:
    """The load of one host. Each method runs one operation."""

    def __init__(
        self,
        mesh: arke.Mesh,
        name: str,
        random: Random,
        operations: Operations,
        stopping: asyncio.Event,
    ) -> None:
        self._mesh = mesh
        self._name = name
        self._random = random
        self._operations = operations
        self._stopping = stopping
        self._numbers = count(1)
        self._ordering = Ordering()

    def tasks(self) -> list[tuple[Action, float]]:
        """Return the operations to repeat, with the mean pause between two runs in seconds."""
        return [
            *[(self.send_request, 0.05)] * 5,
            *[(self.send_idempotent_request, 0.05)] * 3,
            (self.send_request_with_short_timeout, 0.1),
            (self.send_multipart_request, 0.1),
            (self.broadcast, 0.05),
            (self.publish, 0.05),
            (self.receive_events, 0.1),
            *[(self.use_tunnel, 0.1)] * 2,
            (self.query_relay, 1.0),
        ]

    async def send_request(self) -> None:
        await self._request(ONCE, TIMEOUT)

    async def send_idempotent_request(self) -> None:
        await self._request(IDEMPOTENT, TIMEOUT, idempotent=True)

    async def send_request_with_short_timeout(self) -> None:
        await self._request(SHORT_TIMEOUT, self._random.uniform(0, MAX_SHORT_TIMEOUT))

    async def send_multipart_request(self) -> None:
        body = self._body(MULTIPART)
        expected = 0
        with self._operations.track(MULTIPART, TIMEOUT) as operation:
            async for part in self._mesh.request_many(CLUSTER, body, timeout=TIMEOUT):
                if part != b"%d " % expected + body:
                    self._operations.wrong(MULTIPART, f"part {expected} was {part[:60]!r}")
                expected += 1
                operation.restart_limit()
            if expected != PARTS:
                self._operations.wrong(MULTIPART, f"a reply ended with {expected} of {PARTS} parts")

    async def broadcast(self) -> None:
        with self._operations.track(BROADCAST, RELAY_WAIT):
            await self._mesh.broadcast(CLUSTER, self._body(BROADCAST))

    async def publish(self) -> None:
        with self._operations.track(EVENT, RELAY_WAIT):
            await self._mesh.publish(TOPIC, self._body(EVENT))

    async def receive_events(self) -> None:
        """Subscribe for some seconds, and check the events."""
        seconds = self._random.uniform(0.5, 3)
        async with AsyncExitStack() as stack:
            with self._operations.track("subscribed", RELAY_WAIT):
                events = await stack.enter_async_context(self._mesh.subscribe(TOPIC))
                try:
                    async with asyncio.timeout(seconds):
                        async for event in events:
                            if wrong := self._ordering.check(parse_head(event.body)):
                                self._operations.wrong(EVENT, wrong)
                except TimeoutError:
                    pass

    async def use_tunnel(self) -> None:
        number = next(self._numbers)
        session = TunnelSession(
            self._mesh, self._name, number, self._random, self._operations, self._stopping
        )
        await session.run()

    async def query_relay(self) -> None:
        """Ask the relay for its status and the members."""
        with self._operations.track("status", TIMEOUT):
            await self._mesh.status()
        with self._operations.track("members", TIMEOUT):
            await self._mesh.members(CLUSTER)

    async def _request(self, kind: str, limit: float, *, idempotent: bool = False) -> None:
        body = self._body(kind)
        with self._operations.track(kind, limit):
            reply = await self._mesh.request(CLUSTER, body, timeout=limit, idempotent=idempotent)
            if reply != reply_to(body):
                self._operations.wrong(kind, f"the reply to {body[:60]!r} was {reply[:60]!r}")

    def _body(self, kind: str) -> bytes:
        head = MessageHead(kind, self._name, next(self._numbers))
        return make_body(head, random_size(self._random))


async def main(name: str, seed: str, path: Path) -> None:
    random = Random(seed)
    operations = Operations()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)

    async def repeat(action: Action, pause: float) -> None:
        while not stopping.is_set():
            await action()
            await asyncio.sleep(random.uniform(0, 2 * pause))

    def report(*, ended: bool) -> None:
        clocks = {"wall": time.time(), "monotonic": time.monotonic()}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(operations.report() | clocks | {"ended": ended}))
        part.replace(path)

    async def report_periodically() -> None:
        while True:
            report(ended=False)
            await asyncio.sleep(_REPORT)

    async with arke.connect(wait=60.0) as mesh:
        caller = Caller(mesh, name, random, operations, stopping)
        background = [
            asyncio.create_task(task) for task in (operations.watch(), report_periodically())
        ]
        tasks = [asyncio.create_task(repeat(work, pause)) for work, pause in caller.tasks()]
        await stopping.wait()
        # An operation that still runs after this time has already been reported as hanging.
        ended, left = await asyncio.wait(tasks, timeout=RELAY_WAIT + 2 * MARGIN)
        for task in (*background, *left):
            task.cancel()
        report(ended=not left)
    for work in ended:
        work.result()


asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
