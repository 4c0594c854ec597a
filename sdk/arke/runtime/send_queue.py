"""First come, first served: whoever waits for a link that takes more."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

from arke.errors import RequestTimeout

if TYPE_CHECKING:
    from arke.runtime.reconnect import Attachment
    from arke.runtime.relay_connection import RelayLink

_AWAY = 30.0
"""Seconds that a message without a deadline waits for a relay that is away."""


class Turn:
    """One caller's place in the line, for as long as the `with` block.

    What is said later must not leave earlier: who waits is served in the order of coming, and
    while somebody waits whoever comes has to wait too.
    """

    def __init__(self, attachment: Attachment, deadline: float | None) -> None:
        self._attachment = attachment
        self._until = time.monotonic() + _AWAY
        if deadline is not None:
            self._until = min(self._until, deadline)

    def __enter__(self) -> Self:
        self._attachment.line[self] = None
        return self

    def __exit__(self, *_: object) -> None:
        line = self._attachment.line
        del line[self]
        if line:
            call(next(iter(line.values())))

    async def link(self) -> RelayLink:
        """The link, once there is one with room and nobody is before us.

        Raises MeshClosed, or RequestTimeout when the relay is away until the deadline, or for long.
        """
        attachment = self._attachment
        while True:
            attachment.check_open()
            link = attachment.link
            if link is not None and link.closed.done():
                link = None  # it has ended, and only the attachment has yet to hear of it
            if link is not None and not link.congested and next(iter(attachment.line)) is self:
                return link
            future = attachment.line[self] = attachment.loop.create_future()
            left = max(0.0, self._until - time.monotonic())
            called, _ = await asyncio.wait((future,), timeout=left)
            if not called:
                why = "is away" if link is None else "does not read"
                raise RequestTimeout(f"the relay at {attachment.where} {why}")


def call(waiting: asyncio.Future[None] | None) -> None:
    """Let somebody in the line look again."""
    if waiting and not waiting.done():
        waiting.set_result(None)
