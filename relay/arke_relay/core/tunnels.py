"""Tunnels through this relay: what passes between their two ends, and how they come to an end.

The ends grant each other credit, and this relay counts it: what it holds of a tunnel, on the way to
a party that does not take it, is never more than that party's side has granted.
"""

from __future__ import annotations

from arke.wire.limits import MAX_TUNNELS, MIN_WINDOW
from arke.wire.messages import Op, Purpose, TunnelClose
from arke_relay.core.counters import Counters
from arke_relay.core.endpoints import Message, Party

ROOM = 16 * 1024 * 1024
"""Octets of credit that one party's first tunnels share. Each further one gets its part of it, so
that all of them together, however many, come to a few times as much."""

_MOST_OF_PEER = 16 * MAX_TUNNELS

_DATA = Op.DATA.value
_CREDIT = Op.CREDIT.value
_END = Op.END.value


class End:
    """One end of a tunnel, as the relay in the middle knows it."""

    __slots__ = ("credit", "is_answer", "name", "other", "party", "sent_all")

    other: End

    def __init__(self, party: Party, name: int, is_answer: bool) -> None:
        self.party = party
        self.name = name
        """What messages to the party call the tunnel; those that come from it say the negative."""
        self.credit = 0
        """Octets that the party may still send."""
        self.sent_all = False
        """It has said that it sends nothing more."""
        self.is_answer = is_answer


class Tunnels:
    """All of this relay's."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self.answers = 0
        """How many carry the parts of an answer: work that a leaving relay sees through."""

    def room(self, party: Party) -> int:
        """The window that one tunnel more of the party may have; 0: it has too many."""
        count = len(party.tunnels) + party.openings
        if count >= (_MOST_OF_PEER if party.is_peer else MAX_TUNNELS):
            return 0
        return max(MIN_WINDOW, ROOM // (count + 1))

    def join(
        self, origin: Party, opened: int, taker: Party, offered: int, purpose: int = Purpose.TUNNEL
    ) -> None:
        """A tunnel is there. The origin opened it under its number, the taker was offered ours."""
        is_answer = purpose == Purpose.MULTIPART_REPLY
        one, other = End(origin, -opened, is_answer), End(taker, offered, is_answer)
        self.answers += is_answer
        one.other, other.other = other, one
        origin.tunnels[opened] = one
        taker.tunnels[-offered] = other
        self._counters.tunnels += 1

    def data(self, party: Party, name: int, total: int | None, data: bytes) -> None:
        """Octets of a tunnel came from a party."""
        end = party.tunnels.get(name)
        if end is None or end.sent_all:
            self._counters.drops["of_no_tunnel"] += 1
            return
        if not data:
            # It would cost no credit, and there is no end to how many could wait for a reader.
            self._break_both(end, "it sent a piece without octets")
            return
        end.credit -= len(data)
        if end.credit < 0:
            self._counters.drops["beyond_credit"] += 1
            self._break_both(end, "it sent more than it was granted")
            return
        other = end.other
        put_in_flow = other.party.outlet.put_in_flow
        if not put_in_flow((_DATA, other.name, total, data), other.name):
            other.party.outlet.overrun()

    def grant(self, party: Party, name: int, octets: int) -> None:
        """A party takes so many octets more."""
        end = party.tunnels.get(name)
        if end is None or not octets:
            return  # it has ended meanwhile; and nothing more is nothing to tell
        other = end.other
        other.credit += octets
        if other.credit > ROOM:
            self._break_both(end, "it granted more than there is room for")
        elif not other.party.outlet.put((_CREDIT, other.name, octets)):
            self._break_both(end, "there was no room to pass credit on")

    def end(self, party: Party, name: int, ending: int, kind: str, text: str) -> None:
        """A party ends its side."""
        end = party.tunnels.get(name)
        if end is None:
            return
        other = end.other
        if ending == TunnelClose.ABORTED:
            self._break(other, kind, text)
        else:
            self._put(other.party, (_END, other.name, ending, kind, text), other.name)
        end.sent_all = True
        if ending != TunnelClose.SEND_CLOSED or other.sent_all:
            self._forget(end)

    def lost(self, party: Party, text: str) -> None:
        """The party is gone, and all its tunnels with it."""
        while party.tunnels:
            # The other end may be the same party's: each tunnel is forgotten once.
            end = next(iter(party.tunnels.values()))
            self._break(end.other, "", text)
            self._forget(end)

    def refuse(self, taker: Party, offered: int, text: str) -> None:
        """The taker accepted what nobody waits for any more."""
        self._put(taker, (_END, offered, TunnelClose.ABORTED.value, "", text), offered)

    def _break_both(self, end: End, text: str) -> None:
        for each in (end, end.other):
            self._break(each, "", text)
        self._forget(end)

    def _break(self, end: End, kind: str, text: str) -> None:
        end.party.outlet.drop_flow(end.name)
        self._put(end.party, (_END, end.name, TunnelClose.ABORTED.value, kind, text), end.name)

    def _put(self, party: Party, message: Message, tunnel: int) -> None:
        """Tell a party what it must know; who leaves no room for that does not read."""
        if not party.outlet.put_in_flow(message, tunnel):
            party.outlet.overrun()

    def _forget(self, end: End) -> None:
        self.answers -= end.is_answer
        other = end.other
        for each in (end, other):
            each.party.tunnels.pop(-each.name, None)
            del each.other  # or both would stay until a collection of everything
