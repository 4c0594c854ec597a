"""One tunnel from its opening to its end: what comes back is what was sent, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AsyncExitStack
from random import Random

import arke
from soak.programs.operations import Operations
from soak.questions import CLUSTER, TUNNEL, Question, body_of

OPENED = "tunnel opened"
TIMEOUT = 10.0
SILENCE = 20.0
"""Seconds in which a tunnel that lives moves on: the longest pause of a process, and much room."""

_MOST = 150  # messages
_SIZES = (10, 500, 5_000, 200_000, 1_000_000)  # the last ones are over most windows
_WEIGHTS = (100, 60, 30, 8, 1)
_WINDOWS = (64 * 1024, 256 * 1024, 4 * 1024 * 1024)
_PACES = (0.0, 0.005, 0.1)  # seconds between two messages


class Conversation:
    """A tunnel to a member that echoes."""

    def __init__(
        self,
        mesh: arke.Mesh,
        caller: str,
        number: int,
        random: Random,
        operations: Operations,
        ending: asyncio.Event,
    ) -> None:
        self._mesh = mesh
        self._caller = caller
        self._number = number
        self._random = random
        self._operations = operations
        self._ending = ending
        self._sent: deque[bytes] = deque()
        """What has not come back yet: no more than the windows of both ends hold."""

    async def hold(self) -> None:
        """Open it, talk, close it."""
        one = self._operations.one
        async with AsyncExitStack() as stack:
            with one(OPENED, TIMEOUT) as opened:
                window = self._random.choice(_WINDOWS)
                tunnel = await stack.enter_async_context(
                    self._mesh.tunnel(CLUSTER, timeout=TIMEOUT, window=window)
                )
            if opened.done:
                sending = asyncio.create_task(self._send(tunnel))
                await self._read(tunnel)
                await sending  # it ends well, or by the error that ended the reading
            with one("tunnel closed", SILENCE):
                await stack.aclose()

    async def _send(self, tunnel: arke.Tunnel) -> None:
        pace = self._random.choice(_PACES)
        for count in range(self._random.randrange(_MOST)):
            size = self._random.choices(_SIZES, _WEIGHTS)[0]
            message = body_of(Question(TUNNEL, f"{self._caller}-{self._number}", count), size)
            self._sent.append(message)
            with self._operations.one("tunnel sent", SILENCE) as sent:
                await tunnel.send(message)
            if not sent.done:
                return
            if self._ending.is_set():
                break
            await asyncio.sleep(pace)
        tunnel.close_send()

    async def _read(self, tunnel: arke.Tunnel) -> None:
        while True:
            message: bytes | None = None
            with self._operations.one("tunnel read", SILENCE) as read:
                message = await anext(tunnel, None)
            if not read.done:
                return
            if message is None:
                if self._sent:
                    self._operations.wrong(
                        TUNNEL, f"a tunnel ended well with {len(self._sent)} missing"
                    )
                return
            if not self._sent or message != self._sent.popleft():
                self._operations.wrong(
                    TUNNEL, f"a tunnel brought {message[:60]!r}, which was not next"
                )
                tunnel.abort("it cannot be trusted")
                return
