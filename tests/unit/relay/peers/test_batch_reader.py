"""Batches of peers: valid messages, and malformed ones that end the link."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgpack import packb

from arke.wire.limits import CHUNK, MAX_METADATA
from arke.wire.messages import Failure, Op, PeerOp
from arke_relay.core.membership import LossReason
from support.core_harness import DELIVER_REQUEST, sent_to
from support.simulated_network import SimulatedNetwork, SimulatedRelay

STAMP = 1
BAD_MAPS: list[Any] = [None, [], "x", {"a": 1}, {1: "a"}, {"a": "x" * MAX_METADATA}]
NOT_NUMBERS: list[Any] = [None, "1", 1.0, True, b"1", (), {}]


class LinkedRelays:
    """A linked pair of relays. `frame` makes a frame of the second one's current session."""

    def __init__(self) -> None:
        self.mesh = SimulatedNetwork(2)
        self.here, self.there = self.mesh.all
        self.member = self.here.serve("c")
        self.caller = self.here.core.programs.attach("caller", self.member.sink)
        self.there.serve("d")
        self.mesh.run(1)
        assert self.mesh.converged()

    def frame(self, *messages: Any) -> bytes:
        back = self.there.membership.neighbours[self.here.node]
        acknowledged = back.peer_session
        stamp = int(self.there.now * 1000)
        return b"".join(packb(m) for m in ((back.session, stamp, acknowledged), *messages))

    def send(self, *messages: Any) -> None:
        self.receive(self.frame(*messages))

    def receive(self, frame: bytes) -> None:
        self.here.batches.receive(self.there.node, frame, self.here.now)

    @property
    def linked(self) -> bool:
        return self.there.node in self.here.membership.neighbours


@contextmanager
def link_ends(relays: LinkedRelays) -> Iterator[None]:
    """Check that the block ends the link and leaves no entry, and that the relays link again."""
    yield
    assert not relays.linked
    assert relays.here.losses[-1][1] == LossReason.PROTOCOL_ERROR
    assert relays.here.core.peers.by_node == {}
    assert list(relays.here.core.directory.clusters) == ["c"]
    relays.mesh.run(1)
    assert relays.mesh.converged(), relays.mesh.describe()


def test_heartbeat_is_an_empty_batch() -> None:
    relays = LinkedRelays()
    relays.send()
    assert relays.linked


def test_messages_are_handled_in_order() -> None:
    relays = LinkedRelays()
    relays.send(
        (PeerOp.MEMBER_JOINED, "x", 1, {}),
        (PeerOp.MEMBER_JOINED, "y", 2, {}),
        (PeerOp.MEMBER_LEFT, "x", 1),
        (PeerOp.SUBSCRIBED, "t"),
    )
    assert set(relays.here.core.directory.clusters) == {"c", "d", "y"}
    assert set(relays.here.core.directory.topics) == {"t"}
    relays.send((PeerOp.UNSUBSCRIBED, "t"))
    assert relays.here.core.directory.topics == {}


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xc1", id="never used"),
        pytest.param(packb(7), id="a number"),
        pytest.param(packb((1, 2)), id="two numbers"),
        pytest.param(packb((1, 2, 3, 4)), id="four numbers"),
        pytest.param(packb({"a": 1, "b": 2, "c": 3}), id="a map"),
        pytest.param(b"\x93\x01\x02", id="half a header"),
        *(
            pytest.param(packb((header[0], header[1], header[2])), id=f"header {header}")
            for value in NOT_NUMBERS
            for header in [(value, STAMP, 0), (99, value, 0), (99, STAMP, value)]
        ),
    ],
)
def test_malformed_frame_ends_the_link(frame: bytes) -> None:
    relays = LinkedRelays()
    with link_ends(relays):
        relays.receive(frame)


