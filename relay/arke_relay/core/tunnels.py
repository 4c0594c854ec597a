"""Forward tunnel data between the two ends of each tunnel, and enforce its credit.

The ends grant each other credit, and this relay counts it. So the bytes of a tunnel that wait here
for a slow endpoint never exceed what that endpoint's side has granted.
"""

from __future__ import annotations

from arke.wire.limits import MAX_TUNNELS, MIN_WINDOW
from arke.wire.messages import Op, Purpose, TunnelClose
from arke_relay.core.counters import Counters, DropCause
from arke_relay.core.endpoints import Endpoint, Message

CREDIT_LIMIT = 16 * 1024 * 1024
"""Bytes of credit for the first tunnel of an endpoint. The n-th tunnel gets one n-th of it, so the
total of all tunnels stays within a few times this."""

_MAX_PEER_TUNNELS = 16 * MAX_TUNNELS

_DATA = Op.DATA.value
_CREDIT = Op.CREDIT.value
_END = Op.END.value


class TunnelEnd:
    """One end of a tunnel through this relay."""

    __slots__ = ("carries_reply", "credit", "endpoint", "id", "other", "send_closed")

    other: TunnelEnd

    def __init__(self, endpoint: Endpoint, tunnel_id: int, carries_reply: bool) -> None:
        self.endpoint = endpoint
        self.id = tunnel_id
        """The tunnel's id in messages to the endpoint; messages from it carry the negative."""
        self.credit = 0
        """Bytes that the endpoint may still send."""
        self.send_closed = False
        """It has sent its last data."""
        self.carries_reply = carries_reply


class TunnelRouter:
    """All tunnels through this relay."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.reply_tunnels = 0
        """Open tunnels that carry a multipart reply: a draining relay waits for them."""

    def window_for(self, endpoint: Endpoint) -> int:
        """Return the window that one more tunnel of the endpoint may have; 0: it has too many."""
        count = len(endpoint.tunnels) + endpoint.opening_tunnels
        if count >= (_MAX_PEER_TUNNELS if endpoint.is_peer else MAX_TUNNELS):
            return 0
        return max(MIN_WINDOW, CREDIT_LIMIT // (count + 1))

    def connect(
        self,
        origin: Endpoint,
        opened: int,
        assignee: Endpoint,
        offered: int,
        purpose: int = Purpose.TUNNEL,
    ) -> None:
        """Connect the two ends of an accepted tunnel.

        `opened` is its request id at the origin, `offered` the one sent to the assignee.
        """
        carries_reply = purpose == Purpose.MULTIPART_REPLY
        one = TunnelEnd(origin, -opened, carries_reply)
        other = TunnelEnd(assignee, offered, carries_reply)
        self.reply_tunnels += carries_reply
        one.other, other.other = other, one
        origin.tunnels[opened] = one
        assignee.tunnels[-offered] = other
        self._counters.tunnels += 1

    def data(self, endpoint: Endpoint, tunnel_id: int, total: int | None, data: bytes) -> None:
        """Forward data to the other end. A breach of credit aborts the tunnel."""
        end = endpoint.tunnels.get(tunnel_id)
        if end is None or end.send_closed:
            self._counters.drops[DropCause.UNKNOWN_TUNNEL] += 1
            return
        if not data:
            # Empty messages would cost no credit, so any number of them could queue up.
            self._abort_both(end, "protocol error: an empty data message")
            return
        end.credit -= len(data)
        if end.credit < 0:
            self._counters.drops[DropCause.CREDIT_EXCEEDED] += 1
            self._abort_both(end, "protocol error: more data than credit")
            return
        other = end.other
        put_in_flow = other.endpoint.sink.put_in_flow
        if not put_in_flow((_DATA, other.id, total, data), other.id):
            other.endpoint.sink.overrun()

    def grant(self, endpoint: Endpoint, tunnel_id: int, size: int) -> None:
        """Forward the endpoint's grant of `size` more bytes to the other end."""
        end = endpoint.tunnels.get(tunnel_id)
        if end is None or not size:
            return  # the tunnel has closed meanwhile, or the grant changes nothing
        other = end.other
        other.credit += size
        if other.credit > CREDIT_LIMIT:
            self._abort_both(end, f"protocol error: more than {CREDIT_LIMIT} bytes of credit")
        elif not other.endpoint.sink.put((_CREDIT, other.id, size)):
            self._abort_both(end, "the queue for credit messages is full")

    def end(self, endpoint: Endpoint, tunnel_id: int, ending: int, kind: str, text: str) -> None:
        """Close or abort the endpoint's side, and tell the other end."""
        end = endpoint.tunnels.get(tunnel_id)
        if end is None:
            return
        other = end.other
        if ending == TunnelClose.ABORTED:
            self._abort(other, kind, text)
        else:
            self._put(other.endpoint, (_END, other.id, ending, kind, text), other.id)
        end.send_closed = True
        if ending != TunnelClose.SEND_CLOSED or other.send_closed:
            self._remove(end)

    def endpoint_lost(self, endpoint: Endpoint, text: str) -> None:
        """Abort all tunnels of an endpoint that disconnected."""
        while endpoint.tunnels:
            # Both ends may be the same endpoint's: removing one removes the other.
            end = next(iter(endpoint.tunnels.values()))
            self._abort(end.other, "", text)
            self._remove(end)

    def reject_acceptance(self, assignee: Endpoint, offered: int, text: str) -> None:
        """Abort a tunnel that the assignee accepted too late."""
        self._put(assignee, (_END, offered, TunnelClose.ABORTED.value, "", text), offered)

    def _abort_both(self, end: TunnelEnd, text: str) -> None:
        for each in (end, end.other):
            self._abort(each, "", text)
        self._remove(end)

    def _abort(self, end: TunnelEnd, kind: str, text: str) -> None:
        end.endpoint.sink.drop_flow(end.id)
        self._put(end.endpoint, (_END, end.id, TunnelClose.ABORTED.value, kind, text), end.id)

    def _put(self, endpoint: Endpoint, message: Message, tunnel_id: int) -> None:
        """Queue a message that must not be lost; reset the connection if the queue is full."""
        if not endpoint.sink.put_in_flow(message, tunnel_id):
            endpoint.sink.overrun()

    def _remove(self, end: TunnelEnd) -> None:
        self.reply_tunnels -= end.carries_reply
        other = end.other
        for each in (end, other):
            each.endpoint.tunnels.pop(-each.id, None)
            del each.other  # breaks the reference cycle
