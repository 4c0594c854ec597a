"""What the master and a worker say to each other: one JSON object a line, over a socket pair.

worker → master   {"ready": true}       it is attached to the mesh, and serves
                  {"report": {…}}       its numbers, as in `totals`
                  {"ask": true}         the numbers of all workers are wanted
master → worker   {"retire": true}      accept no more; leave when nothing runs
                  {"reopen": true}      the access log has been renamed
                  {"totals": {…}}       the answer to `ask`

A master lives longer than the version it was started from: each side passes over what it does not
know, and a worker that cannot do without what is missing ends before it is ready.
"""

from __future__ import annotations

import json
from typing import Any

Message = dict[str, Any]

MOST = 8 * 1024 * 1024  # octets of a message; the numbers of 200 backends are some 100 KB


def line(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class LineDecoder:
    """Cuts what arrives into messages."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are whole now. Raises ValueError for what is none."""
        *whole, self._held = (self._held + data).split(b"\n")
        if len(self._held) > MOST:
            raise ValueError(f"a message of more than {MOST} octets")
        messages = [json.loads(one) for one in whole]
        if not all(isinstance(message, dict) for message in messages):
            raise ValueError("a message that is no object")
        return messages
