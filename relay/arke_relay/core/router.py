"""Requests: find a assignee, bring the answer back, retry where that is safe, end each once."""

from __future__ import annotations

from collections.abc import Iterable

from arke.wire.chunked_body import Body
from arke.wire.limits import CHUNK, MAX_PENDING_REQUESTS
from arke.wire.malformed import Malformed
from arke.wire.messages import Failure, Op, PeerOp
from arke_relay.core.balancer import FAULT, REFUSAL, Balancer
from arke_relay.core.counters import Counters
from arke_relay.core.directed_request import DirectedRequest, send_directed
from arke_relay.core.directory import Directory
from arke_relay.core.endpoints import Endpoint, Peer
from arke_relay.core.routed_request import RoutedRequest
from arke_relay.core.tunnels import TunnelRouter

HELD_LIMIT = 256 * 1024 * 1024
"""Octets of open requests one endpoint may leave in this relay's care."""

_CALL = Op.DELIVER_REQUEST.value
_PEER_CALL = PeerOp.REQUEST.value
_REPLY = Op.REPLY.value
_FAULT = Op.FAULT.value
_REFUSED = Op.REFUSED.value
_FAILED = Op.FAILED.value
_ACCEPT = Op.ACCEPT.value

_OUTCOMES = {
    Failure.NO_SUCH_CLUSTER: "no_such_cluster",
    Failure.MEMBER_LOST: "member_lost",
    Failure.OVERLOADED: "overloaded",
    Failure.TIMED_OUT: "timed_out",
    Failure.NO_SUCH_MEMBER: "no_such_member",
}


class DuplicateRequest(Malformed):
    """A endpoint used the id of a call, or of a tunnel, that is still open."""


