"""In whatever order things happen, a request ends once, begins at most once, leaves nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from arke.wire.messages import Failure, Op, PeerOp
from arke_relay.core.endpoints import Endpoint, Peer, Program
from support.core_harness import (
    CALL,
    FAILED,
    FAULT,
    PEER_CALL,
    REFUSED,
    REPLY,
    CoreHarness,
    sent_to,
)

Key = tuple[int, int]
"""A request of ours: the program's id, and its own number."""

SOME = st.integers(0, 1000)
CLUSTERS = st.sampled_from(["c", "d"])
TIMEOUTS = st.sampled_from([0.5, 2.0, 10.0])


@dataclass
class HandedOver:
    """One hand-over that its assignee has not answered."""

    endpoint: Endpoint
    call: int
    key: Key | None


class Requests(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.room = CoreHarness(settled=False)
        self.clients = [self.room.client(), self.room.client()]
        self.members: list[Program] = []
        self.peers: list[Peer] = []
        self.number = 0
        self.idempotent: dict[Key, bool] = {}
        self.ended: set[Key] = set()
        self.unheard: set[Key] = set()
        self.begun: Counter[Key] = Counter()
        self.pending: list[HandedOver] = []
        self.of_peers: set[tuple[Peer, int]] = set()

    @initialize(clusters=st.lists(CLUSTERS, max_size=3), members=st.integers(0, 3))
    def begin(self, clusters: list[str], members: int) -> None:
        for cluster in clusters:
            self.member_comes(cluster)
            self.peer_comes(cluster, members)

    # What programs and peers ask.

    @rule(client=SOME, cluster=CLUSTERS, timeout=TIMEOUTS, idempotent=st.booleans())
    def ask(self, client: int, cluster: str, timeout: float, idempotent: bool) -> None:
        if self.clients:
            program = self.clients[client % len(self.clients)]
            self.number += 1
            key = (program.id, self.number)
            self.idempotent[key] = idempotent
            body = b"%d %d" % key
            self.room.request(
                program, self.number, cluster, body=body, timeout=timeout, idempotent=idempotent
            )

    @precondition(lambda self: self.peers)
    @rule(peer=SOME, cluster=CLUSTERS, timeout=TIMEOUTS)
    def peer_asks(self, peer: int, cluster: str, timeout: float) -> None:
        asking = self.peers[peer % len(self.peers)]
        self.number += 1
        self.of_peers.add((asking, self.number))
        self.room.peer_request(asking, self.number, cluster, timeout=timeout)

    @precondition(lambda self: self.idempotent)
    @rule(which=SOME)
    def cancel(self, which: int) -> None:
        key = list(self.idempotent)[which % len(self.idempotent)]
        for client in self.clients:
            if client.id == key[0]:
                self.room.router.cancel(client, key[1])
        self.unheard.add(key)

    # What takers do.

    @precondition(lambda self: self.pending)
    @rule(which=SOME, outcome=st.sampled_from(["reply", "fault", "refused", "failed"]))
    def answer(self, which: int, outcome: str) -> None:
        handed = self.pending.pop(which % len(self.pending))
        router, now = self.room.router, self.room.now
        if outcome == "refused":
            self._not_begun(handed)
            router.refused(handed.endpoint, handed.call, "full", now)
        elif outcome == "fault":
            router.fault(handed.endpoint, handed.call, "E", "", now)
        elif outcome == "failed" and handed.endpoint.is_peer:
            router.failed(handed.endpoint, handed.call, Failure.MEMBER_LOST, "lost", now)
        else:
            router.reply(handed.endpoint, handed.call, b"answer", now)

    @precondition(lambda self: self.pending and self.members)
    @rule(which=SOME, forger=SOME)
    def forge(self, which: int, forger: int) -> None:
        handed = self.pending[which % len(self.pending)]
        endpoint = self.members[forger % len(self.members)]
        if endpoint is not handed.endpoint:
            self.room.router.reply(endpoint, handed.call, b"forged", self.room.now)

    # Comings and goings.

    @rule(cluster=CLUSTERS)
    def member_comes(self, cluster: str) -> None:
        if len(self.members) < 4:
            self.members.append(self.room.member(cluster))

    @rule(cluster=CLUSTERS, count=st.integers(0, 2))
    def peer_comes(self, cluster: str, count: int) -> None:
        if len(self.peers) < 3:
            self.number += 1
            node = f"node{self.number}"
            self.peers.append(self.room.peer(node, *range(count), cluster=cluster))

    @precondition(lambda self: self.members)
    @rule(which=SOME, says_so=st.booleans())
    def member_goes(self, which: int, says_so: bool) -> None:
        member = self.members.pop(which % len(self.members))
        if says_so:
            self.room.core.programs.unregister(member)
        self.room.core.programs.detach(member, self.room.now)
        self._gone(member)

    @precondition(lambda self: self.peers)
    @rule(which=SOME)
    def peer_goes(self, which: int) -> None:
        peer = self.peers.pop(which % len(self.peers))
        self.room.core.peers.unlink(peer, self.room.now)
        self._gone(peer)

    @precondition(lambda self: any(not peer.draining for peer in self.peers))
    @rule(which=SOME, accepted=SOME)
    def peer_leaves(self, which: int, accepted: int) -> None:
        staying = [peer for peer in self.peers if not peer.draining]
        peer = staying[which % len(staying)]
        calls = sorted(h.call for h in self.pending if h.endpoint is peer)
        last = ([0, *calls])[accepted % (len(calls) + 1)]
        for handed in [h for h in self.pending if h.endpoint is peer and h.call > last]:
            self.pending.remove(handed)
            self._not_begun(handed)
        self.room.core.peers.drain(peer, last, self.room.now)

    @precondition(lambda self: len(self.clients) > 1)
    @rule()
    def client_goes(self) -> None:
        client = self.clients.pop()
        self.room.core.programs.detach(client, self.room.now)
        self.unheard |= {key for key in self.idempotent if key[0] == client.id}

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.room.advance_clock(seconds)

    @rule()
    def settle(self) -> None:
        self.room.router.settle(self.room.now)

    # What must hold.

    @invariant()
    def everyone_hears_once(self) -> None:
        for peer in self.peers:
            self._taken_over(peer)
        for member in self.members:
            self._taken_over(member)
        for client in self.clients:
            for op, number, what, *_ in sent_to(client):
                key = (client.id, number)
                assert op in {REPLY, FAULT, FAILED}
                assert what != b"forged"
                if op == FAILED and what in {Failure.OVERLOADED, Failure.NO_SUCH_CLUSTER}:
                    assert not self.begun[key], "it says that no handler was started"
                assert key in self.idempotent
                assert key not in self.ended, "it ended twice"
                assert key not in self.unheard, "it was cancelled"
                self.ended.add(key)

    @invariant()
    def nothing_begins_twice(self) -> None:
        for key, times in self.begun.items():
            assert times <= 1 or self.idempotent[key]

    @invariant()
    def the_tables_agree(self) -> None:
        room = self.room
        endpoints = [*room.core.programs.by_number.values(), *room.core.peers.by_node.values()]
        calls = [call for endpoint in endpoints for call in endpoint.requests.values()]
        tables = [*room.router._assigned.values(), *room.router._waiting.values()]
        assert sorted(map(id, calls)) == sorted(map(id, tables))
        for endpoint in endpoints:
            assert endpoint.held_bytes == sum(
                call.held_bytes for call in endpoint.requests.values()
            )
        for cluster in room.core.directory.clusters.values():
            for candidate in cluster.candidates.values():
                assert candidate.outstanding == sum(
                    call.candidate is candidate for call in room.router._assigned.values()
                )

    def teardown(self) -> None:
        self.room.router.settle(self.room.now)
        self.room.advance_clock(100)
        self.everyone_hears_once()
        assert self.room.leftovers() == []
        assert set(self.idempotent) == self.ended | self.unheard

    # Inside.

    def _taken_over(self, endpoint: Endpoint) -> None:
        for message in sent_to(endpoint):
            op, number, *fields = message
            if op in {CALL, PEER_CALL}:
                words = fields[endpoint.is_peer].split()
                key = (int(words[0]), int(words[1])) if len(words) == 2 else None
                assert not (endpoint.is_peer and key is None), "a peer's request went on to a peer"
                self.pending.append(HandedOver(endpoint, number, key))
                if key is not None:
                    self.begun[key] += 1
            elif op in {PeerOp.CANCEL, Op.REQUEST_CANCELLED}:
                assert endpoint.is_peer == (op == PeerOp.CANCEL)
            else:
                assert op in {REPLY, FAULT, REFUSED, FAILED}
                assert isinstance(endpoint, Peer)
                self.of_peers.remove((endpoint, number))  # a second outcome finds none

    def _not_begun(self, handed: HandedOver) -> None:
        if handed.key is not None:
            self.begun[handed.key] -= 1

    def _gone(self, endpoint: Endpoint) -> None:
        self.pending = [handed for handed in self.pending if handed.endpoint is not endpoint]


Requests.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestRequests = Requests.TestCase
