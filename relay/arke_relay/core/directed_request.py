"""Calls that are not plain: for one member alone, or to open a tunnel. How they are handed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from arke.wire.chunked_body import Body
from arke.wire.messages import Op, PeerOp
from arke_relay.core.endpoints import Endpoint
from arke_relay.core.routed_request import RoutedRequest
from arke_relay.core.tunnels import TunnelRouter

_CALL = Op.DELIVER_REQUEST.value
_OFFER = Op.OFFER.value
_PEER_ASK = PeerOp.REQUEST_MEMBER.value
_PEER_OPEN = PeerOp.OPEN.value


class TunnelParameters(NamedTuple):
    """What a tunnel is to be like. Sizes are octets."""

    purpose: int
    window: int
    """The most credit that either end grants."""
    largest: int
    """The largest message that the origin takes."""


class DirectedRequest(RoutedRequest):
    """A call for one member alone, or one that opens a tunnel, or both."""

    is_plain = False

    __slots__ = ("opening", "opens", "to")

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
        *,
        to: str | None,
        opening: TunnelParameters | None,
    ) -> None:
        super().__init__(
            origin, origin_id, cluster, body, now, deadline, idempotent, sender, headers
        )
        self.to = to
        """The member's id; None: any member of the cluster."""
        self.opening = opening
        self.opens = opening is not None


def send_directed(
    call: DirectedRequest, endpoint: Endpoint, tunnels: TunnelRouter, now: float
) -> bool:
    """Hand the call to a member, or to the relay of one. False: there is no room."""
    put_body = endpoint.sink.put_body
    order = call.id  # what takes it back must keep behind it
    here = int((call.deadline - now) * 1000) + 1, int(now * 1000)
    there = int(call.deadline * 1000) + 1, call.origin.id, _number(call.to)
    if call.opening is None:
        if endpoint.is_peer:
            message = (_PEER_ASK, call.id, call.cluster, call.body, *there, call.headers)
            return put_body(message, 3, order)
        return put_body((_CALL, call.id, call.body, *here, call.sender, call.headers), 2, order)
    purpose, window, largest = call.opening
    window = min(window, tunnels.room(call.origin), tunnels.room(endpoint))
    if not window:
        return False
    call.opening = opening = TunnelParameters(purpose, window, largest)
    if endpoint.is_peer:
        body, headers = call.body, call.headers
        return put_body(
            (_PEER_OPEN, call.id, call.cluster, body, *there, *opening, headers), 3, order
        )
    sender, headers = call.sender, call.headers
    return put_body((_OFFER, call.id, call.body, *here, *opening, sender, headers), 2, order)


def _number(member: str | None) -> int:
    """The number of a member at its node; 0: of any."""
    return int(member.rpartition("/")[2]) if member else 0
