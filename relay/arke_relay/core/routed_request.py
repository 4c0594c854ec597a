"""One request that this relay routes, from its arrival until its outcome."""

from __future__ import annotations

from collections.abc import Mapping

from arke.wire.chunked_body import Body
from arke_relay.core.directory import Candidate
from arke_relay.core.endpoints import Endpoint

_NONE_TRIED: frozenset[Endpoint] = frozenset()
_HEADER_OVERHEAD = 128
"""Bytes of memory that one header takes beside its text."""


class RoutedRequest:
    """A request that `origin` made as `origin_id`, and that `candidate` was assigned as `id`.

    Its body is kept until the outcome, because a refusal sends it to another member.
    """

    is_directed = False
    """Sent to a named member, or opens a tunnel: a DirectedRequest."""

    opens: bool = False
    """It opens a tunnel."""

    __slots__ = (
        "arrived",
        "body",
        "candidate",
        "cluster",
        "deadline",
        "headers",
        "held_bytes",
        "id",
        "idempotent",
        "loss",
        "origin",
        "origin_id",
        "refusal",
        "sender",
        "tried",
    )

    def __init__(
        self,
        origin: Endpoint,
        origin_id: int,
        cluster: str,
        body: Body,
        deadline: float,
        sender: str,
        headers: Mapping[str, str] | None,
    ) -> None:
        self.origin = origin
        self.origin_id = origin_id
        self.cluster = cluster
        self.body = body
        self.deadline = deadline
        self.sender = sender
        """The member id of the program that made the request."""
        self.headers = headers
        self.held_bytes = len(body) if headers is None else len(body) + _header_bytes(headers)
        """What it counts against the origin's limit."""
        self.arrived = 0.0
        """Set by the router."""
        self.idempotent = False
        """Retried also after its handler may have started."""
        self.id = 0
        self.candidate: Candidate | None = None
        """The assignee; None while no member has the request."""
        self.tried = _NONE_TRIED
        """Endpoints that refused it, failed, or had a full queue."""
        self.refusal = ""
        """The reason of the last refusal."""
        self.loss: str | None = None
        """How an assignee was lost that may have started the handler; None: none was."""


def _header_bytes(headers: Mapping[str, str]) -> int:
    return sum(_HEADER_OVERHEAD + len(name) + len(text) for name, text in headers.items())
