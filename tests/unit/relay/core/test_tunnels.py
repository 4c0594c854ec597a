"""The tunnel router: tunnels are opened once, credit is counted, both ends see the end."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from arke.wire.limits import CHUNK, MAX_TUNNELS, MIN_WINDOW, WINDOW
from arke.wire.messages import Failure, Op, PeerOp, Purpose, TunnelClose
from arke_relay.core.directed_request import DirectedRequest, TunnelParameters
from arke_relay.core.endpoints import Endpoint, Message, Peer, Program
from arke_relay.core.tunnels import CREDIT_LIMIT
from support.core_harness import FAILED, REFUSED, STOP, CoreHarness, request_id_of, sent_to
from support.core_harness import sink_of as sink

ACCEPT, DATA, CREDIT, END = (op.value for op in (Op.ACCEPT, Op.DATA, Op.CREDIT, Op.END))
OFFER, PEER_OPEN = Op.OFFER.value, PeerOp.OPEN.value
SENT, CLOSED, BROKEN = (ending.value for ending in TunnelClose)
LARGEST = 1000


def open_tunnel(
    room: CoreHarness,
    origin: Endpoint,
    number: int,
    *,
    cluster: str = "c",
    to: str | None = None,
    window: int = WINDOW,
    timeout: float = 5.0,
    purpose: Purpose = Purpose.TUNNEL,
) -> None:
    now, parameters = room.now, TunnelParameters(purpose.value, window, LARGEST)
    sender = origin.sender if isinstance(origin, Program) else f"{origin.node}/7"
    fields = (origin, number, cluster, b"", now + timeout, sender, None)
    room.router.request(DirectedRequest(*fields, member=to, tunnel=parameters), now)


@dataclass
class Tunnel:
    """An open one: how messages from each end call it, and whom they reach."""

    room: CoreHarness
    one: Endpoint
    here: int
    other: Endpoint
    there: int

    def send(self, octets: int, *, back: bool = False, total: int | None = None) -> None:
        endpoint, name = (self.other, self.there) if back else (self.one, self.here)
        self.room.core.tunnels.data(endpoint, name, total, bytes(octets))

    def grant(self, octets: int, *, back: bool = False) -> None:
        """`back`: the end that was called lets the one that opened it send."""
        endpoint, name = (self.other, self.there) if back else (self.one, self.here)
        self.room.core.tunnels.grant(endpoint, name, octets)

    def end(self, ending: int, *, back: bool = False, text: str = "") -> None:
        endpoint, name = (self.other, self.there) if back else (self.one, self.here)
        self.room.core.tunnels.end(endpoint, name, ending, "", text)

    def heard(self) -> tuple[list[Message], list[Message]]:
        return sent_to(self.one), sent_to(self.other)


def tunnel(
    room: CoreHarness, one: Endpoint, other: Endpoint, number: int = 3, window: int = WINDOW
) -> Tunnel:
    open_tunnel(room, one, number, window=window)
    (offer,) = sent_to(other)
    assert offer[0] == (PEER_OPEN if other.is_peer else OFFER)
    room.router.accept(other, offer[1], window, LARGEST)
    assert [message[0] for message in sent_to(one)] == [ACCEPT]
    return Tunnel(room, one, number, other, -offer[1])


def left_over(room: CoreHarness) -> list[object]:
    endpoints = [*room.core.programs.by_number.values(), *room.core.peers.by_node.values()]
    return [end for endpoint in endpoints for end in endpoint.tunnels.values()] + room.leftovers()


# Opening.


def test_a_tunnel_is_offered_to_a_member_and_accepted() -> None:
    room = CoreHarness()
    client, member = room.client(), room.member()
    open_tunnel(room, client, 3)
    ((op, call, body, timeout, stamp, purpose, window, largest, sender, headers),) = sent_to(member)
    assert (op, body, purpose, window, largest) == (OFFER, b"", Purpose.TUNNEL, WINDOW, LARGEST)
    assert (stamp, sender, headers) == (room.now * 1000, client.sender, None)
    assert 5000 <= timeout <= 5001
    room.router.accept(member, call, 100_000, 77)
    assert sent_to(client) == [(ACCEPT, 3, 100_000, 77)]
    assert room.leftovers() == []
    assert room.counters.outcomes == {"opened": 1}
    assert room.counters.tunnels == 1


def test_a_member_cannot_widen_the_window() -> None:
    room = CoreHarness()
    client, member = room.client(), room.member()
    open_tunnel(room, client, 3, window=100_000)
    room.router.accept(member, call_of_offer(member), 10**9, LARGEST)
    assert sent_to(client) == [(ACCEPT, 3, 100_000, LARGEST)]


def call_of_offer(endpoint: Endpoint) -> int:
    ((_, call, *_),) = sent_to(endpoint)
    return int(call)


def test_across_nodes_each_relay_has_a_name_of_its_own_for_it() -> None:
    room = CoreHarness()
    client, peer = room.client(), room.peer("there", 1)
    open_tunnel(room, client, 3)
    ((op, call, cluster, body, expiry, program, member, *opening, headers),) = sent_to(peer)
    assert (op, cluster, body, program, member) == (PEER_OPEN, "c", b"", client.id, 0)
    assert opening == [Purpose.TUNNEL, WINDOW, LARGEST]
    assert expiry == pytest.approx((room.now + 5) * 1000, abs=1)
    assert headers is None
    room.router.accept(peer, call, WINDOW, 5)
    assert sent_to(client) == [(ACCEPT, 3, WINDOW, 5)]
    room.core.tunnels.grant(peer, -call, 10)
    room.core.tunnels.data(client, 3, None, b"1234567890")
    assert sent_to(client) == [(CREDIT, -3, 10)]
    assert sent_to(peer) == [(DATA, call, None, b"1234567890")]


def test_a_peers_opening_goes_to_a_member_here() -> None:
    room = CoreHarness()
    peer, member = room.peer("asking"), room.member()
    room.peer("other", 1, 2, 3)
    open_tunnel(room, peer, 9)
    ((_, call, *_, sender, _),) = sent_to(member)
    assert sender == "asking/7"
    room.router.accept(member, call, WINDOW, LARGEST)
    assert sent_to(peer) == [(ACCEPT, 9, WINDOW, LARGEST)]


def test_a_refused_tunnel_is_offered_to_another_member() -> None:
    room = CoreHarness()
    client, members = room.client(), [room.member(), room.member()]
    open_tunnel(room, client, 3)
    (first,) = [member for member in members if sink(member).messages]
    (second,) = [member for member in members if member is not first]
    room.router.refused(first, call_of_offer(first), "full", room.now)
    room.router.accept(second, call_of_offer(second), WINDOW, LARGEST)
    assert [message[0] for message in sent_to(client)] == [ACCEPT]
    assert left_over(room)[:0] == []


def test_an_opening_has_a_deadline() -> None:
    room = CoreHarness()
    client, member = room.client(), room.member()
    open_tunnel(room, client, 3, timeout=1.0)
    call = call_of_offer(member)
    room.advance_clock(1.0)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 3, Failure.TIMED_OUT)]
    room.router.accept(member, call, WINDOW, LARGEST)
    assert sent_to(member) == [
        (STOP, call),
        (END, call, BROKEN, "", "the tunnel request was cancelled or timed out"),
    ]
    assert left_over(room) == []


def test_an_opening_that_is_cancelled_is_taken_back() -> None:
    room = CoreHarness()
    client, member = room.client(), room.member()
    open_tunnel(room, client, 3)
    call = call_of_offer(member)
    room.router.cancel(client, 3)
    assert sent_to(member) == [(STOP, call)]
    room.router.accept(member, call, WINDOW, LARGEST)
    assert sent_to(member)[0][:3] == (END, call, BROKEN)
    assert left_over(room) == []


def test_only_who_was_offered_it_can_accept_it() -> None:
    room = CoreHarness()
    client, member, stranger = room.client(), room.member(), room.client()
    open_tunnel(room, client, 3)
    call = call_of_offer(member)
    room.router.accept(stranger, call, WINDOW, LARGEST)
    assert sent_to(stranger)[0][:3] == (END, call, BROKEN)
    assert sent_to(client) == []
    room.request(client, 4)
    room.router.accept(member, request_id_of(member), WINDOW, LARGEST)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 4, Failure.MEMBER_LOST)]


# One member alone.


def test_a_tunnel_goes_to_the_member_that_is_named() -> None:
    room = CoreHarness()
    client, members = room.client(), [room.member() for _ in range(5)]
    peer = room.peer("there", 41, 42)
    for number, member in enumerate(members):
        open_tunnel(room, client, number, cluster="", to=member.sender)
        assert call_of_offer(member)
    open_tunnel(room, client, 10, cluster="", to="there/42")
    ((op, _, cluster, _, _, _, member_number, *_),) = sent_to(peer)
    assert (op, cluster, member_number) == (PEER_OPEN, "c", 42)


@pytest.mark.parametrize("to", ["me/99", "gone/1", "nonsense", "there/2"])
def test_a_member_that_is_not_there_is_said_so_at_once(to: str) -> None:
    room = CoreHarness()
    client = room.client()
    room.peer("there", 1)
    open_tunnel(room, client, 1, cluster="", to=to)
    ((op, number, failure, text),) = sent_to(client)
    assert (op, number, failure) == (FAILED, 1, Failure.NO_SUCH_MEMBER)
    assert to in text
    assert left_over(room) == []


def test_a_named_member_that_refuses_is_not_replaced() -> None:
    room = CoreHarness()
    client, member, other = room.client(), room.member(), room.member()
    open_tunnel(room, client, 1, cluster="", to=member.sender)
    room.router.refused(member, call_of_offer(member), "full", room.now)
    ((_, _, failure, text),) = sent_to(client)
    assert failure == Failure.OVERLOADED
    assert "full" in text
    assert sent_to(other) == []


def test_a_member_may_still_turn_up_soon_after_the_start() -> None:
    room = CoreHarness(settled=False)
    client = room.client()
    open_tunnel(room, client, 1, cluster="", to="there/42")
    assert sent_to(client) == []
    peer = room.peer("there", 42)
    assert sent_to(peer)[0][0] == PEER_OPEN
    open_tunnel(room, client, 2, cluster="", to="there/43")
    room.router.settle(room.now)
    assert [message[:3] for message in sent_to(client)] == [(FAILED, 2, Failure.NO_SUCH_MEMBER)]


# Data and credit.


def test_data_goes_through_as_far_as_there_is_credit() -> None:
    room = CoreHarness()
    open_one = tunnel(room, room.client(), room.member())
    open_one.grant(100, back=True)
    open_one.grant(50)
    assert open_one.heard() == ([(CREDIT, -3, 100)], [(CREDIT, -open_one.there, 50)])
    open_one.send(60)
    open_one.send(40, total=40)
    open_one.send(50, back=True)
    to_one, to_other = open_one.heard()
    assert to_other == [
        (DATA, -open_one.there, None, bytes(60)),
        (DATA, -open_one.there, 40, bytes(40)),
    ]
    assert to_one == [(DATA, -3, None, bytes(50))]


@pytest.mark.parametrize("back", [False, True])
def test_who_sends_more_than_was_granted_loses_the_tunnel(back: bool) -> None:
    room = CoreHarness()
    open_one = tunnel(room, room.client(), room.member())
    open_one.grant(100, back=not back)
    open_one.heard()
    open_one.send(101, back=back)
    for messages in open_one.heard():
        assert [message[2:] for message in messages] == [
            (BROKEN, "", "protocol error: more data than credit")
        ]
    assert left_over(room) == []
    assert room.counters.drops == {"credit_exceeded": 1}
    open_one.send(1, back=back)
    assert room.counters.drops["unknown_tunnel"] == 1


def test_who_grants_without_end_loses_the_tunnel() -> None:
    room = CoreHarness()
    open_one = tunnel(room, room.client(), room.member())
    open_one.grant(CREDIT_LIMIT)
    open_one.heard()
    open_one.grant(1)
    assert [message[2] for message in open_one.heard()[0]] == [BROKEN]
    assert left_over(room) == []


def test_credit_that_finds_no_room_breaks_the_tunnel_rather_than_stall_it() -> None:
    room = CoreHarness()
    client, member = room.client(), room.member()
    open_one = tunnel(room, client, member)
    sink(member).room = 0
    open_one.grant(10)
    assert [message[2] for message in sent_to(client)] == [BROKEN]
    assert left_over(room) == []


@pytest.mark.parametrize("what", ["data", "grant", "end"])
def test_nobody_reaches_anothers_tunnel(what: str) -> None:
    room = CoreHarness()
    open_one = tunnel(room, room.client(), room.member())
    stranger, tunnels = room.client(), room.core.tunnels
    for name in (open_one.here, open_one.there, 99):
        if what == "data":
            tunnels.data(stranger, name, None, b"x")
        elif what == "grant":
            tunnels.grant(stranger, name, 5)
        else:
            tunnels.end(stranger, name, BROKEN, "", "")
    assert open_one.heard() == ([], [])
    assert sent_to(stranger) == []


def test_the_more_tunnels_a_party_has_the_smaller_are_their_windows() -> None:
    room = CoreHarness()
    client, member = room.client(), room.member()
    windows = []
    for number in range(1, MAX_TUNNELS + 1):
        open_tunnel(room, client, number)
        ((_, call, _, _, _, _, window, *_),) = sent_to(member)
        windows.append(window)
        room.router.accept(member, call, window, LARGEST)
    assert windows[:4] == [WINDOW] * 4
    assert windows == sorted(windows, reverse=True)
    assert windows[-1] == MIN_WINDOW >= CHUNK
    assert sum(windows) < 10 * CREDIT_LIMIT
    sent_to(client)
    open_tunnel(room, client, MAX_TUNNELS + 1)
    assert [message[:3] for message in sent_to(client)] == [
        (FAILED, MAX_TUNNELS + 1, Failure.OVERLOADED)
    ]


# Ends.


@pytest.mark.parametrize("back", [False, True])
def test_it_lives_until_both_have_sent_all(back: bool) -> None:
    room = CoreHarness()
    open_one = tunnel(room, room.client(), room.member())
    open_one.grant(10, back=not back)
    open_one.grant(10, back=back)
    open_one.heard()
    open_one.end(SENT, back=back)
    open_one.send(1, back=back)
    open_one.send(5, back=not back)
    assert room.counters.drops == {"unknown_tunnel": 1}
    open_one.end(SENT, back=not back)
    for messages in open_one.heard():
        assert [message[0] for message in messages if message[0] == END] == [END]
    assert left_over(room) == []


@pytest.mark.parametrize("ending", [CLOSED, BROKEN])
def test_either_end_ends_it_for_both(ending: int) -> None:
    for back in (False, True):
        room = CoreHarness()
        open_one = tunnel(room, room.client(), room.member())
        open_one.end(ending, back=back, text="why")
        open_one.end(ending, back=not back, text="too late")
        heard = open_one.heard()
        assert [message[2:] for message in heard[not back]] == [(ending, "", "why")]
        assert heard[back] == []
        assert left_over(room) == []


@pytest.mark.parametrize("who", ["one", "other"])
def test_who_is_gone_ends_its_tunnels(who: str) -> None:
    room = CoreHarness()
    client, peer = room.client(), room.peer("there", 1)
    open_one = tunnel(room, client, peer)
    gone: Program | Peer = client if who == "one" else peer
    if isinstance(gone, Program):
        room.core.programs.detach(gone, room.now)
    else:
        room.core.peers.unlink(gone, room.now)
    ((op, name, ending, kind, text),) = sent_to(peer if gone is client else client)
    assert (op, name, ending, kind) == (END, -open_one.there if who == "one" else -3, BROKEN, "")
    assert ("program" if who == "one" else "there") in text
    assert left_over(room) == []


def test_a_program_that_talks_with_itself_leaves_nothing() -> None:
    room = CoreHarness()
    member = room.member()
    open_tunnel(room, member, 3, purpose=Purpose.MULTIPART_REPLY)
    call = call_of_offer(member)
    room.router.accept(member, call, WINDOW, LARGEST)
    room.core.tunnels.grant(member, -call, 10)
    room.core.tunnels.data(member, 3, None, b"hello")
    assert [message[:2] for message in sent_to(member)] == [(ACCEPT, 3), (CREDIT, -3), (DATA, call)]
    assert room.core.tunnels.reply_tunnels == 1
    room.core.programs.detach(member, room.now)
    assert member.tunnels == {}
    assert room.core.tunnels.reply_tunnels == 0


def test_a_link_that_begins_anew_has_lost_its_tunnels() -> None:
    room = CoreHarness()
    client, peer = room.client(), room.peer("there", 1)
    tunnel(room, client, peer)
    room.core.peers.relink(peer, sink(peer), "it began anew", room.now)
    assert sent_to(client)[0][2] == BROKEN
    assert left_over(room) == []


def test_a_leaving_relay_takes_no_new_tunnels() -> None:
    room = CoreHarness()
    peer = room.peer("asking")
    room.member()
    room.router.draining = True
    open_tunnel(room, peer, 1)
    assert [message[:2] for message in sent_to(peer)] == [(REFUSED, 1)]