@pytest.mark.parametrize(
    "message",
    [
        7,
        "text",
        {},
        (),
        ("op",),
        (None,),
        (1.5,),
        ((1,),),
        (63,),
        (64,),
        (2**64 - 1,),
        (Op.HELLO, "arke", 1, "me"),
        (Op.REQUEST, 1, "c", b"", 1, False, None),
        (PeerOp.MEMBER_JOINED,),
        *((PeerOp.MEMBER_JOINED, "x", value, {}) for value in (*NOT_NUMBERS, -1)),
        *((PeerOp.MEMBER_JOINED, "x", 1, value) for value in BAD_MAPS),
        *((PeerOp.MEMBER_JOINED, value, 1, {}) for value in (None, 1, b"x", "", "n" * 256)),
        (PeerOp.SUBSCRIBED, 1),
        (PeerOp.KNOWN_PEER, "node", "address", "port"),
        (PeerOp.DRAINING, "now"),
        (PeerOp.REQUEST, 1, "c", b""),
        *((PeerOp.REQUEST, value, "c", b"", 10**15, 1, None) for value in NOT_NUMBERS),
        *((PeerOp.REQUEST, 1, "c", b"", value, 1, None) for value in (*NOT_NUMBERS, 2**64 - 1)),
        *((PeerOp.REQUEST, 1, "c", b"", 10**15, value, None) for value in NOT_NUMBERS),
        (PeerOp.REQUEST, 1, "c", "text", 10**15, 1, None),
        (PeerOp.REQUEST, 1, "c", 7, 10**15, 1, None),
        (PeerOp.CANCEL, "1"),
        (Op.CHUNK, 1, CHUNK, b""),
        (Op.CHUNK, 1, 2**40, b""),
        (Op.REPLY, 1),
        (Op.REPLY, 1, 7),
        (Op.REPLY, {}, b""),
        (Op.FAULT, 1),
        (Op.FAILED, 1, 99, "what"),
        (PeerOp.BROADCAST, "c", (b"", 1), 1, None),
        (PeerOp.PUBLISH, "t", b"", "1", None),
    ],
    ids=repr,
)
def test_malformed_message_ends_the_link(message: object) -> None:
    relays = LinkedRelays()
    with link_ends(relays):
        relays.send(
            (PeerOp.MEMBER_JOINED, "before", 1, {}), message, (PeerOp.MEMBER_JOINED, "after", 1, {})
        )


@pytest.mark.parametrize(
    "rest",
    [b"\x93\x28", b"\x91", b"\x81", b"\x81\xa1a", b"\xd9", b"\xd9\x01", b"\xc4", b"\xcd\x01"],
)
def test_trailing_bytes_end_the_link(rest: bytes) -> None:
    relays = LinkedRelays()
    with link_ends(relays):
        relays.receive(relays.frame((PeerOp.MEMBER_JOINED, "x", 1, {})) + rest)


@pytest.mark.parametrize("half", [b"\x93\x01", b"\x93\x01\x01\x00\x92", b"\x92"])
def test_partial_message_does_not_affect_the_next_frame(half: bytes) -> None:
    """All peers share one unpacker."""
    mesh = SimulatedNetwork(3)
    here, broken, whole = mesh.all
    whole.serve("c")
    mesh.run(1)
    session = broken.membership.neighbours[here.node].session
    here.batches.receive(broken.node, packb((session, STAMP, 0)) + half, here.now)
    assert not here.membership.linked(broken.node)
    mesh.run(1)
    assert mesh.converged(), mesh.describe()
    assert not [loss for loss in here.losses if loss[0] == whole.node]


def test_stale_frame_is_dropped_without_decoding() -> None:
    relays = LinkedRelays()
    session = relays.there.membership.neighbours[relays.here.node].session
    stale = packb((session - 1, STAMP, 0)) + b"\xc1"
    relays.receive(stale)
    assert relays.linked
    assert relays.here.core.counters.drops["stale_session"] == 1
    relays.send((PeerOp.MEMBER_JOINED, "x", 1, {}))
    assert "x" in relays.here.core.directory.clusters


def test_frame_of_an_unlinked_peer_is_dropped() -> None:
    relays = LinkedRelays()
    relays.here.batches.receive(
        "unknown", relays.frame((PeerOp.MEMBER_JOINED, "x", 1, {})), relays.here.now
    )
    assert "x" not in relays.here.core.directory.clusters
    assert relays.linked


