"""Use one tunnel from its opening to its end, and check that it echoes all messages in order."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AsyncExitStack
from random import Random

import arke
from soak.messages import CLUSTER, TUNNEL, MessageHead, make_body
from soak.programs.operations import Operations

OPENED = "tunnel opened"
TIMEOUT = 10.0
SILENCE = 20.0
"""Seconds in which an open tunnel makes progress: the longest pause of a process, with a margin."""

_MAX_MESSAGES = 150  # messages
_SIZES = (10, 500, 5_000, 200_000, 1_000_000)  # the last ones exceed most windows
_WEIGHTS = (100, 60, 30, 8, 1)
_WINDOWS = (64 * 1024, 256 * 1024, 4 * 1024 * 1024)
_PACES = (0.0, 0.005, 0.1)  # seconds between two messages


class TunnelSession:
    """A tunnel to a member that echoes its messages."""

    def __init__(
        self,
        mesh: arke.Mesh,
        caller: str,
        number: int,
        random: Random,
        operations: Operations,
        stopping: asyncio.Event,
    ) -> None:
        self._mesh = mesh
        self._caller = caller
        self._number = number
        self._random = random
        self._operations = operations
        self._stopping = stopping
        self._sent: deque[bytes] = deque()
        """Messages that were not echoed yet; the windows of both ends limit them."""

    async def run(self) -> None:
        """Open the tunnel, send and check messages, close it."""
        track = self._operations.track
        async with AsyncExitStack() as stack:
            with track(OPENED, TIMEOUT) as opened:
                window = self._random.choice(_WINDOWS)
                tunnel = await stack.enter_async_context(
                    self._mesh.tunnel(CLUSTER, timeout=TIMEOUT, window=window)
                )
            if opened.done:
                sending = asyncio.create_task(self._send(tunnel))
                await self._read(tunnel)
                await sending  # it succeeds, or fails by the error that ended the reading
            with track("tunnel closed", SILENCE):
                await stack.aclose()

    async def _send(self, tunnel: arke.Tunnel) -> None:
        pace = self._random.choice(_PACES)
        for count in range(self._random.randrange(_MAX_MESSAGES)):
            size = self._random.choices(_SIZES, _WEIGHTS)[0]
            message = make_body(MessageHead(TUNNEL, f"{self._caller}-{self._number}", count), size)
            self._sent.append(message)
            with self._operations.track("tunnel sent", SILENCE) as sent:
                await tunnel.send(message)
            if not sent.done:
                return
            if self._stopping.is_set():
                break
            await asyncio.sleep(pace)
        tunnel.close_send()

    async def _read(self, tunnel: arke.Tunnel) -> None:
        while True:
            message: bytes | None = None
            with self._operations.track("tunnel read", SILENCE) as read:
                message = await anext(tunnel, None)
            if not read.done:
                return
            if message is None:
                if self._sent:
                    self._operations.wrong(
                        TUNNEL, f"a tunnel ended without {len(self._sent)} messages"
                    )
                return
            if not self._sent or message != self._sent.popleft():
                self._operations.wrong(
                    TUNNEL, f"a tunnel delivered {message[:60]!r}, not the next message"
                )
                tunnel.abort("wrong message")
                return
