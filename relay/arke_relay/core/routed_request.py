"""One request on its way, as the relay that must see it through keeps it."""

from __future__ import annotations

from collections.abc import Mapping

from arke.wire.chunked_body import Body
from arke_relay.core.directory import Candidate
from arke_relay.core.endpoints import Endpoint

_NOBODY: frozenset[Endpoint] = frozenset()
_ENTRY = 128
"""Octets that Python needs for a header beside its text."""


class RoutedRequest:
    """`origin` waits for it under `origin_id`; `candidate` has it under `id`.

    The body is kept until the end, because a refusal sends it to another member.
    """

    is_plain = True
    """Any member may answer it, and the answer is one message."""

    opens: bool = False
    """The answer is a tunnel."""

    __slots__ = (
        "arrived",
        "body",
        "candidate",
        "cluster",
        "deadline",
        "headers",
        "id",
        "idempotent",
        "lost",
        "origin",
        "origin_id",
        "refusal",
        "sender",
        "size",
        "tried",
    )

    def __init__(
        self,
        origin: Endpoint,
        origin_id: int,
        cluster: str,
        body: Body,
        now: float,
        deadline: float,
        idempotent: bool,
        sender: str,
        headers: Mapping[str, str] | None,
    ) -> None:
        self.origin = origin
        self.origin_id = origin_id
        self.cluster = cluster
        self.body = body
        self.arrived = now
        self.deadline = deadline
        self.idempotent = idempotent
        self.sender = sender
        self.headers = headers
        self.size = len(body) if headers is None else len(body) + _cost(headers)
        """Octets that are kept of it."""
        self.id = 0
        self.candidate: Candidate | None = None
        self.tried = _NOBODY
        self.refusal = ""
        """Why the last member that was asked did not take it."""
        self.lost: str | None = None
        """What became of a member that perhaps began it; None: nobody has begun it."""


def _cost(headers: Mapping[str, str]) -> int:
    return sum(_ENTRY + len(name) + len(text) for name, text in headers.items())