# Large bodies.


def expiry(relay: SimulatedRelay) -> int:
    return int(relay.now * 1000) + 5000


def test_large_body_is_reassembled_from_several_frames() -> None:
    relays = LinkedRelays()
    body = bytes(range(256)) * 512
    relays.send((Op.CHUNK, 0, len(body), body[:CHUNK]))
    assert relays.here.batches.receiving
    relays.send((Op.CHUNK, 0, len(body), body[CHUNK:]))
    relays.send((PeerOp.REQUEST, 1, "c", 0, expiry(relays.there), 7, None))
    ((op, _, joined, *_),) = sent_to(relays.member)
    assert (op, joined) == (DELIVER_REQUEST, body)
    assert not relays.here.batches.receiving


def test_partial_body_is_dropped_with_its_session() -> None:
    relays = LinkedRelays()
    relays.send((Op.CHUNK, 0, 2 * CHUNK, bytes(CHUNK)))
    relays.mesh.break_link(1, 0)
    relays.mesh.run(1)
    assert relays.mesh.converged()
    assert not relays.here.batches.receiving
    with link_ends(relays):
        relays.send(
            (Op.CHUNK, 0, 2 * CHUNK, bytes(CHUNK)),
            (PeerOp.REQUEST, 1, "c", 0, expiry(relays.there), 7, None),
        )


def test_lost_peer_leaves_no_partial_bodies() -> None:
    relays = LinkedRelays()
    relays.send((Op.CHUNK, 0, 2 * CHUNK, bytes(CHUNK)))
    relays.here.end_admission(relays.there.node)
    assert not relays.here.batches.receiving


def test_outcomes_reach_the_caller() -> None:
    relays = LinkedRelays()
    router = relays.here.core.router
    for number in range(1, 5):
        relays.here.request(relays.caller, number, "d", timeout=5.0)
    request_ids = [request.id for request in router._assigned.values()]
    sent_to(relays.caller)
    relays.send(
        (Op.REPLY, request_ids[0], b"answer"),
        (Op.FAULT, request_ids[1], "ValueError", "no"),
        (Op.REFUSED, request_ids[2], "full"),
        (Op.FAILED, request_ids[3], Failure.MEMBER_LOST, "it died"),
    )
    assert [message[:3] for message in sent_to(relays.caller)] == [
        (Op.REPLY, 1, b"answer"),
        (Op.FAULT, 2, "ValueError"),
        (Op.FAILED, 3, Failure.OVERLOADED),
        (Op.FAILED, 4, Failure.MEMBER_LOST),
    ]


# Random messages.

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)
OPS = st.sampled_from([op.value for op in (*Op, *PeerOp)])
MESSAGES = st.tuples(OPS) | st.builds(lambda op, rest: (op, *rest), OPS, st.lists(VALUES)) | VALUES


@given(st.lists(MESSAGES, max_size=4), st.binary(max_size=8))
@example([(PeerOp.REQUEST.value, 1, "c", b"", 2**64 - 1, 1, None)], b"")
@example([{}], b"")
def test_random_messages_are_handled_or_end_the_link(messages: list[Any], rest: bytes) -> None:
    relays = LinkedRelays()
    relays.receive(
        relays.frame(*(m for m in messages if not isinstance(m, list) or len(m) < 17)) + rest
    )
    relays.mesh.run(5)
    assert relays.linked
    assert relays.here.core.router._waiting == {}


def test_unexpected_exception_in_one_batch_does_not_affect_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    relays = LinkedRelays()

    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    with monkeypatch.context() as patch:
        patch.setattr(relays.here.membership, "batch_received", fail)
        with pytest.raises(RuntimeError):
            relays.send((Op.REPLY, 1, b"left behind"))
    relays.send((PeerOp.MEMBER_JOINED, "d", 77, {}))
    assert relays.here.losses == []
    peer = relays.here.core.peers.by_node[relays.there.node]
    assert 77 in relays.here.core.directory.clusters["d"].candidates[peer].members
