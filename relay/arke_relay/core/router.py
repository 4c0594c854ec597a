"""Requests: find a taker, bring the answer back, retry where that is safe, end each once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from arke.wire.bounds import MAX_CALLS
from arke.wire.messages import Failure, Op, PeerOp
from arke_relay.core.balancer import FAULT, REFUSAL, Balancer
from arke_relay.core.calls import Call
from arke_relay.core.counters import Counters
from arke_relay.core.directory import Candidate, Directory
from arke_relay.core.parties import Party, Peer, Program

HELD_LIMIT = 256 * 1024 * 1024
"""Octets of open requests one party may leave in this relay's care."""

_CALL = Op.CALL.value
_PEER_CALL = PeerOp.CALL.value
_REPLY = Op.REPLY.value
_FAULT = Op.FAULT.value
_REFUSED = Op.REFUSED.value
_FAILED = Op.FAILED.value

_OUTCOMES = {
    Failure.NO_SUCH_CLUSTER: "no_such_cluster",
    Failure.MEMBER_LOST: "member_lost",
    Failure.OVERLOADED: "overloaded",
    Failure.TIMED_OUT: "timed_out",
}


class DuplicateCall(ValueError):
    """A party used the id of a call that is still open."""


class Router:
    """Calls come from programs here, or from peers; a peer's only go to members here."""

    def __init__(self, directory: Directory, balancer: Balancer, counters: Counters) -> None:
        self._directory = directory
        self._balancer = balancer
        self._counters = counters
        self._open: dict[int, Call] = {}
        self._parked: dict[int, Call] = {}
        self._last = 0
        self.draining = False
        """This relay leaves: calls beyond those it said it accepted are not taken."""
        self.settled = False
        """The peers have told what they serve: an unknown cluster is one that nobody serves."""

    def __len__(self) -> int:
        return len(self._open) + len(self._parked)

    # From origins.

    def request(
        self,
        program: Program,
        call_id: int,
        cluster: str,
        body: bytes,
        timeout: float,
        idempotent: bool,
        headers: Mapping[str, str] | None,
        now: float,
    ) -> None:
        """A program here asks; `timeout` in seconds. Raises DuplicateCall."""
        call = Call(
            program,
            call_id,
            cluster,
            body,
            now,
            now + timeout,
            idempotent,
            program.id,
            program.sender,
            headers,
        )
        self._accept(call, now)

    def peer_call(
        self,
        peer: Peer,
        call_id: int,
        cluster: str,
        body: bytes,
        timeout: float,
        number: int,
        headers: Mapping[str, str] | None,
        now: float,
    ) -> None:
        """A peer asks for a member here. Raises DuplicateCall."""
        if timeout <= 0:
            self._counters.drops["expired_on_the_way"] += 1
            return
        sender = f"{peer.node}/{number}"
        call = Call(
            peer, call_id, cluster, body, now, now + timeout, False, number, sender, headers
        )
        self._accept(call, now)

    def cancel(self, origin: Party, call_id: int) -> None:
        """Nobody waits for the outcome any more."""
        call = origin.calls.get(call_id)
        if call is not None:
            self._end(call, "cancelled")
            self._tell_taker(call)

    # From takers.

    def reply(self, taker: Party, call_id: int, body: bytes, now: float) -> None:
        call = self._taken(taker, call_id)
        if call is not None:
            origin = call.origin
            call.candidate.answered += 1  # type: ignore[union-attr]
            self._end(call, "replied")
            if not origin.is_peer:
                self._counters.answered(now - call.arrived)
            if not origin.outlet.put_body((_REPLY, call.origin_id, body), 2):
                self._counters.drops["reply_without_room"] += 1

    def fault(self, taker: Party, call_id: int, kind: str, text: str, now: float) -> None:
        """The handler raised."""
        call = self._taken(taker, call_id)
        if call is not None:
            assert call.candidate
            self._balancer.penalise(call.candidate, FAULT, now)
            self._end(call, "faulted")
            if not call.origin.outlet.put((_FAULT, call.origin_id, kind, text)):
                self._counters.drops["reply_without_room"] += 1

    def refused(self, taker: Party, call_id: int, now: float) -> None:
        """The handler was never started: another member may have the call."""
        call = self._taken(taker, call_id)
        if call is not None:
            self._try_another(call, now)

    def failed(self, taker: Party, call_id: int, failure: int, text: str, now: float) -> None:
        """A peer could not bring the answer of its member."""
        call = self._taken(taker, call_id)
        if call is None:
            return
        if failure == Failure.MEMBER_LOST and call.idempotent:
            call.lost = text
            self._try_another(call, now)
        else:
            self._fail(call, failure, text)

    # Comings and goings.

    def arrived(self, cluster: str, now: float) -> None:
        """The cluster has a member: calls that waited for one go there."""
        if self._parked:
            waiting = [call for call in self._parked.values() if call.cluster == cluster]
            self._unpark(waiting, now)

    def settle(self, now: float) -> None:
        self.settled = True
        self._unpark(list(self._parked.values()), now)

    def lost(self, party: Party, text: str, now: float) -> None:
        """The party is gone, with the calls it made and the calls it had."""
        for call in list(party.calls.values()):
            self._end(call, "abandoned")
            self._tell_taker(call)
        self.taker_lost(party, text, now)

    def taker_lost(self, party: Party, text: str, now: float) -> None:
        """Calls that the party had were perhaps started: only idempotent ones are tried again."""
        for call in self._calls_of(party):
            if call.idempotent:
                call.lost = text
                self._try_another(call, now)
            else:
                self._fail(call, Failure.MEMBER_LOST, text)

    def peer_draining(self, peer: Peer, last_accepted: int, now: float) -> None:
        """The peer leaves, and never saw the calls after `last_accepted`."""
        for call in self._calls_of(peer):
            if call.id > last_accepted:
                self._try_another(call, now)

    def expire(self, now: float) -> None:
        """End what has reached its deadline."""
        for call in [c for c in self._open.values() if c.deadline <= now]:
            assert call.candidate
            self._balancer.penalise(call.candidate, REFUSAL, now)
            self._time_out(call)
        for call in [c for c in self._parked.values() if c.deadline <= now]:
            self._time_out(call)

    # Inside.

    def _accept(self, call: Call, now: float) -> None:
        origin = call.origin
        if call.origin_id in origin.calls:
            raise DuplicateCall(f"call {call.origin_id} is still open")
        if call.origin_id > origin.last_call:
            if self.draining:
                # A program was told that such calls never started, and sends them elsewhere.
                if origin.is_peer:
                    origin.outlet.put((_REFUSED, call.origin_id, "this node is leaving"))
                return
            origin.last_call = call.origin_id
        origin.calls[call.origin_id] = call
        origin.held += len(call.body)
        self._last += 1
        call.id = self._last
        if len(origin.calls) > MAX_CALLS or origin.held > HELD_LIMIT:
            self._refuse(call, "too many requests are open")
            return
        self._dispatch(call, now)

    def _dispatch(self, call: Call, now: float) -> None:
        """Hand the call to a member, or end it."""
        if call.deadline <= now:
            self._time_out(call)
            return
        while True:
            cluster = self._directory.clusters.get(call.cluster)
            if cluster is None:
                if self.settled or call.origin.is_peer:
                    self._nobody(call)
                else:
                    self._parked[call.id] = call
                return
            draws = cluster.here if call.origin.is_peer else cluster.draws
            candidate = self._balancer.choose(draws, call.tried, now)
            if candidate is None:
                self._nobody(call)
                return
            if self._hand_over(call, candidate, now):
                return
            self._balancer.penalise(candidate, REFUSAL, now)
            call.tried.add(candidate.party)

    def _hand_over(self, call: Call, candidate: Candidate, now: float) -> bool:
        party = candidate.party
        if party.is_peer:
            handed = party.outlet.put_body(
                (
                    _PEER_CALL,
                    call.id,
                    call.cluster,
                    call.body,
                    int(call.deadline * 1000) + 1,
                    call.number,
                    call.headers,
                ),
                3,
            )
        else:
            handed = party.outlet.put_body(
                (
                    _CALL,
                    call.id,
                    call.body,
                    int((call.deadline - now) * 1000) + 1,
                    int(now * 1000),
                    call.sender,
                    call.headers,
                ),
                2,
            )
        if handed:
            candidate.outstanding += 1
            call.candidate = candidate
            self._open[call.id] = call
        return handed

    def _taken(self, taker: Party, call_id: int) -> Call | None:
        """The open call that `taker` answers; nobody else may."""
        call = self._open.get(call_id)
        if call is None or call.candidate is None or call.candidate.party is not taker:
            self._counters.drops["late_reply"] += 1
            return None
        return call

    def _try_another(self, call: Call, now: float) -> None:
        candidate = call.candidate
        assert candidate
        self._release(call)
        self._balancer.penalise(candidate, REFUSAL, now)
        call.tried.add(candidate.party)
        # A second hand-over takes a new id: an answer to the first is then an answer to nothing.
        self._last += 1
        call.id = self._last
        self._counters.retries += 1
        self._dispatch(call, now)

    def _nobody(self, call: Call) -> None:
        if call.lost is not None:
            self._fail(call, Failure.MEMBER_LOST, call.lost)
        elif call.tried or call.origin.is_peer:
            self._refuse(call, f"every member of {call.cluster!r} refused")
        else:
            text = f"nobody in the network serves {call.cluster!r}"
            self._fail(call, Failure.NO_SUCH_CLUSTER, text)

    def _refuse(self, call: Call, text: str) -> None:
        """No handler was started."""
        if not call.origin.is_peer:
            self._fail(call, Failure.OVERLOADED, text)
            return
        # The origin knows more members than this node: it decides whether to try another.
        self._end(call, "refused")
        if not call.origin.outlet.put((_REFUSED, call.origin_id, text)):
            self._counters.drops["reply_without_room"] += 1

    def _time_out(self, call: Call) -> None:
        self._fail(call, Failure.TIMED_OUT, f"no answer from {call.cluster!r} in time")

    def _fail(self, call: Call, failure: int, text: str) -> None:
        self._end(call, _OUTCOMES.get(Failure(failure), "failed"))
        if failure == Failure.TIMED_OUT and call.origin.is_peer:
            return  # the origin's own clock has told its caller
        if not call.origin.outlet.put((_FAILED, call.origin_id, int(failure), text)):
            self._counters.drops["reply_without_room"] += 1

    def _release(self, call: Call) -> None:
        self._open.pop(call.id, None)
        self._parked.pop(call.id, None)
        if call.candidate is not None:
            call.candidate.outstanding -= 1
            call.candidate = None

    def _end(self, call: Call, outcome: str) -> None:
        candidate = call.candidate
        self._open.pop(call.id, None)
        if candidate is None:
            self._parked.pop(call.id, None)
        else:
            candidate.outstanding -= 1
        origin = call.origin
        origin.calls.pop(call.origin_id, None)
        origin.held -= len(call.body)
        if not origin.is_peer:
            self._counters.outcomes[outcome] += 1

    def _tell_taker(self, call: Call) -> None:
        """The taker's own relay need not bring an answer that nobody waits for."""
        if call.candidate is not None and call.candidate.party.is_peer:
            call.candidate.party.outlet.put((PeerOp.DROP_CALL.value, call.id))

    def _calls_of(self, party: Party) -> list[Call]:
        return [c for c in self._open.values() if c.candidate and c.candidate.party is party]

    def _unpark(self, calls: Iterable[Call], now: float) -> None:
        for call in calls:
            del self._parked[call.id]
            self._dispatch(call, now)