class Router:
    """Calls come from programs here, or from peers; a peer's only go to members here."""

    def __init__(
        self, directory: Directory, balancer: Balancer, counters: Counters, tunnels: TunnelRouter
    ) -> None:
        self._tunnels = tunnels
        self._clusters = directory.clusters
        self._members = directory.members
        self._balancer = balancer
        self._choose = balancer.choose
        self._counters = counters
        self._assigned: dict[int, RoutedRequest] = {}
        self._waiting: dict[int, RoutedRequest] = {}
        self._last = 0
        self.draining = False
        """This relay leaves: calls beyond those it said it accepted are not taken."""
        self.settled = False
        """The peers have told what they serve: an unknown cluster is one that nobody serves."""

    def __len__(self) -> int:
        return len(self._assigned) + len(self._waiting)

    # From origins.

    def request(self, call: RoutedRequest, now: float) -> None:
        """A program here asks, or a peer for a member here. Raises DuplicateRequest."""
        origin = call.origin
        calls = origin.requests
        number = call.origin_id
        if number > origin.last_request_id:
            if self.draining:
                # A program was told that such calls never started, and sends them elsewhere.
                if origin.is_peer:
                    origin.sink.put((_REFUSED, number, "this node is leaving"))
                return
            origin.last_request_id = number
        elif number in calls or number in origin.tunnels:
            raise DuplicateRequest(f"call {number} is still open")
        calls[number] = call
        origin.held_bytes += call.size
        self._last = call.id = self._last + 1
        if origin.held_bytes > HELD_LIMIT or len(calls) > MAX_PENDING_REQUESTS:
            self._refuse(call, "its caller has too many requests open")
        else:
            self._dispatch(call, now)

    def cancel(self, origin: Endpoint, request_id: int) -> None:
        """Nobody waits for the outcome any more."""
        call = origin.requests.get(request_id)
        if call is not None:
            self._end(call, "cancelled")
            self._cancel_at_assignee(call)

    # From takers.

    def reply(self, assignee: Endpoint, request_id: int, body: Body, now: float) -> None:
        call = self._assigned.get(request_id)
        candidate = call.candidate if call is not None else None
        if call is None or candidate is None or candidate.endpoint is not assignee:
            self._counters.drops["late_reply"] += 1
            return
        if call.opens:
            self._fail_wrong_reply(call)
            return
        # What `_end` does, here without a call: every answered request comes this way.
        del self._assigned[request_id]
        candidate.outstanding -= 1
        candidate.answered += 1
        origin = call.origin
        del origin.requests[call.origin_id]
        origin.held_bytes -= call.size
        if not origin.is_peer:
            self._counters.replied(now - call.arrived)
        put_body = origin.sink.put_body
        if not put_body((_REPLY, call.origin_id, body), 2):
            self._counters.drops["reply_queue_full"] += 1
            text = "there was no room to bring the answer"
            origin.sink.put((_FAULT, call.origin_id, "Overloaded", text))

    def accept(self, assignee: Endpoint, request_id: int, window: int, largest: int) -> None:
        """The member takes the tunnel it was offered, with windows and messages of these sizes."""
        call = self._assigned.get(request_id)
        if call is None or call.candidate is None or call.candidate.endpoint is not assignee:
            self._tunnels.refuse(assignee, request_id, "nobody waits for it any more")
            return
        if not isinstance(call, DirectedRequest) or call.opening is None:
            self._fail_wrong_reply(call)
            return
        origin = call.origin
        self._end(call, "opened")
        window = min(window, call.opening.window)
        self._tunnels.join(origin, call.origin_id, assignee, request_id, call.opening.purpose)
        if not origin.sink.put_in_flow((_ACCEPT, call.origin_id, window, largest), None):
            origin.sink.overrun()

    def fault(self, assignee: Endpoint, request_id: int, kind: str, text: str, now: float) -> None:
        """The handler raised."""
        call = self._assigned_request(assignee, request_id)
        if call is not None:
            assert call.candidate
            self._balancer.penalise(call.candidate, FAULT, now)
            self._end(call, "faulted")
            if not call.origin.sink.put((_FAULT, call.origin_id, kind, text)):
                self._counters.drops["reply_queue_full"] += 1

    def refused(self, assignee: Endpoint, request_id: int, reason: str, now: float) -> None:
        """The handler was never started: another member may have the call."""
        call = self._assigned_request(assignee, request_id)
        if call is not None:
            call.refusal = reason
            self._retry(call, now)

    def failed(
        self, assignee: Endpoint, request_id: int, failure: int, text: str, now: float
    ) -> None:
        """A peer could not bring the answer of its member."""
        call = self._assigned_request(assignee, request_id)
        if call is None:
            return
        if failure == Failure.MEMBER_LOST and call.idempotent:
            call.lost = text
            self._retry(call, now)
        else:
            self._fail(call, failure, text)

    # Comings and goings.

    def arrived(self, cluster: str, now: float) -> None:
        """The cluster has a member: calls that waited for one go there."""
        if self._waiting:
            # A call for one member does not say which cluster that is in.
            names = cluster, ""
            waiting = [call for call in self._waiting.values() if call.cluster in names]
            self._dispatch_waiting(waiting, now)

    def settle(self, now: float) -> None:
        self.settled = True
        self._dispatch_waiting(list(self._waiting.values()), now)

    def lost(self, endpoint: Endpoint, text: str, now: float) -> None:
        """The endpoint is gone, with the calls it made and the calls it had."""
        for call in list(endpoint.requests.values()):
            self._end(call, "abandoned")
            self._cancel_at_assignee(call)
        self.assignee_lost(endpoint, text, now)

    def assignee_lost(self, endpoint: Endpoint, text: str, now: float) -> None:
        """Fail the requests assigned to the endpoint; retry those that are idempotent."""
        for call in self._assigned_to(endpoint):
            if call.idempotent:
                call.lost = text
                self._retry(call, now)
            else:
                self._fail(call, Failure.MEMBER_LOST, text)

    def peer_draining(self, peer: Peer, last_accepted: int, now: float) -> None:
        """The peer leaves, and never saw the calls after `last_accepted`."""
        for call in self._assigned_to(peer):
            if call.id > last_accepted:
                self._retry(call, now)

    def expire(self, now: float) -> None:
        """End what has reached its deadline."""
        for call in [c for c in self._assigned.values() if c.deadline <= now]:
            assert call.candidate
            # A caller with little patience tells little about the member.
            patience = min(1.0, call.deadline - call.arrived)
            self._balancer.penalise(call.candidate, REFUSAL * patience, now)
            self._time_out(call)
        for call in [c for c in self._waiting.values() if c.deadline <= now]:
            self._time_out(call)

    # Inside.

    def _dispatch(self, call: RoutedRequest, now: float) -> None:
        """Hand the call to a member, or end it."""
        origin = call.origin
        if call.deadline <= now:
            if origin.is_peer and not call.tried:
                self._counters.drops["expired_in_transit"] += 1
            self._time_out(call)
            return
        if not call.is_plain:
            self._dispatch_directed(call, now)
            return
        choose = self._choose
        while True:
            cluster = self._clusters.get(call.cluster)
            if cluster is None:
                self._wait_or_fail(call)
                return
            draws = cluster.here if origin.is_peer else cluster.draws
            candidate = choose(draws, call.tried, now)
            if candidate is None:
                self._fail_unassignable(call)
                return
            endpoint = candidate.endpoint
            put_body = endpoint.sink.put_body
            # A large one is overtaken by small ones: what takes it back must keep behind it.
            order = None if call.size <= CHUNK else call.id
            if endpoint.is_peer:
                expiry = int(call.deadline * 1000) + 1
                name, program, headers = call.cluster, origin.id, call.headers
                handed = put_body(
                    (_PEER_CALL, call.id, name, call.body, expiry, program, headers), 3, order
                )
            else:
                left = int((call.deadline - now) * 1000) + 1
                stamp, sender, headers = int(now * 1000), call.sender, call.headers
                handed = put_body(
                    (_CALL, call.id, call.body, left, stamp, sender, headers), 2, order
                )
            if handed:
                candidate.outstanding += 1
                call.candidate = candidate
                self._assigned[call.id] = call
                return
            self._balancer.penalise(candidate, REFUSAL, now)
            call.tried |= {endpoint}

    def _dispatch_directed(self, call: RoutedRequest, now: float) -> None:
        """The same for a call that is for one member alone, or opens a tunnel."""
        assert isinstance(call, DirectedRequest)
        origin = call.origin
        while True:
            if call.to is not None:
                candidate = self._members.get(call.to)
                found = candidate is not None
                if candidate is not None and candidate.endpoint in call.tried:
                    candidate = None
            else:
                cluster = self._clusters.get(call.cluster)
                found = cluster is not None
                draws = (cluster.here if origin.is_peer else cluster.draws) if cluster else ()
                candidate = self._choose(draws, call.tried, now)
            if not found:
                self._wait_or_fail(call)
                return
            if candidate is None:
                self._fail_unassignable(call)
                return
            call.cluster = candidate.cluster
            if send_directed(call, candidate.endpoint, self._tunnels, now):
                candidate.outstanding += 1
                if call.opens:
                    origin.opening_tunnels += 1
                    candidate.endpoint.opening_tunnels += 1
                call.candidate = candidate
                self._assigned[call.id] = call
                return
            self._balancer.penalise(candidate, REFUSAL, now)
            call.tried |= {candidate.endpoint}

    def _wait_or_fail(self, call: RoutedRequest) -> None:
        """Whom the call is for is not known here. Peers may still tell, soon after the start."""
        if self.settled or call.origin.is_peer:
            self._fail_unassignable(call)
        else:
            self._waiting[call.id] = call

    def _assigned_request(self, assignee: Endpoint, request_id: int) -> RoutedRequest | None:
        """The open call that `assignee` answers; nobody else may."""
        call = self._assigned.get(request_id)
        if call is None or call.candidate is None or call.candidate.endpoint is not assignee:
            self._counters.drops["late_reply"] += 1
            return None
        return call

    def _retry(self, call: RoutedRequest, now: float) -> None:
        candidate = call.candidate
        assert candidate
        self._release(call)
        call.candidate = None
        self._balancer.penalise(candidate, REFUSAL, now)
        call.tried |= {candidate.endpoint}
        # A second hand-over takes a new id: an answer to the first is then an answer to nothing.
        self._last += 1
        call.id = self._last
        self._counters.retries += 1
        self._dispatch(call, now)

    def _fail_unassignable(self, call: RoutedRequest) -> None:
        if call.lost is not None:
            self._fail(call, Failure.MEMBER_LOST, call.lost)
        elif call.tried:
            self._refuse(call, call.refusal or "no member could be reached")
        elif isinstance(call, DirectedRequest) and call.to is not None:
            self._fail(call, Failure.NO_SUCH_MEMBER, f"there is no member {call.to}")
        elif call.origin.is_peer:
            self._refuse(call, "the member is no longer there")
        else:
            text = f"nobody in the network serves {call.cluster!r}"
            self._fail(call, Failure.NO_SUCH_CLUSTER, text)

    def _refuse(self, call: RoutedRequest, reason: str) -> None:
        """No handler was started."""
        if not call.origin.is_peer:
            text = f"nobody in {call.cluster!r} took the request: {reason}"
            self._fail(call, Failure.OVERLOADED, text)
            return
        # The origin knows more members than this node: it decides whether to try another.
        self._end(call, "refused")
        if not call.origin.sink.put((_REFUSED, call.origin_id, reason)):
            self._counters.drops["reply_queue_full"] += 1

    def _time_out(self, call: RoutedRequest) -> None:
        self._fail(call, Failure.TIMED_OUT, f"no answer from {call.cluster!r} in time")
        if call.opens:
            self._cancel_at_assignee(call)  # a request's assignee knows by itself when to stop

    def _fail(self, call: RoutedRequest, failure: int, text: str) -> None:
        self._end(call, _OUTCOMES.get(Failure(failure), "failed"))
        if failure == Failure.TIMED_OUT and call.origin.is_peer:
            return  # the origin's own clock has told its caller
        if not call.origin.sink.put((_FAILED, call.origin_id, int(failure), text)):
            self._counters.drops["reply_queue_full"] += 1

    def _fail_wrong_reply(self, call: RoutedRequest) -> None:
        self._fail(call, Failure.MEMBER_LOST, "the member answered what it was not asked")

    def _release(self, call: RoutedRequest) -> None:
        """Nobody has the call any more."""
        self._assigned.pop(call.id, None)
        self._waiting.pop(call.id, None)
        candidate = call.candidate
        if candidate is not None:
            candidate.outstanding -= 1
            if call.opens:
                call.origin.opening_tunnels -= 1
                candidate.endpoint.opening_tunnels -= 1

    def _end(self, call: RoutedRequest, outcome: str) -> None:
        self._release(call)
        origin = call.origin
        origin.requests.pop(call.origin_id, None)
        origin.held_bytes -= call.size
        if not origin.is_peer:
            self._counters.failures[outcome] += 1

    def _cancel_at_assignee(self, call: RoutedRequest) -> None:
        """Whoever has it need not bring an answer that nobody waits for."""
        if call.candidate is not None:
            assignee = call.candidate.endpoint
            op = PeerOp.CANCEL.value if assignee.is_peer else Op.REQUEST_CANCELLED.value
            if not assignee.sink.put_in_flow((op, call.id), call.id):
                self._counters.drops["cancel_queue_full"] += 1

    def _assigned_to(self, endpoint: Endpoint) -> list[RoutedRequest]:
        return [
            c for c in self._assigned.values() if c.candidate and c.candidate.endpoint is endpoint
        ]

    def _dispatch_waiting(self, calls: Iterable[RoutedRequest], now: float) -> None:
        for call in calls:
            del self._waiting[call.id]
            self._dispatch(call, now)
