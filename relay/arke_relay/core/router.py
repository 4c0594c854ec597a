"""Route requests: choose a member, return its outcome, retry where that is safe.

Each request ends once: with a reply, a fault, a failure, or because its caller is gone. A request
is retried on another member if its handler never started, or if the caller says that it is
idempotent.
"""

from __future__ import annotations

from collections.abc import Iterable

from arke.wire.chunked_body import Body
from arke.wire.limits import CHUNK, MAX_PENDING_REQUESTS
from arke.wire.malformed import Malformed
from arke.wire.messages import Failure, Op, PeerOp
from arke_relay.core.balancer import FAULT, REFUSAL, PowerOfTwoBalancer
from arke_relay.core.counters import Counters, DropCause, RequestOutcome
from arke_relay.core.directed_request import DirectedRequest, send_directed
from arke_relay.core.directory import Directory
from arke_relay.core.endpoints import Endpoint, Peer
from arke_relay.core.routed_request import RoutedRequest
from arke_relay.core.tunnels import TunnelRouter

HELD_LIMIT = 256 * 1024 * 1024
"""Bytes of open requests that one endpoint may have at this relay."""

_DELIVER_REQUEST = Op.DELIVER_REQUEST.value
_PEER_REQUEST = PeerOp.REQUEST.value
_REPLY = Op.REPLY.value
_FAULT = Op.FAULT.value
_REFUSED = Op.REFUSED.value
_FAILED = Op.FAILED.value
_ACCEPT = Op.ACCEPT.value

_OUTCOMES = {
    Failure.NO_SUCH_CLUSTER: RequestOutcome.NO_SUCH_CLUSTER,
    Failure.MEMBER_LOST: RequestOutcome.MEMBER_LOST,
    Failure.OVERLOADED: RequestOutcome.OVERLOADED,
    Failure.TIMED_OUT: RequestOutcome.TIMED_OUT,
    Failure.NO_SUCH_MEMBER: RequestOutcome.NO_SUCH_MEMBER,
}


class DuplicateRequest(Malformed):
    """An endpoint reused the id of a request, or of a tunnel, that is still open."""


