"""Calls the cluster in every way there is, until SIGTERM, and counts what becomes of it.

usage: python -m soak.programs.caller NAME SEED REPORT

The file REPORT is a JSON object, new every half second. What is wrong, or hangs, is a line of
stdout.
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
from soak.programs.conversation import Conversation
from soak.programs.operations import MARGIN, Operations
from soak.programs.ordering import Ordering
from soak.questions import (
    BROADCAST,
    CLUSTER,
    EVENT,
    HASTY,
    IDEMPOTENT,
    ONCE,
    PARTED,
    PARTS,
    TOPIC,
    Question,
    a_size,
    answer_to,
    body_of,
    question_of,
)

TIMEOUT = 10.0
HASTE = 0.02
AWAY = 30.0
"""Seconds that what has no deadline waits for a relay, at most."""

_REPORT = 0.5

Work = Callable[[], Awaitable[None]]


class Caller:
    """The load of one host. Every method does one thing of its kind once."""

    def __init__(
        self,
        mesh: arke.Mesh,
        name: str,
        random: Random,
        operations: Operations,
        ending: asyncio.Event,
    ) -> None:
        self._mesh = mesh
        self._name = name
        self._random = random
        self._operations = operations
        self._ending = ending
        self._numbers = count(1)
        self._heard = Ordering()

    def works(self) -> list[tuple[Work, float]]:
        """What is done all the time, with the mean pause in between in seconds."""
        return [
            *[(self.ask_once, 0.05)] * 5,
            *[(self.ask_idempotent, 0.05)] * 3,
            (self.ask_hastily, 0.1),
            (self.ask_for_parts, 0.1),
            (self.broadcast, 0.05),
            (self.publish, 0.05),
            (self.listen, 0.1),
            *[(self.converse, 0.1)] * 2,
            (self.look, 1.0),
        ]

    async def ask_once(self) -> None:
        await self._ask(ONCE, TIMEOUT)

    async def ask_idempotent(self) -> None:
        await self._ask(IDEMPOTENT, TIMEOUT, idempotent=True)

    async def ask_hastily(self) -> None:
        await self._ask(HASTY, self._random.uniform(0, HASTE))

    async def ask_for_parts(self) -> None:
        question = self._body(PARTED)
        expected = 0
        with self._operations.one(PARTED, TIMEOUT) as operation:
            async for part in self._mesh.request_many(CLUSTER, question, timeout=TIMEOUT):
                if part != b"%d " % expected + question:
                    self._operations.wrong(PARTED, f"part {expected} was {part[:60]!r}")
                expected += 1
                operation.moved()
            if expected != PARTS:
                self._operations.wrong(
                    PARTED, f"an answer ended well with {expected} of {PARTS} parts"
                )

    async def broadcast(self) -> None:
        with self._operations.one(BROADCAST, AWAY):
            await self._mesh.broadcast(CLUSTER, self._body(BROADCAST))

    async def publish(self) -> None:
        with self._operations.one(EVENT, AWAY):
            await self._mesh.publish(TOPIC, self._body(EVENT))

    async def listen(self) -> None:
        """Hear the events of some seconds."""
        seconds = self._random.uniform(0.5, 3)
        async with AsyncExitStack() as stack:
            with self._operations.one("subscribed", AWAY):
                events = await stack.enter_async_context(self._mesh.subscribe(TOPIC))
                try:
                    async with asyncio.timeout(seconds):
                        async for event in events:
                            if wrong := self._heard.hear(question_of(event.body)):
                                self._operations.wrong(EVENT, wrong)
                except TimeoutError:
                    pass

    async def converse(self) -> None:
        number = next(self._numbers)
        talk = Conversation(
            self._mesh, self._name, number, self._random, self._operations, self._ending
        )
        await talk.hold()

    async def look(self) -> None:
        """Ask the relay itself."""
        with self._operations.one("status", TIMEOUT):
            await self._mesh.status()
        with self._operations.one("members", TIMEOUT):
            await self._mesh.members(CLUSTER)

    async def _ask(self, kind: str, limit: float, *, idempotent: bool = False) -> None:
        question = self._body(kind)
        with self._operations.one(kind, limit):
            answer = await self._mesh.request(
                CLUSTER, question, timeout=limit, idempotent=idempotent
            )
            if answer != answer_to(question):
                self._operations.wrong(kind, f"the answer to {question[:60]!r} was {answer[:60]!r}")

    def _body(self, kind: str) -> bytes:
        question = Question(kind, self._name, next(self._numbers))
        return body_of(question, a_size(self._random))


async def main(name: str, seed: str, path: Path) -> None:
    random = Random(seed)
    operations = Operations()
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)

    async def go_on(work: Work, pause: float) -> None:
        while not ending.is_set():
            await work()
            await asyncio.sleep(random.uniform(0, 2 * pause))

    def report(*, ended: bool) -> None:
        clocks = {"wall": time.time(), "monotonic": time.monotonic()}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(operations.report() | clocks | {"ended": ended}))
        part.replace(path)

    async def go_on_reporting() -> None:
        while True:
            report(ended=False)
            await asyncio.sleep(_REPORT)

    async with arke.connect(wait=60.0) as mesh:
        caller = Caller(mesh, name, random, operations, ending)
        beside = [asyncio.create_task(work) for work in (operations.watch(), go_on_reporting())]
        works = [asyncio.create_task(go_on(work, pause)) for work, pause in caller.works()]
        await ending.wait()
        # What is open still after this has been found hanging before.
        ended, left = await asyncio.wait(works, timeout=AWAY + 2 * MARGIN)
        for task in (*beside, *left):
            task.cancel()
        report(ended=not left)
    for work in ended:
        work.result()


asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
