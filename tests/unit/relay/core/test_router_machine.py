"""In any order of events a request ends once, starts at most once, and leaves no entry."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from arke.wire.messages import Failure, Op, PeerOp
from arke_relay.core.endpoints import Endpoint, Peer, Program
from support.core_harness import (
    DELIVER_REQUEST,
    FAILED,
    FAULT,
    PEER_REQUEST,
    REFUSED,
    REPLY,
    CoreHarness,
    sent_to,
)

Key = tuple[int, int]
"""A request of a local program: the program's id, and the request's number."""

INDEXES = st.integers(0, 1000)
CLUSTERS = st.sampled_from(["c", "d"])
TIMEOUTS = st.sampled_from([0.5, 2.0, 10.0])


@dataclass
class Delivery:
    """A delivered request without an outcome."""

    endpoint: Endpoint
    request_id: int
    key: Key | None


class Requests(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.harness = CoreHarness(settled=False)
        self.callers = [self.harness.caller(), self.harness.caller()]
        self.members: list[Program] = []
        self.peers: list[Peer] = []
        self.number = 0
        self.idempotent: dict[Key, bool] = {}
        self.ended: set[Key] = set()
        self.without_outcome: set[Key] = set()
        self.starts: Counter[Key] = Counter()
        self.pending: list[Delivery] = []
        self.peer_requests: set[tuple[Peer, int]] = set()

    @initialize(clusters=st.lists(CLUSTERS, max_size=3), members=st.integers(0, 3))
    def begin(self, clusters: list[str], members: int) -> None:
        for cluster in clusters:
            self.member_registers(cluster)
            self.peer_links(cluster, members)

    # Requests of programs and peers.

    @rule(caller=INDEXES, cluster=CLUSTERS, timeout=TIMEOUTS, idempotent=st.booleans())
    def send_request(self, caller: int, cluster: str, timeout: float, idempotent: bool) -> None:
        if self.callers:
            program = self.callers[caller % len(self.callers)]
            self.number += 1
            key = (program.id, self.number)
            self.idempotent[key] = idempotent
            body = b"%d %d" % key
            self.harness.request(
                program, self.number, cluster, body=body, timeout=timeout, idempotent=idempotent
            )

    @precondition(lambda self: self.peers)
    @rule(peer=INDEXES, cluster=CLUSTERS, timeout=TIMEOUTS)
    def peer_sends_request(self, peer: int, cluster: str, timeout: float) -> None:
        asking = self.peers[peer % len(self.peers)]
        self.number += 1
        self.peer_requests.add((asking, self.number))
        self.harness.peer_request(asking, self.number, cluster, timeout=timeout)

    @precondition(lambda self: self.idempotent)
    @rule(index=INDEXES)
    def cancel(self, index: int) -> None:
        key = list(self.idempotent)[index % len(self.idempotent)]
        for caller in self.callers:
            if caller.id == key[0]:
                self.harness.router.cancel(caller, key[1])
        self.without_outcome.add(key)

    # Outcomes of members.

    @precondition(lambda self: self.pending)
    @rule(index=INDEXES, outcome=st.sampled_from(["reply", "fault", "refused", "failed"]))
    def end_request(self, index: int, outcome: str) -> None:
        delivery = self.pending.pop(index % len(self.pending))
        router, now = self.harness.router, self.harness.now
        if outcome == "refused":
            self._not_started(delivery)
            router.refused(delivery.endpoint, delivery.request_id, "full", now)
        elif outcome == "fault":
            router.fault(delivery.endpoint, delivery.request_id, "E", "", now)
        elif outcome == "failed" and delivery.endpoint.is_peer:
            router.failed(delivery.endpoint, delivery.request_id, Failure.MEMBER_LOST, "lost", now)
        else:
            router.reply(delivery.endpoint, delivery.request_id, b"answer", now)

    @precondition(lambda self: self.pending and self.members)
    @rule(index=INDEXES, forger=INDEXES)
    def send_forged_outcome(self, index: int, forger: int) -> None:
        delivery = self.pending[index % len(self.pending)]
        endpoint = self.members[forger % len(self.members)]
        if endpoint is not delivery.endpoint:
            self.harness.router.reply(endpoint, delivery.request_id, b"forged", self.harness.now)

    # Attaching and detaching.

    @rule(cluster=CLUSTERS)
    def member_registers(self, cluster: str) -> None:
        if len(self.members) < 4:
            self.members.append(self.harness.member(cluster))

    @rule(cluster=CLUSTERS, count=st.integers(0, 2))
    def peer_links(self, cluster: str, count: int) -> None:
        if len(self.peers) < 3:
            self.number += 1
            node = f"node{self.number}"
            self.peers.append(self.harness.peer(node, *range(count), cluster=cluster))

    @precondition(lambda self: self.members)
    @rule(index=INDEXES, gracefully=st.booleans())
    def member_detaches(self, index: int, gracefully: bool) -> None:
        member = self.members.pop(index % len(self.members))
        if gracefully:
            self.harness.core.programs.unregister(member)
        self.harness.core.programs.detach(member, self.harness.now)
        self._endpoint_lost(member)

    @precondition(lambda self: self.peers)
    @rule(index=INDEXES)
    def peer_is_lost(self, index: int) -> None:
        peer = self.peers.pop(index % len(self.peers))
        self.harness.core.peers.unlink(peer, self.harness.now)
        self._endpoint_lost(peer)

    @precondition(lambda self: any(not peer.draining for peer in self.peers))
    @rule(index=INDEXES, accepted=INDEXES)
    def peer_drains(self, index: int, accepted: int) -> None:
        staying = [peer for peer in self.peers if not peer.draining]
        peer = staying[index % len(staying)]
        request_ids = sorted(h.request_id for h in self.pending if h.endpoint is peer)
        last = ([0, *request_ids])[accepted % (len(request_ids) + 1)]
        for delivery in [h for h in self.pending if h.endpoint is peer and h.request_id > last]:
            self.pending.remove(delivery)
            self._not_started(delivery)
        self.harness.core.peers.drain(peer, last, self.harness.now)

    @precondition(lambda self: len(self.callers) > 1)
    @rule()
    def client_detaches(self) -> None:
        caller = self.callers.pop()
        self.harness.core.programs.detach(caller, self.harness.now)
        self.without_outcome |= {key for key in self.idempotent if key[0] == caller.id}

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0]))
    def time_advances(self, seconds: float) -> None:
        self.harness.advance_clock(seconds)

    @rule()
    def settle(self) -> None:
        self.harness.router.settle(self.harness.now)

    # Invariants.

    @invariant()
    def each_request_ends_once(self) -> None:
        for peer in self.peers:
            self._read_messages(peer)
        for member in self.members:
            self._read_messages(member)
        for caller in self.callers:
            for op, number, result, *_ in sent_to(caller):
                key = (caller.id, number)
                assert op in {REPLY, FAULT, FAILED}
                assert result != b"forged"
                if op == FAILED and result in {Failure.OVERLOADED, Failure.NO_SUCH_CLUSTER}:
                    assert not self.starts[key], "the failure promises that no handler has started"
                assert key in self.idempotent
                assert key not in self.ended, "the request ended twice"
                assert key not in self.without_outcome, "a cancelled request has no outcome"
                self.ended.add(key)

    @invariant()
    def no_request_starts_twice(self) -> None:
        for key, times in self.starts.items():
            assert times <= 1 or self.idempotent[key]

    @invariant()
    def tables_are_consistent(self) -> None:
        harness = self.harness
        endpoints = [
            *harness.core.programs.by_number.values(),
            *harness.core.peers.by_node.values(),
        ]
        requests = [request for endpoint in endpoints for request in endpoint.requests.values()]
        tables = [*harness.router._assigned.values(), *harness.router._waiting.values()]
        assert sorted(map(id, requests)) == sorted(map(id, tables))
        for endpoint in endpoints:
            assert endpoint.held_bytes == sum(
                request.held_bytes for request in endpoint.requests.values()
            )
        for cluster in harness.core.directory.clusters.values():
            for candidate in cluster.candidates.values():
                assert candidate.outstanding == sum(
                    request.candidate is candidate for request in harness.router._assigned.values()
                )

    def teardown(self) -> None:
        self.harness.router.settle(self.harness.now)
        self.harness.advance_clock(100)
        self.each_request_ends_once()
        assert self.harness.leftovers() == []
        assert set(self.idempotent) == self.ended | self.without_outcome

    # Helpers.

    def _read_messages(self, endpoint: Endpoint) -> None:
        for message in sent_to(endpoint):
            op, number, *fields = message
            if op in {DELIVER_REQUEST, PEER_REQUEST}:
                words = fields[endpoint.is_peer].split()
                key = (int(words[0]), int(words[1])) if len(words) == 2 else None
                assert not (endpoint.is_peer and key is None), "forwarded from peer to peer"
                self.pending.append(Delivery(endpoint, number, key))
                if key is not None:
                    self.starts[key] += 1
            elif op in {PeerOp.CANCEL, Op.REQUEST_CANCELLED}:
                assert endpoint.is_peer == (op == PeerOp.CANCEL)
            else:
                assert op in {REPLY, FAULT, REFUSED, FAILED}
                assert isinstance(endpoint, Peer)
                self.peer_requests.remove((endpoint, number))  # a second outcome finds none

    def _not_started(self, delivery: Delivery) -> None:
        if delivery.key is not None:
            self.starts[delivery.key] -= 1

    def _endpoint_lost(self, endpoint: Endpoint) -> None:
        self.pending = [delivery for delivery in self.pending if delivery.endpoint is not endpoint]


Requests.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestRequests = Requests.TestCase
