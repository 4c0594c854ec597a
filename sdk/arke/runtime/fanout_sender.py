"""Send broadcasts and events: at once on the fast path, else after waiting for room."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from arke.runtime.arguments import too_large
from arke.runtime.reconnect import Attachment


class FanoutSender:
    """Sends messages to all members of a cluster, or to all subscribers of a topic."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment

    def send_now(self, op: int, name: str, body: bytes) -> bool:
        """Queue a message whose arguments are checked. False: it must wait, or is too large."""
        connection = self._attachment.connection
        if (
            connection is None
            or connection.congested
            or self._attachment.send_queue.places
            or len(body) > connection.max_message
        ):
            return False
        send_fanout = connection.send_fanout
        return send_fanout(op, name, body)

    async def send(
        self,
        op: int,
        name: str,
        body: bytes,
        headers: Mapping[str, str] | None,
        deadline: float,
    ) -> None:
        """Wait for a connection with room, then queue the message.

        Raises MeshClosed, MessageTooLarge, or RequestTimeout when the deadline passes first.
        """
        connection = self._attachment.connection
        if connection is not None and len(body) > connection.max_message:
            raise too_large(body, connection.max_message)
        with self._attachment.send_queue.enter(deadline) as place:
            while True:
                connection = await place.connection()
                if len(body) > connection.max_message:  # another relay may have another limit
                    raise too_large(body, connection.max_message)
                if connection.send_body((op, name, body, headers), 2, (op, name)):
                    return
                await asyncio.sleep(0)
