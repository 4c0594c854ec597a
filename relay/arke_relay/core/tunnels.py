"""TunnelRouter through this relay: what passes between their two ends, and how they come to an end.

The ends grant each other credit, and this relay counts it: what it holds of a tunnel, on the way to
a endpoint that does not take it, is never more than that endpoint's side has granted.
"""

from __future__ import annotations

from arke.wire.limits import MAX_TUNNELS, MIN_WINDOW
from arke.wire.messages import Op, Purpose, TunnelClose
from arke_relay.core.counters import Counters
from arke_relay.core.endpoints import Endpoint, Message

ROOM = 16 * 1024 * 1024
"""Bytes of credit that the tunnels of one endpoint share."""

_MOST_OF_PEER = 16 * MAX_TUNNELS

_DATA = Op.DATA.value
_CREDIT = Op.CREDIT.value
_END = Op.END.value


class End:
    """One end of a tunnel, as the relay in the middle knows it."""

    __slots__ = ("credit", "endpoint", "is_answer", "name", "other", "sent_all")

    other: End

    def __init__(self, endpoint: Endpoint, name: int, is_answer: bool) -> None:
        self.endpoint = endpoint
        self.name = name
        """The tunnel's id in messages to the endpoint; messages from it carry the negative."""
        self.credit = 0
        """Octets that the endpoint may still send."""
        self.sent_all = False
        """It has said that it sends nothing more."""
        self.is_answer = is_answer


class TunnelRouter:
    """All of this relay's."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.answers = 0
        """How many carry the parts of an answer: work that a leaving relay sees through."""

    def room(self, endpoint: Endpoint) -> int:
        """The window that one tunnel more of the endpoint may have; 0: it has too many."""
        count = len(endpoint.tunnels) + endpoint.opening_tunnels
        if count >= (_MOST_OF_PEER if endpoint.is_peer else MAX_TUNNELS):
            return 0
        return max(MIN_WINDOW, ROOM // (count + 1))

    def join(
        self,
        origin: Endpoint,
        opened: int,
        assignee: Endpoint,
        offered: int,
        purpose: int = Purpose.TUNNEL,
    ) -> None:
        """Register an accepted tunnel: `opened` is the origin's id, `offered` the assignee's."""
        is_answer = purpose == Purpose.MULTIPART_REPLY
        one, other = End(origin, -opened, is_answer), End(assignee, offered, is_answer)
        self.answers += is_answer
        one.other, other.other = other, one
        origin.tunnels[opened] = one
        assignee.tunnels[-offered] = other
        self._counters.tunnels += 1

    def data(self, endpoint: Endpoint, name: int, total: int | None, data: bytes) -> None:
        """Octets of a tunnel came from a endpoint."""
        end = endpoint.tunnels.get(name)
        if end is None or end.sent_all:
            self._counters.drops["unknown_tunnel"] += 1
            return
        if not data:
            # It would cost no credit, and there is no end to how many could wait for a reader.
            self._break_both(end, "it sent a piece without octets")
            return
        end.credit -= len(data)
        if end.credit < 0:
            self._counters.drops["credit_exceeded"] += 1
            self._break_both(end, "it sent more than it was granted")
            return
        other = end.other
        put_in_flow = other.endpoint.sink.put_in_flow
        if not put_in_flow((_DATA, other.name, total, data), other.name):
            other.endpoint.sink.overrun()

    def grant(self, endpoint: Endpoint, name: int, octets: int) -> None:
        """A endpoint takes so many octets more."""
        end = endpoint.tunnels.get(name)
        if end is None or not octets:
            return  # it has ended meanwhile; and nothing more is nothing to tell
        other = end.other
        other.credit += octets
        if other.credit > ROOM:
            self._break_both(end, "it granted more than there is room for")
        elif not other.endpoint.sink.put((_CREDIT, other.name, octets)):
            self._break_both(end, "there was no room to pass credit on")

    def end(self, endpoint: Endpoint, name: int, ending: int, kind: str, text: str) -> None:
        """A endpoint ends its side."""
        end = endpoint.tunnels.get(name)
        if end is None:
            return
        other = end.other
        if ending == TunnelClose.ABORTED:
            self._break(other, kind, text)
        else:
            self._put(other.endpoint, (_END, other.name, ending, kind, text), other.name)
        end.sent_all = True
        if ending != TunnelClose.SEND_CLOSED or other.sent_all:
            self._forget(end)

    def lost(self, endpoint: Endpoint, text: str) -> None:
        """The endpoint is gone, and all its tunnels with it."""
        while endpoint.tunnels:
            # The other end may be the same endpoint's: each tunnel is forgotten once.
            end = next(iter(endpoint.tunnels.values()))
            self._break(end.other, "", text)
            self._forget(end)

    def refuse(self, assignee: Endpoint, offered: int, text: str) -> None:
        """The assignee accepted what nobody waits for any more."""
        self._put(assignee, (_END, offered, TunnelClose.ABORTED.value, "", text), offered)

    def _break_both(self, end: End, text: str) -> None:
        for each in (end, end.other):
            self._break(each, "", text)
        self._forget(end)

    def _break(self, end: End, kind: str, text: str) -> None:
        end.endpoint.sink.drop_flow(end.name)
        self._put(end.endpoint, (_END, end.name, TunnelClose.ABORTED.value, kind, text), end.name)

    def _put(self, endpoint: Endpoint, message: Message, tunnel: int) -> None:
        """Tell a endpoint what it must know; who leaves no room for that does not read."""
        if not endpoint.sink.put_in_flow(message, tunnel):
            endpoint.sink.overrun()

    def _forget(self, end: End) -> None:
        self.answers -= end.is_answer
        other = end.other
        for each in (end, other):
            each.endpoint.tunnels.pop(-each.name, None)
            del each.other  # or both would stay until a collection of everything
