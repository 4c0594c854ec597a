"""Tunnels between Iris and native programs: all data arrives, and buffers are bounded."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from arke.wire.limits import CHUNK, MIN_WINDOW, WINDOW
from arke.wire.messages import Op
from arke_relay.attachments.iris import tunnels
from arke_relay.attachments.iris.tunnel import MAX_TUNNEL_MESSAGE as LARGEST
from support.in_process_relay import InProcessRelay, unpacked
from support.iris_packets import Decoder, encoded
from support.iris_packets import Op as Iris
from support.raw_program import packed
from support.tunnel_ends import CLUSTER, NUMBER, IrisEnd, NativeEnd, TunnelEnd, run_to_completion

KINDS = st.sampled_from(["iris", "native"])
WINDOWS = st.sampled_from([MIN_WINDOW, 87_000, 2 * CHUNK, WINDOW])
SIZES = st.lists(
    st.one_of(
        st.integers(1, 100),
        st.integers(4_000, 4_200),
        st.integers(CHUNK - 10, CHUNK + 10),
        st.integers(1, 5 * CHUNK),
    ),
    max_size=20,
)
ALLOWANCES = st.sampled_from([MIN_WINDOW, 100_000, 2 * 1024 * 1024, 64 * 1024 * 1024])


@pytest.fixture(autouse=True)
def _restore_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "WINDOW", WINDOW)


def opened(
    opener: str, taker: str, *, window: int = WINDOW, allowance: int = 2 * 1024 * 1024
) -> tuple[InProcessRelay, TunnelEnd, TunnelEnd]:
    """Open a tunnel between programs of these kinds; `window` also applies to Iris programs."""
    relay = InProcessRelay()
    tunnels.WINDOW = window
    ends: list[TunnelEnd] = [
        IrisEnd(relay, name, serves=name == "B", allowance=allowance)
        if kind == "iris"
        else NativeEnd(relay, name, serves=name == "B", window=window)
        for kind, name in ((opener, "A"), (taker, "B"))
    ]
    run_to_completion(*ends)
    ends[0].open()
    run_to_completion(*ends)
    return relay, ends[0], ends[1]


def message(number: int, size: int) -> bytes:
    return (b"%d|" % number * size)[:size]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(opener=KINDS, taker=KINDS, window=WINDOWS, allowance=ALLOWANCES, there=SIZES, back=SIZES)
@example("iris", "iris", MIN_WINDOW, 2 * 1024 * 1024, [20_000, CHUNK], [])
@example("iris", "native", MIN_WINDOW, 2 * 1024 * 1024, [10_000, CHUNK], [CHUNK])
@example("native", "iris", WINDOW, MIN_WINDOW, [10 * CHUNK, CHUNK + 1], [])
async def test_all_messages_arrive_in_order(
    opener: str, taker: str, window: int, allowance: int, there: list[int], back: list[int]
) -> None:
    _, one, other = opened(opener, taker, window=window, allowance=allowance)
    sent = {
        end: [message(number, size) for number, size in enumerate(sizes)]
        for end, sizes in ((one, there), (other, back))
    }
    for end, messages in sent.items():
        for each in messages:
            end.send(each)
    run_to_completion(one, other)
    assert [len(each) for each in other.received] == there
    assert other.received == sent[one]
    assert one.received == sent[other]
    one.close()
    run_to_completion(one, other)
    assert other.end_reason == ""


@pytest.mark.parametrize("kind", ["iris", "native"])
async def test_queue_for_an_iris_program_that_does_not_read_is_bounded(kind: str) -> None:
    relay, one, other = opened(kind, "iris", allowance=64 * 1024 * 1024)
    other.reading = False
    relay.stop_reading("B")
    for number in range(1000):
        one.send(message(number, CHUNK))
    run_to_completion(one)
    assert relay.queued <= WINDOW + 300 * 1024
    relay.resume_reading("B")
    other.reading = True
    run_to_completion(one, other)
    assert len(other.received) == 1000


# Protocol violations.


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([(LARGEST + 1, b"x")], "exceeds the"),
        ([(2**62, b"x")], "exceeds the"),
        ([(3, b"four")], "longer than its size field"),
        ([(0, b"more of nothing")], "longer than its size field"),
        ([(10, b"ten"), (0, bytes(10))], "longer than its size field"),
        ([(None, b"\xc1")], "malformed tunnel data"),
        ([(None, packed("text"))], "malformed tunnel data"),
    ],
)
async def test_invalid_data_of_a_native_end_closes_the_tunnel_to_an_iris_end(
    pieces: list[tuple[int | None, bytes]], why: str
) -> None:
    relay, _, other = opened("native", "iris")
    for total, data in pieces:
        relay.send("A", packed((Op.DATA, 1, total, data)))
    run_to_completion(other)
    assert why in (other.end_reason or "")
    ((op, _, _, _, text),) = [m for m in unpacked(relay.received("A")) if m[0] == Op.END]
    assert (op, why in text) == (Op.END, True)


@pytest.mark.parametrize(
    ("chunks", "why"),
    [
        ([(LARGEST + 1, b"x")], "exceeds the"),
        ([(3, b"four")], "longer than its size field"),
        ([(0, b"more of nothing")], "longer than its size field"),
        ([(CHUNK + 1, bytes(CHUNK + 1))], "exceeds the limit"),
        ([(CHUNK, bytes(CHUNK))] * 65, "more data than credit"),
    ],
)
async def test_invalid_transfer_of_an_iris_end_closes_the_tunnel_to_a_native_end(
    chunks: list[tuple[int, bytes]], why: str
) -> None:
    relay, _, other = opened("iris", "native")
    other.reading = False
    for size, chunk in chunks:
        relay.send("A", encoded(Iris.TUNNEL_TRANSFER, NUMBER, size, chunk))
    decoder = Decoder()
    decoder.feed(relay.received("A"))
    assert any(op == Iris.TUNNEL_CLOSE and why in fields[1] for op, *fields in decoder)
    other.reading = True
    run_to_completion(other)
    assert why in (other.end_reason or "")


async def test_closed_tunnel_still_delivers_data_that_waits_for_credit() -> None:
    _, one, other = opened("iris", "native", window=MIN_WINDOW)
    other.reading = False
    one.send(message(1, CHUNK - 1))
    one.send(message(2, CHUNK))
    run_to_completion(one)
    one.close()
    run_to_completion(one)
    assert one.end_reason == ""
    other.reading = True
    run_to_completion(one, other)
    assert [len(each) for each in other.received] == [CHUNK - 1, CHUNK]
    assert other.end_reason == ""


async def test_reply_to_an_offer_is_not_taken_for_a_reply_to_a_request() -> None:
    """The request and the offer of the Iris program have the same number."""
    relay = InProcessRelay()
    one = IrisEnd(relay, "A", serves=False, allowance=1)
    NativeEnd(relay, "B", serves=True, window=WINDOW)
    bank = NativeEnd(relay, "C", serves=False, window=WINDOW)
    bank._send(Op.REGISTER, "bank", None)
    one._send(Iris.REQUEST, NUMBER, "bank", b"", 5000)
    one.open()
    (offer,) = [message for message in unpacked(relay.received("B")) if message[0] == Op.OFFER]
    relay.send("B", packed((Op.REPLY, offer[1], b"forged")))
    decoder = Decoder()
    decoder.feed(relay.received("A"))
    assert [op for op, *_ in decoder] == [Iris.INIT, Iris.TUNNEL_CONFIRM]
    assert not decoder.rest


async def test_expired_offers_are_removed() -> None:
    relay = InProcessRelay()
    NativeEnd(relay, "A", serves=False, window=WINDOW)
    IrisEnd(relay, "B", serves=True, allowance=1)
    for call in range(1, 2001):
        relay.send("A", packed((Op.OPEN, call, CLUSTER, b"", 5, None, 0, WINDOW, LARGEST, None)))
        relay.advance_clock(0.01)
    decoder = Decoder()
    decoder.feed(relay.received("B"))
    builds = [fields[0] for op, *fields in decoder if op == Iris.TUNNEL_INIT]
    assert len(builds) == 2000, "an offer was refused because of expired ones"
    relay.send("B", encoded(Iris.TUNNEL_CONFIRM, builds[-1], 7))
    decoder.feed(relay.received("B"))
    ((op, number, reason),) = decoder
    assert (op, number) == (Iris.TUNNEL_CLOSE, 7)
    assert "cancelled or timed out" in reason


async def test_accept_of_an_offer_that_was_not_read_yet_aborts_the_tunnel() -> None:
    """Request ids count up, so that a program can guess the next one."""
    relay = InProcessRelay()
    caller = NativeEnd(relay, "A", serves=False, window=WINDOW)
    NativeEnd(relay, "B", serves=True, window=WINDOW)
    relay.stop_reading("B")
    for number in (1, 2):
        body = bytes(2 * CHUNK)
        data = [Op.CHUNK, number, len(body), body[:CHUNK]]
        for _ in range(2):
            caller._send(*data)
        caller._send(Op.OPEN, number, CLUSTER, number, 5000, None, 0, WINDOW, LARGEST, None)
    relay.received("A")
    relay.send("B", packed((Op.ACCEPT, 2, WINDOW, LARGEST), (Op.DATA, -2, None, b"\xc4\x01x")))
    assert [message[0] for message in unpacked(relay.received("A"))] == [Op.ACCEPT, Op.END]
    relay.resume_reading("B")
    received = [message[:2] for message in unpacked(relay.received("B")) if message[0] != Op.CHUNK]
    assert sorted(received[1:]) == [(Op.OFFER, 1), (Op.OFFER, 2), (Op.END, 2)]
    assert relay.queued == 0
