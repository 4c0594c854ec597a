"""The tunnel router: opening, credit, and closing at both ends."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from arke.wire.limits import CHUNK, MAX_TUNNELS, MIN_WINDOW, WINDOW
from arke.wire.messages import Failure, Op, PeerOp, Purpose, TunnelClose
from arke_relay.core.directed_request import DirectedRequest, TunnelParameters
from arke_relay.core.endpoints import Endpoint, Message, Peer, Program
from arke_relay.core.tunnels import CREDIT_LIMIT
from support.core_harness import (
    FAILED,
    REFUSED,
    REQUEST_CANCELLED,
    CoreHarness,
    request_id_of,
    sent_to,
)
from support.core_harness import sink_of as sink

ACCEPT, DATA, CREDIT, END = (op.value for op in (Op.ACCEPT, Op.DATA, Op.CREDIT, Op.END))
OFFER, PEER_OPEN = Op.OFFER.value, PeerOp.OPEN.value
SEND_CLOSED, CLOSED, ABORTED = (ending.value for ending in TunnelClose)
MAX_MESSAGE = 1000


def open_tunnel(
    harness: CoreHarness,
    origin: Endpoint,
    number: int,
    *,
    cluster: str = "c",
    to: str | None = None,
    window: int = WINDOW,
    timeout: float = 5.0,
    purpose: Purpose = Purpose.TUNNEL,
) -> None:
    now, parameters = harness.now, TunnelParameters(purpose.value, window, MAX_MESSAGE)
    sender = origin.sender if isinstance(origin, Program) else f"{origin.node}/7"
    fields = (origin, number, cluster, b"", now + timeout, sender, None)
    harness.router.request(DirectedRequest(*fields, member=to, tunnel=parameters), now)


@dataclass
class Tunnel:
    """An open tunnel: both endpoints, and the id that each uses for it."""

    harness: CoreHarness
    one: Endpoint
    here: int
    other: Endpoint
    there: int

    def send(self, size: int, *, back: bool = False, total: int | None = None) -> None:
        endpoint, name = (self.other, self.there) if back else (self.one, self.here)
        self.harness.core.tunnels.data(endpoint, name, total, bytes(size))

    def grant(self, size: int, *, back: bool = False) -> None:
        """Grant credit to the other end; with `back`, to the end that opened the tunnel."""
        endpoint, name = (self.other, self.there) if back else (self.one, self.here)
        self.harness.core.tunnels.grant(endpoint, name, size)

    def end(self, ending: int, *, back: bool = False, text: str = "") -> None:
        endpoint, name = (self.other, self.there) if back else (self.one, self.here)
        self.harness.core.tunnels.end(endpoint, name, ending, "", text)

    def take_messages(self) -> tuple[list[Message], list[Message]]:
        return sent_to(self.one), sent_to(self.other)


def tunnel(
    harness: CoreHarness, one: Endpoint, other: Endpoint, number: int = 3, window: int = WINDOW
) -> Tunnel:
    open_tunnel(harness, one, number, window=window)
    (offer,) = sent_to(other)
    assert offer[0] == (PEER_OPEN if other.is_peer else OFFER)
    harness.router.accept(other, offer[1], window, MAX_MESSAGE)
    assert [message[0] for message in sent_to(one)] == [ACCEPT]
    return Tunnel(harness, one, number, other, -offer[1])


def left_over(harness: CoreHarness) -> list[object]:
    endpoints = [*harness.core.programs.by_number.values(), *harness.core.peers.by_node.values()]
    return [
        end for endpoint in endpoints for end in endpoint.tunnels.values()
    ] + harness.leftovers()


# Opening.


def test_tunnel_is_offered_to_a_member_and_accepted() -> None:
    harness = CoreHarness()
    caller, member = harness.caller(), harness.member()
    open_tunnel(harness, caller, 3)
    ((op, request_id, body, timeout, stamp, purpose, window, largest, sender, headers),) = sent_to(
        member
    )
    assert (op, body, purpose, window, largest) == (OFFER, b"", Purpose.TUNNEL, WINDOW, MAX_MESSAGE)
    assert (stamp, sender, headers) == (harness.now * 1000, caller.sender, None)
    assert 5000 <= timeout <= 5001
    harness.router.accept(member, request_id, 100_000, 77)
    assert sent_to(caller) == [(ACCEPT, 3, 100_000, 77)]
    assert harness.leftovers() == []
    assert harness.counters.outcomes == {"opened": 1}
    assert harness.counters.tunnels == 1


def test_member_cannot_enlarge_the_window() -> None:
    harness = CoreHarness()
    caller, member = harness.caller(), harness.member()
    open_tunnel(harness, caller, 3, window=100_000)
    harness.router.accept(member, offered_id(member), 10**9, MAX_MESSAGE)
    assert sent_to(caller) == [(ACCEPT, 3, 100_000, MAX_MESSAGE)]


def offered_id(endpoint: Endpoint) -> int:
    ((_, request_id, *_),) = sent_to(endpoint)
    return int(request_id)


def test_each_relay_uses_its_own_id_for_a_tunnel_between_nodes() -> None:
    harness = CoreHarness()
    caller, peer = harness.caller(), harness.peer("there", 1)
    open_tunnel(harness, caller, 3)
    ((op, request_id, cluster, body, expiry, program, member, *opening, headers),) = sent_to(peer)
    assert (op, cluster, body, program, member) == (PEER_OPEN, "c", b"", caller.id, 0)
    assert opening == [Purpose.TUNNEL, WINDOW, MAX_MESSAGE]
    assert expiry == pytest.approx((harness.now + 5) * 1000, abs=1)
    assert headers is None
    harness.router.accept(peer, request_id, WINDOW, 5)
    assert sent_to(caller) == [(ACCEPT, 3, WINDOW, 5)]
    harness.core.tunnels.grant(peer, -request_id, 10)
    harness.core.tunnels.data(caller, 3, None, b"1234567890")
    assert sent_to(caller) == [(CREDIT, -3, 10)]
    assert sent_to(peer) == [(DATA, request_id, None, b"1234567890")]


def test_tunnel_request_of_a_peer_goes_to_a_local_member() -> None:
    harness = CoreHarness()
    peer, member = harness.peer("origin"), harness.member()
    harness.peer("other", 1, 2, 3)
    open_tunnel(harness, peer, 9)
    ((_, request_id, *_, sender, _),) = sent_to(member)
    assert sender == "origin/7"
    harness.router.accept(member, request_id, WINDOW, MAX_MESSAGE)
    assert sent_to(peer) == [(ACCEPT, 9, WINDOW, MAX_MESSAGE)]


def test_refused_tunnel_is_offered_to_another_member() -> None:
    harness = CoreHarness()
    caller, members = harness.caller(), [harness.member(), harness.member()]
    open_tunnel(harness, caller, 3)
    (first,) = [member for member in members if sink(member).messages]
    (second,) = [member for member in members if member is not first]
    harness.router.refused(first, offered_id(first), "full", harness.now)
    harness.router.accept(second, offered_id(second), WINDOW, MAX_MESSAGE)
    assert [message[0] for message in sent_to(caller)] == [ACCEPT]
    assert not first.tunnels
    assert second.tunnels


def test_tunnel_request_times_out() -> None:
    harness = CoreHarness()
    caller, member = harness.caller(), harness.member()
    open_tunnel(harness, caller, 3, timeout=1.0)
    request_id = offered_id(member)
    harness.advance_clock(1.0)
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 3, Failure.TIMED_OUT)]
    harness.router.accept(member, request_id, WINDOW, MAX_MESSAGE)
    assert sent_to(member) == [
        (REQUEST_CANCELLED, request_id),
        (END, request_id, ABORTED, "", "the tunnel request was cancelled or timed out"),
    ]
    assert left_over(harness) == []


def test_cancelled_tunnel_request_is_withdrawn() -> None:
    harness = CoreHarness()
    caller, member = harness.caller(), harness.member()
    open_tunnel(harness, caller, 3)
    request_id = offered_id(member)
    harness.router.cancel(caller, 3)
    assert sent_to(member) == [(REQUEST_CANCELLED, request_id)]
    harness.router.accept(member, request_id, WINDOW, MAX_MESSAGE)
    assert sent_to(member)[0][:3] == (END, request_id, ABORTED)
    assert left_over(harness) == []


def test_only_the_assignee_can_accept_a_tunnel() -> None:
    harness = CoreHarness()
    caller, member, other_program = harness.caller(), harness.member(), harness.caller()
    open_tunnel(harness, caller, 3)
    request_id = offered_id(member)
    harness.router.accept(other_program, request_id, WINDOW, MAX_MESSAGE)
    assert sent_to(other_program)[0][:3] == (END, request_id, ABORTED)
    assert sent_to(caller) == []
    harness.request(caller, 4)
    harness.router.accept(member, request_id_of(member), WINDOW, MAX_MESSAGE)
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 4, Failure.MEMBER_LOST)]


# Directed tunnels.


def test_directed_tunnel_goes_to_its_member() -> None:
    harness = CoreHarness()
    caller, members = harness.caller(), [harness.member() for _ in range(5)]
    peer = harness.peer("there", 41, 42)
    for number, member in enumerate(members):
        open_tunnel(harness, caller, number, cluster="", to=member.sender)
        assert offered_id(member)
    open_tunnel(harness, caller, 10, cluster="", to="there/42")
    ((op, _, cluster, _, _, _, member_number, *_),) = sent_to(peer)
    assert (op, cluster, member_number) == (PEER_OPEN, "c", 42)


@pytest.mark.parametrize("to", ["me/99", "lost/1", "nonsense", "there/2"])
def test_tunnel_to_an_unknown_member_fails_at_once(to: str) -> None:
    harness = CoreHarness()
    caller = harness.caller()
    harness.peer("there", 1)
    open_tunnel(harness, caller, 1, cluster="", to=to)
    ((op, number, failure, text),) = sent_to(caller)
    assert (op, number, failure) == (FAILED, 1, Failure.NO_SUCH_MEMBER)
    assert to in text
    assert left_over(harness) == []


def test_directed_tunnel_is_not_retried_on_another_member() -> None:
    harness = CoreHarness()
    caller, member, other = harness.caller(), harness.member(), harness.member()
    open_tunnel(harness, caller, 1, cluster="", to=member.sender)
    harness.router.refused(member, offered_id(member), "full", harness.now)
    ((_, _, failure, text),) = sent_to(caller)
    assert failure == Failure.OVERLOADED
    assert "full" in text
    assert sent_to(other) == []


def test_directed_tunnel_waits_for_its_member_while_the_directory_is_incomplete() -> None:
    harness = CoreHarness(settled=False)
    caller = harness.caller()
    open_tunnel(harness, caller, 1, cluster="", to="there/42")
    assert sent_to(caller) == []
    peer = harness.peer("there", 42)
    assert sent_to(peer)[0][0] == PEER_OPEN
    open_tunnel(harness, caller, 2, cluster="", to="there/43")
    harness.router.settle(harness.now)
    assert [message[:3] for message in sent_to(caller)] == [(FAILED, 2, Failure.NO_SUCH_MEMBER)]


# Data and credit.


def test_data_within_the_credit_is_forwarded() -> None:
    harness = CoreHarness()
    opened = tunnel(harness, harness.caller(), harness.member())
    opened.grant(100, back=True)
    opened.grant(50)
    assert opened.take_messages() == ([(CREDIT, -3, 100)], [(CREDIT, -opened.there, 50)])
    opened.send(60)
    opened.send(40, total=40)
    opened.send(50, back=True)
    to_one, to_other = opened.take_messages()
    assert to_other == [
        (DATA, -opened.there, None, bytes(60)),
        (DATA, -opened.there, 40, bytes(40)),
    ]
    assert to_one == [(DATA, -3, None, bytes(50))]


@pytest.mark.parametrize("back", [False, True])
def test_data_over_the_credit_aborts_the_tunnel(back: bool) -> None:
    harness = CoreHarness()
    opened = tunnel(harness, harness.caller(), harness.member())
    opened.grant(100, back=not back)
    opened.take_messages()
    opened.send(101, back=back)
    for messages in opened.take_messages():
        assert [message[2:] for message in messages] == [
            (ABORTED, "", "protocol error: more data than credit")
        ]
    assert left_over(harness) == []
    assert harness.counters.drops == {"credit_exceeded": 1}
    opened.send(1, back=back)
    assert harness.counters.drops["unknown_tunnel"] == 1


def test_credit_over_the_limit_aborts_the_tunnel() -> None:
    harness = CoreHarness()
    opened = tunnel(harness, harness.caller(), harness.member())
    opened.grant(CREDIT_LIMIT)
    opened.take_messages()
    opened.grant(1)
    assert [message[2] for message in opened.take_messages()[0]] == [ABORTED]
    assert left_over(harness) == []


def test_credit_without_room_in_the_queue_aborts_the_tunnel() -> None:
    harness = CoreHarness()
    caller, member = harness.caller(), harness.member()
    opened = tunnel(harness, caller, member)
    sink(member).room = 0
    opened.grant(10)
    assert [message[2] for message in sent_to(caller)] == [ABORTED]
    assert left_over(harness) == []


@pytest.mark.parametrize("operation", ["data", "grant", "end"])
def test_program_cannot_use_the_tunnel_of_another(operation: str) -> None:
    harness = CoreHarness()
    opened = tunnel(harness, harness.caller(), harness.member())
    other_program, tunnels = harness.caller(), harness.core.tunnels
    for name in (opened.here, opened.there, 99):
        if operation == "data":
            tunnels.data(other_program, name, None, b"x")
        elif operation == "grant":
            tunnels.grant(other_program, name, 5)
        else:
            tunnels.end(other_program, name, ABORTED, "", "")
    assert opened.take_messages() == ([], [])
    assert sent_to(other_program) == []


def test_windows_shrink_with_the_number_of_tunnels() -> None:
    harness = CoreHarness()
    caller, member = harness.caller(), harness.member()
    windows = []
    for number in range(1, MAX_TUNNELS + 1):
        open_tunnel(harness, caller, number)
        ((_, request_id, _, _, _, _, window, *_),) = sent_to(member)
        windows.append(window)
        harness.router.accept(member, request_id, window, MAX_MESSAGE)
    assert windows[:4] == [WINDOW] * 4
    assert windows == sorted(windows, reverse=True)
    assert windows[-1] == MIN_WINDOW >= CHUNK
    assert sum(windows) < 10 * CREDIT_LIMIT
    sent_to(caller)
    open_tunnel(harness, caller, MAX_TUNNELS + 1)
    assert [message[:3] for message in sent_to(caller)] == [
        (FAILED, MAX_TUNNELS + 1, Failure.OVERLOADED)
    ]


# Ends.


@pytest.mark.parametrize("back", [False, True])
def test_tunnel_is_open_until_both_ends_have_closed_their_sending_sides(back: bool) -> None:
    harness = CoreHarness()
    opened = tunnel(harness, harness.caller(), harness.member())
    opened.grant(10, back=not back)
    opened.grant(10, back=back)
    opened.take_messages()
    opened.end(SEND_CLOSED, back=back)
    opened.send(1, back=back)
    opened.send(5, back=not back)
    assert harness.counters.drops == {"unknown_tunnel": 1}
    opened.end(SEND_CLOSED, back=not back)
    for messages in opened.take_messages():
        assert [message[0] for message in messages if message[0] == END] == [END]
    assert left_over(harness) == []


@pytest.mark.parametrize("ending", [CLOSED, ABORTED])
def test_close_or_abort_of_one_end_closes_both(ending: int) -> None:
    for back in (False, True):
        harness = CoreHarness()
        opened = tunnel(harness, harness.caller(), harness.member())
        opened.end(ending, back=back, text="why")
        opened.end(ending, back=not back, text="too late")
        received = opened.take_messages()
        assert [message[2:] for message in received[not back]] == [(ending, "", "why")]
        assert received[back] == []
        assert left_over(harness) == []


@pytest.mark.parametrize("who", ["one", "other"])
def test_lost_endpoint_aborts_its_tunnels(who: str) -> None:
    harness = CoreHarness()
    caller, peer = harness.caller(), harness.peer("there", 1)
    opened = tunnel(harness, caller, peer)
    lost_end: Program | Peer = caller if who == "one" else peer
    if isinstance(lost_end, Program):
        harness.core.programs.detach(lost_end, harness.now)
    else:
        harness.core.peers.unlink(lost_end, harness.now)
    ((op, name, ending, kind, text),) = sent_to(peer if lost_end is caller else caller)
    assert (op, name, ending, kind) == (END, -opened.there if who == "one" else -3, ABORTED, "")
    assert ("program" if who == "one" else "there") in text
    assert left_over(harness) == []


def test_tunnel_of_a_program_to_itself_is_removed_with_it() -> None:
    harness = CoreHarness()
    member = harness.member()
    open_tunnel(harness, member, 3, purpose=Purpose.MULTIPART_REPLY)
    request_id = offered_id(member)
    harness.router.accept(member, request_id, WINDOW, MAX_MESSAGE)
    harness.core.tunnels.grant(member, -request_id, 10)
    harness.core.tunnels.data(member, 3, None, b"hello")
    assert [message[:2] for message in sent_to(member)] == [
        (ACCEPT, 3),
        (CREDIT, -3),
        (DATA, request_id),
    ]
    assert harness.core.tunnels.reply_tunnels == 1
    harness.core.programs.detach(member, harness.now)
    assert member.tunnels == {}
    assert harness.core.tunnels.reply_tunnels == 0


def test_reopened_link_aborts_its_tunnels() -> None:
    harness = CoreHarness()
    caller, peer = harness.caller(), harness.peer("there", 1)
    tunnel(harness, caller, peer)
    harness.core.peers.relink(peer, sink(peer), "it began anew", harness.now)
    assert sent_to(caller)[0][2] == ABORTED
    assert left_over(harness) == []


def test_draining_relay_refuses_new_tunnels() -> None:
    harness = CoreHarness()
    peer = harness.peer("origin")
    harness.member()
    harness.router.draining = True
    open_tunnel(harness, peer, 1)
    assert [message[:2] for message in sent_to(peer)] == [(REFUSED, 1)]
