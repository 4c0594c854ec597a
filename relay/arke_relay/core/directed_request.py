"""Requests to one named member, and requests that open a tunnel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from arke.wire.chunked_body import Body
from arke.wire.messages import Op, PeerOp
from arke_relay.core.endpoints import Endpoint
from arke_relay.core.routed_request import RoutedRequest
from arke_relay.core.tunnels import TunnelRouter

_DELIVER_REQUEST = Op.DELIVER_REQUEST.value
_OFFER = Op.OFFER.value
_PEER_REQUEST_MEMBER = PeerOp.REQUEST_MEMBER.value
_PEER_OPEN = PeerOp.OPEN.value


class TunnelParameters(NamedTuple):
    """What a tunnel is opened for, and its limits in bytes."""

    purpose: int
    window: int
    """The most credit that either end grants."""
    max_message: int
    """The largest message that the origin accepts."""


class DirectedRequest(RoutedRequest):
    """A request to one named member, or one that opens a tunnel, or both."""

    is_directed = True

    __slots__ = ("member", "opens", "tunnel")

    def __init__(
        self,
        origin: Endpoint,
        origin_id: int,
        cluster: str,
        body: Body,
        deadline: float,
        sender: str,
        headers: Mapping[str, str] | None,
        *,
        member: str | None,
        tunnel: TunnelParameters | None,
    ) -> None:
        super().__init__(origin, origin_id, cluster, body, deadline, sender, headers)
        self.member = member
        """The member id; None: any member of the cluster."""
        self.tunnel = tunnel
        self.opens = tunnel is not None


def send_directed(
    request: DirectedRequest, assignee: Endpoint, tunnels: TunnelRouter, now: float
) -> bool:
    """Send the request to a member here or to the member's relay. False: its queue is full.

    Also False when either end has too many tunnels.
    """
    put_body = assignee.sink.put_body
    order = request.id  # a cancellation must not overtake the request
    local = int((request.deadline - now) * 1000) + 1, int(now * 1000)
    remote = int(request.deadline * 1000) + 1, request.origin.id, _member_number(request.member)
    body, sender, headers = request.body, request.sender, request.headers
    if request.tunnel is None:
        if assignee.is_peer:
            message = (_PEER_REQUEST_MEMBER, request.id, request.cluster, body, *remote, headers)
            return put_body(message, 3, order)
        return put_body((_DELIVER_REQUEST, request.id, body, *local, sender, headers), 2, order)
    purpose, window, max_message = request.tunnel
    window = min(window, tunnels.window_for(request.origin), tunnels.window_for(assignee))
    if not window:
        return False
    request.tunnel = tunnel = TunnelParameters(purpose, window, max_message)
    if assignee.is_peer:
        return put_body(
            (_PEER_OPEN, request.id, request.cluster, body, *remote, *tunnel, headers), 3, order
        )
    return put_body((_OFFER, request.id, body, *local, *tunnel, sender, headers), 2, order)


def _member_number(member: str | None) -> int:
    """Return the number of a member at its node; 0: any member."""
    return int(member.rpartition("/")[2]) if member else 0
