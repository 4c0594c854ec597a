"""A request as its handler receives it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from arke.mesh import Mesh


class Request:
    """One request to a service.

    `body` is bytes, and `headers` a mapping of text to text. `sender` is the id of the calling
    program, as `NODE/NUMBER`. `deadline` is the `time.monotonic()` at which the caller stops
    waiting; it is infinite for `request_many`. `cancelled` becomes True when the deadline has
    passed or the caller cancelled: a handler in a thread can read it and return early.
    """

    __slots__ = ("_mesh", "body", "cancelled", "deadline", "headers", "request_id", "sender")

    def __init__(
        self,
        request_id: int,
        body: bytes,
        deadline: float,
        sender: str,
        headers: Mapping[str, str],
        mesh: Mesh,
    ) -> None:
        self.request_id = request_id
        self.body = body
        self.deadline = deadline
        self.sender = sender
        self.headers = headers
        self.cancelled = False
        self._mesh = mesh

    @property
    def mesh(self) -> Mesh:
        """The mesh for further requests: they inherit the deadline and the `traceparent`."""
        return self._mesh.within(self.deadline, self.headers.get("traceparent"))

    def remaining(self) -> float:
        """Seconds until the deadline; zero or less once it has passed."""
        return self.deadline - time.monotonic()

    def __repr__(self) -> str:
        return f"Request({len(self.body)} bytes from {self.sender}, {self.remaining():.3f} s left)"