class Router:
    """Routes requests of local programs to any member, and requests of peers to local members."""

    def __init__(
        self,
        directory: Directory,
        balancer: PowerOfTwoBalancer,
        counters: Counters,
        tunnels: TunnelRouter,
    ) -> None:
        self._tunnels = tunnels
        self._clusters = directory.clusters
        self._members = directory.members
        self._balancer = balancer
        self._choose = balancer.choose
        self._counters = counters
        self._assigned: dict[int, RoutedRequest] = {}
        """Requests that a member or a peer has, by our ids."""
        self._waiting: dict[int, RoutedRequest] = {}
        """Requests for unknown clusters or members, until the directory is complete."""
        self._last_id = 0
        self.draining = False
        """The relay is shutting down and takes no new requests."""
        self.settled = False
        """The directory is complete: a cluster that is not in it has no members."""

    def __len__(self) -> int:
        return len(self._assigned) + len(self._waiting)

    # From origins.

    def request(self, request: RoutedRequest, now: float) -> None:
        """Route a new request. Raises DuplicateRequest."""
        request.arrived = now
        origin = request.origin
        requests = origin.requests
        number = request.origin_id
        if number > origin.last_request_id:
            if self.draining:
                # DRAINING names the last accepted request, so the SDK resends this one.
                if origin.is_peer:
                    origin.sink.put((_REFUSED, number, "the node is shutting down"))
                return
            origin.last_request_id = number
        elif number in requests or number in origin.tunnels:
            raise DuplicateRequest(f"request {number} is still open")
        requests[number] = request
        origin.held_bytes += request.held_bytes
        self._last_id = request.id = self._last_id + 1
        if origin.held_bytes > HELD_LIMIT or len(requests) > MAX_PENDING_REQUESTS:
            self._refuse(request, "the caller has too many open requests")
        else:
            self._dispatch(request, now)

    def cancel(self, origin: Endpoint, request_id: int) -> None:
        """End a request whose caller no longer waits for the outcome."""
        request = origin.requests.get(request_id)
        if request is not None:
            self._end(request, RequestOutcome.CANCELLED)
            self._cancel_at_assignee(request)

    # From assignees.

    def reply(self, assignee: Endpoint, request_id: int, body: Body, now: float) -> None:
        request = self._assigned.get(request_id)
        candidate = request.candidate if request is not None else None
        if request is None or candidate is None or candidate.endpoint is not assignee:
            self._counters.drops[DropCause.LATE_REPLY] += 1
            return
        if request.opens:
            self._fail_wrong_reply(request)
            return
        # The body of `_end`, inlined: this is the hot path.
        del self._assigned[request_id]
        candidate.outstanding -= 1
        candidate.answered += 1
        origin = request.origin
        del origin.requests[request.origin_id]
        origin.held_bytes -= request.held_bytes
        if not origin.is_peer:
            self._counters.replied(now - request.arrived)
        put_body = origin.sink.put_body
        if not put_body((_REPLY, request.origin_id, body), 2):
            self._counters.drops[DropCause.REPLY_QUEUE_FULL] += 1
            text = "the reply does not fit into the queue to the caller"
            origin.sink.put((_FAULT, request.origin_id, "Overloaded", text))

    def accept(self, assignee: Endpoint, request_id: int, window: int, max_message: int) -> None:
        """Open a tunnel that the member accepted, with its limits in bytes."""
        request = self._assigned.get(request_id)
        if (
            request is None
            or request.candidate is None
            or request.candidate.endpoint is not assignee
        ):
            text = "the tunnel request was cancelled or timed out"
            self._tunnels.reject_acceptance(assignee, request_id, text)
            return
        if not isinstance(request, DirectedRequest) or request.tunnel is None:
            self._fail_wrong_reply(request)
            return
        origin = request.origin
        self._end(request, RequestOutcome.TUNNEL_OPENED)
        window = min(window, request.tunnel.window)
        purpose = request.tunnel.purpose
        self._tunnels.connect(origin, request.origin_id, assignee, request_id, purpose)
        if not origin.sink.put_in_flow((_ACCEPT, request.origin_id, window, max_message), None):
            origin.sink.overrun()

    def fault(self, assignee: Endpoint, request_id: int, kind: str, text: str, now: float) -> None:
        """Return the exception that the handler raised."""
        request = self._assigned_request(assignee, request_id)
        if request is not None:
            assert request.candidate
            self._balancer.penalise(request.candidate, FAULT, now)
            self._end(request, RequestOutcome.FAULTED)
            if not request.origin.sink.put((_FAULT, request.origin_id, kind, text)):
                self._counters.drops[DropCause.REPLY_QUEUE_FULL] += 1

    def refused(self, assignee: Endpoint, request_id: int, reason: str, now: float) -> None:
        """Retry a request whose handler was not started."""
        request = self._assigned_request(assignee, request_id)
        if request is not None:
            request.refusal = reason
            self._retry(request, now)

    def failed(
        self, assignee: Endpoint, request_id: int, failure: int, text: str, now: float
    ) -> None:
        """Handle a peer's failure to get a reply from its member."""
        request = self._assigned_request(assignee, request_id)
        if request is None:
            return
        if failure == Failure.MEMBER_LOST and request.idempotent:
            request.loss = text
            self._retry(request, now)
        else:
            self._fail(request, failure, text)

    # Members and peers join and leave.

    def member_joined(self, cluster: str, now: float) -> None:
        """Dispatch the requests that wait for a member of the cluster."""
        if self._waiting:
            # A request to one member does not name the member's cluster.
            names = cluster, ""
            waiting = [each for each in self._waiting.values() if each.cluster in names]
            self._dispatch_waiting(waiting, now)

    def settle(self, now: float) -> None:
        """The directory is complete: requests for unknown clusters fail from now on."""
        self.settled = True
        self._dispatch_waiting(list(self._waiting.values()), now)

    def endpoint_lost(self, endpoint: Endpoint, text: str, now: float) -> None:
        """End the requests that the endpoint made, and fail or retry those it was assigned."""
        for request in list(endpoint.requests.values()):
            self._end(request, RequestOutcome.ABANDONED)
            self._cancel_at_assignee(request)
        for request in self._assigned_to(endpoint):
            # Its handler may have started.
            if request.idempotent:
                request.loss = text
                self._retry(request, now)
            else:
                self._fail(request, Failure.MEMBER_LOST, text)

    def peer_draining(self, peer: Peer, last_accepted: int, now: float) -> None:
        """Retry the requests that a draining peer has not accepted."""
        for request in self._assigned_to(peer):
            if request.id > last_accepted:
                self._retry(request, now)

    def expire(self, now: float) -> None:
        """Fail the requests whose deadline has passed."""
        for request in [each for each in self._assigned.values() if each.deadline <= now]:
            assert request.candidate
            # A short timeout says little about the member.
            timeout = min(1.0, request.deadline - request.arrived)
            self._balancer.penalise(request.candidate, REFUSAL * timeout, now)
            self._time_out(request)
        for request in [each for each in self._waiting.values() if each.deadline <= now]:
            self._time_out(request)

    # Internal.

    def _dispatch(self, request: RoutedRequest, now: float) -> None:
        """Assign the request to a member, or end it."""
        origin = request.origin
        if request.deadline <= now:
            if origin.is_peer and not request.tried:
                self._counters.drops[DropCause.EXPIRED_IN_TRANSIT] += 1
            self._time_out(request)
            return
        if request.is_directed:
            self._dispatch_directed(request, now)
            return
        choose = self._choose
        while True:
            cluster = self._clusters.get(request.cluster)
            if cluster is None:
                self._wait_or_fail(request)
                return
            draws = cluster.here if origin.is_peer else cluster.draws
            candidate = choose(draws, request.tried, now)
            if candidate is None:
                self._fail_unassignable(request)
                return
            endpoint = candidate.endpoint
            put_body = endpoint.sink.put_body
            # Small messages overtake a large request; its cancellation must not.
            order = None if request.held_bytes <= CHUNK else request.id
            if endpoint.is_peer:
                expiry = int(request.deadline * 1000) + 1
                name, program, headers = request.cluster, origin.id, request.headers
                queued = put_body(
                    (_PEER_REQUEST, request.id, name, request.body, expiry, program, headers),
                    3,
                    order,
                )
            else:
                remaining = int((request.deadline - now) * 1000) + 1
                stamp, sender, headers = int(now * 1000), request.sender, request.headers
                queued = put_body(
                    (_DELIVER_REQUEST, request.id, request.body, remaining, stamp, sender, headers),
                    2,
                    order,
                )
            if queued:
                candidate.outstanding += 1
                request.candidate = candidate
                self._assigned[request.id] = request
                return
            self._balancer.penalise(candidate, REFUSAL, now)
            request.tried |= {endpoint}

    def _dispatch_directed(self, request: RoutedRequest, now: float) -> None:
        """`_dispatch` for a request to one member, or one that opens a tunnel."""
        assert isinstance(request, DirectedRequest)
        origin = request.origin
        while True:
            if request.member is not None:
                candidate = self._members.get(request.member)
                found = candidate is not None
                if candidate is not None and candidate.endpoint in request.tried:
                    candidate = None
            else:
                cluster = self._clusters.get(request.cluster)
                found = cluster is not None
                draws = (cluster.here if origin.is_peer else cluster.draws) if cluster else ()
                candidate = self._choose(draws, request.tried, now)
            if not found:
                self._wait_or_fail(request)
                return
            if candidate is None:
                self._fail_unassignable(request)
                return
            request.cluster = candidate.cluster
            if send_directed(request, candidate.endpoint, self._tunnels, now):
                candidate.outstanding += 1
                if request.opens:
                    origin.opening_tunnels += 1
                    candidate.endpoint.opening_tunnels += 1
                request.candidate = candidate
                self._assigned[request.id] = request
                return
            self._balancer.penalise(candidate, REFUSAL, now)
            request.tried |= {candidate.endpoint}

    def _wait_or_fail(self, request: RoutedRequest) -> None:
        """Keep a request for an unknown cluster or member while the directory is incomplete."""
        if self.settled or request.origin.is_peer:
            self._fail_unassignable(request)
        else:
            self._waiting[request.id] = request

    def _assigned_request(self, assignee: Endpoint, request_id: int) -> RoutedRequest | None:
        """Return the request if it is open and assigned to this endpoint."""
        request = self._assigned.get(request_id)
        if (
            request is None
            or request.candidate is None
            or request.candidate.endpoint is not assignee
        ):
            self._counters.drops[DropCause.LATE_REPLY] += 1
            return None
        return request

    def _retry(self, request: RoutedRequest, now: float) -> None:
        candidate = request.candidate
        assert candidate
        self._release(request)
        request.candidate = None
        self._balancer.penalise(candidate, REFUSAL, now)
        request.tried |= {candidate.endpoint}
        # Under a new id, a late reply to the first attempt is not mistaken for one to the second.
        self._last_id += 1
        request.id = self._last_id
        self._counters.retries += 1
        self._dispatch(request, now)

    def _fail_unassignable(self, request: RoutedRequest) -> None:
        """No member is left to try."""
        if request.loss is not None:
            self._fail(request, Failure.MEMBER_LOST, request.loss)
        elif request.tried:
            self._refuse(request, request.refusal or "the queue to each of them is full")
        elif isinstance(request, DirectedRequest) and request.member is not None:
            self._fail(request, Failure.NO_SUCH_MEMBER, f"there is no member {request.member}")
        elif request.origin.is_peer:
            self._refuse(request, "the member has left")
        else:
            text = f"cluster {request.cluster!r} has no members"
            self._fail(request, Failure.NO_SUCH_CLUSTER, text)

    def _refuse(self, request: RoutedRequest, reason: str) -> None:
        """End a request that no handler was started for."""
        if not request.origin.is_peer:
            text = f"no member of {request.cluster!r} accepted the request: {reason}"
            self._fail(request, Failure.OVERLOADED, text)
            return
        # The origin's relay may know more members: it decides whether to retry.
        self._end(request, RequestOutcome.REFUSED)
        if not request.origin.sink.put((_REFUSED, request.origin_id, reason)):
            self._counters.drops[DropCause.REPLY_QUEUE_FULL] += 1

    def _time_out(self, request: RoutedRequest) -> None:
        text = f"no reply from {request.cluster!r} before the deadline"
        self._fail(request, Failure.TIMED_OUT, text)
        if request.opens:
            self._cancel_at_assignee(request)  # other assignees stop at the deadline themselves

    def _fail(self, request: RoutedRequest, failure: int, text: str) -> None:
        self._end(request, _OUTCOMES.get(Failure(failure), RequestOutcome.FAILED))
        if failure == Failure.TIMED_OUT and request.origin.is_peer:
            return  # the origin's relay times the request out itself
        if not request.origin.sink.put((_FAILED, request.origin_id, int(failure), text)):
            self._counters.drops[DropCause.REPLY_QUEUE_FULL] += 1

    def _fail_wrong_reply(self, request: RoutedRequest) -> None:
        self._fail(request, Failure.MEMBER_LOST, "the member sent the wrong kind of reply")

    def _release(self, request: RoutedRequest) -> None:
        """Take the request away from its assignee."""
        self._assigned.pop(request.id, None)
        self._waiting.pop(request.id, None)
        candidate = request.candidate
        if candidate is not None:
            candidate.outstanding -= 1
            if request.opens:
                request.origin.opening_tunnels -= 1
                candidate.endpoint.opening_tunnels -= 1

    def _end(self, request: RoutedRequest, outcome: RequestOutcome) -> None:
        self._release(request)
        origin = request.origin
        origin.requests.pop(request.origin_id, None)
        origin.held_bytes -= request.held_bytes
        if not origin.is_peer:
            self._counters.failures[outcome] += 1

    def _cancel_at_assignee(self, request: RoutedRequest) -> None:
        """Tell the assignee to stop working on the request."""
        if request.candidate is not None:
            assignee = request.candidate.endpoint
            op = PeerOp.CANCEL.value if assignee.is_peer else Op.REQUEST_CANCELLED.value
            if not assignee.sink.put_in_flow((op, request.id), request.id):
                self._counters.drops[DropCause.CANCEL_QUEUE_FULL] += 1

    def _assigned_to(self, endpoint: Endpoint) -> list[RoutedRequest]:
        return [
            each
            for each in self._assigned.values()
            if each.candidate and each.candidate.endpoint is endpoint
        ]

    def _dispatch_waiting(self, requests: Iterable[RoutedRequest], now: float) -> None:
        for request in requests:
            del self._waiting[request.id]
            self._dispatch(request, now)
