"""IPC between the master and a worker: one JSON object a line, over a socket pair.

worker → master   {"ready": true}        it has joined the mesh and accepts connections
                  {"report": {…}}        its counters, gauges and backends, see `aggregate`
                  {"get_totals": true}   asks for the totals of all workers
master → worker   {"retire": true}       stop accepting; exit when no connection is left
                  {"reopen": true}       the access log has been renamed
                  {"totals": {…}}        the answer to `get_totals`

A master may run another version than its workers. Each side ignores messages it does not know.
"""

from __future__ import annotations

import json
from typing import Any

Message = dict[str, Any]

MAX_MESSAGE = 8 * 1024 * 1024  # bytes; a report on 200 backends has about 100 KB


def encode(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class LineDecoder:
    """Splits received bytes into messages."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are complete. Raises ValueError for invalid ones."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > MAX_MESSAGE:
            raise ValueError(f"an IPC message must have at most {MAX_MESSAGE} bytes")
        messages = [json.loads(line) for line in lines]
        if not all(isinstance(message, dict) for message in messages):
            raise ValueError("an IPC message must be a JSON object")
        return messages
