"""Counters of the relay. Plain numbers: the hot path increments, the metrics page reads."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Upper bounds of the latency histogram, in seconds."""


class RequestOutcome(StrEnum):
    """How a request ended; the value is the label of `arke_requests_total`."""

    REPLIED = "replied"
    FAULTED = "faulted"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"
    """Its caller disconnected."""
    REFUSED = "refused"
    TUNNEL_OPENED = "opened"
    NO_SUCH_CLUSTER = "no_such_cluster"
    NO_SUCH_MEMBER = "no_such_member"
    MEMBER_LOST = "member_lost"
    OVERLOADED = "overloaded"
    TIMED_OUT = "timed_out"
    FAILED = "failed"


class DropCause(StrEnum):
    """Why a message was dropped; the value is the label of `arke_dropped_total`."""

    BROADCAST_QUEUE_FULL = "broadcast_queue_full"
    BROADCAST_BUFFER_FULL = "broadcast_buffer_full"
    REPLY_QUEUE_FULL = "reply_queue_full"
    CANCEL_QUEUE_FULL = "cancel_queue_full"
    LATE_REPLY = "late_reply"
    EXPIRED_IN_TRANSIT = "expired_in_transit"
    ANNOUNCEMENT_LIMIT_EXCEEDED = "announcement_limit_exceeded"
    UNKNOWN_TUNNEL = "unknown_tunnel"
    CREDIT_EXCEEDED = "credit_exceeded"
    MALFORMED_TUNNEL_DATA = "malformed_tunnel_data"
    EMPTY_TUNNEL_MESSAGE = "empty_tunnel_message"
    STALE_SESSION = "stale_session"
    PEER_NOT_ADMITTED = "peer_not_admitted"
    HANDSHAKE_REFUSED = "handshake_refused"
    JOIN_REFUSED = "join_refused"
    CONNECTION_NOT_ADMITTED = "connection_not_admitted"


class Counters:
    """Counts since the relay started."""

    __slots__ = (
        "broadcasts",
        "drops",
        "failures",
        "latency",
        "latency_sum",
        "published",
        "retries",
        "tunnels",
    )

    def __init__(self) -> None:
        self.failures: Counter[RequestOutcome] = Counter()
        """Requests of local programs that got no reply, by outcome."""
        self.drops: Counter[DropCause] = Counter()
        """Messages dropped, by cause."""
        self.retries = 0
        self.broadcasts = 0
        self.published = 0
        self.tunnels = 0
        """Tunnels opened through this relay."""
        self.latency = [0] * (len(BUCKETS) + 1)
        self.latency_sum = 0.0

    def replied(self, seconds: float) -> None:
        """Count a reply to a local program, `seconds` after its request arrived."""
        self.latency[bisect_left(BUCKETS, seconds)] += 1
        self.latency_sum += seconds

    @property
    def outcomes(self) -> Mapping[RequestOutcome, int]:
        """Requests of local programs, by outcome."""
        replied = sum(self.latency)
        return ({RequestOutcome.REPLIED: replied} if replied else {}) | self.failures
