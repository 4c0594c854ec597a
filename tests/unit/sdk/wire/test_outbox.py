"""Outbox: messages arrive whole, in order and within the bounds at a Reassembler."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgpack import packb

from arke.wire import flow_scheduler
from arke.wire import outbox as module
from arke.wire.chunked_body import BodyChunks
from arke.wire.limits import (
    CHUNK,
    FANOUT_BATCH,
    MAX_HEADERS,
    MAX_PARTIAL_BYTES,
    MAX_SHARED_BODIES,
    READ_SIZE,
    REQUEST_BATCH,
    unpacker,
)
from arke.wire.messages import Op
from arke.wire.outbox import Outbox
from arke.wire.reassembly import Reassembler
from arke_relay.peers.batch_reader import MAX_FRAME

LIMIT = 64 * 1024 * 1024
ROOM = 48 * 1024
"""The batch size of a peer link."""

BROADCAST = Op.DELIVER_BROADCAST.value
PING = Op.PING.value

HEADERS = {"h": "x" * (MAX_HEADERS - 1)}


@dataclass(frozen=True)
class Message:
    """One message to queue; without an `order` it has no key."""

    size: int
    order: int | None = None
    headers: bool = False
    fanout: bool = False


@dataclass
class Receiver:
    """Reads bytes like the SDK and the relay, and keeps the messages."""

    split: int = READ_SIZE
    reassembler: Reassembler = field(default_factory=lambda: Reassembler(LIMIT, LIMIT))
    received: list[tuple[int, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._unpacker = unpacker()

    def read(self, data: bytes) -> None:
        for at in range(0, len(data), self.split):
            self._unpacker.feed(data[at : at + self.split])
            for op, *fields in self._unpacker:
                if op == Op.CHUNK:
                    self.reassembler.add_chunk(*fields)
                    continue
                _, fanout, _ = fields
                joined = self.reassembler.take_fanout(fanout)
                assert joined is not None
                for each in joined if isinstance(joined, tuple) else (bytes(joined),):
                    self.received.append((int(each[:8]), each))


def body(number: int, size: int) -> bytes:
    """A body that starts with its number; at least eight bytes."""
    line = b"%08d|" % number + bytes(range(256))
    return (line * (size // len(line) + 1))[: max(8, size)]


def put(outbox: Outbox, number: int, message: Message, *, relay: bool = False) -> bool:
    """Queue a message as a program does, or as a relay does."""
    name = f"name{message.order}"
    headers = HEADERS if message.headers else None
    fields = (BROADCAST, name, body(number, message.size), headers)
    if not message.fanout:
        return outbox.put_body(fields, 2, message.order and (BROADCAST, name))
    if relay and message.size <= CHUNK:
        return outbox.put_packed(packb(fields), (BROADCAST, name))
    if headers is None and not relay:
        return outbox.put_fanout(*fields[:3])
    return outbox.put_body(fields, 2, (BROADCAST, name))


def drain(outbox: Outbox, room: int = ROOM) -> list[bytes]:
    batches = []
    while outbox:
        batches.append(outbox.take(room))
    return batches


EDGES = [0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1]
SIZES = st.sampled_from(EDGES) | st.integers(0, 3 * CHUNK) | st.integers(0, 2000)
MESSAGES = st.builds(
    Message, SIZES, st.none() | st.integers(1, 3), headers=st.booleans(), fanout=st.booleans()
)
ROOMS = st.sampled_from([1, 1000, ROOM, READ_SIZE]) | st.integers(1, 2 * CHUNK)

S = Message(15 * 1024, order=1)
L = Message(CHUNK + 1, order=1)
C = Message(100, order=1, fanout=True)


@given(
    steps=st.lists(MESSAGES | ROOMS, max_size=25),
    rest=ROOMS,
    split=st.sampled_from([1021, 4096, CHUNK, READ_SIZE]),
    relay=st.booleans(),
)
@example(
    steps=[*[S] * 7, L], rest=ROOM, split=READ_SIZE, relay=True
)  # small messages before a large one
@example(steps=[L, S, L, 1000, 1000, S, S], rest=ROOM, split=READ_SIZE, relay=True)
@example(steps=[Message(2 * CHUNK)], rest=1, split=READ_SIZE, relay=True)  # the last chunk is full
@example(steps=[*[C] * 40, L, C, S, C, C], rest=ROOM, split=READ_SIZE, relay=False)
def test_messages_arrive_whole_and_in_order(
    steps: list[Message | int], rest: int, split: int, *, relay: bool
) -> None:
    outbox, receiver = Outbox(LIMIT), Receiver(split)
    orders: dict[int, list[int]] = defaultdict(list)
    bodies = {}
    for number, step in enumerate(steps):
        if isinstance(step, int):
            receiver.read(outbox.take(step))
        else:
            assert put(outbox, number, step, relay=relay)
            bodies[number] = body(number, step.size)
            if step.order is not None or step.fanout:
                orders[step.order or 0].append(number)
    for batch in drain(outbox, rest):
        receiver.read(batch)
    assert len(receiver.received) == len(bodies)
    assert dict(receiver.received) == bodies
    arrived = [number for number, _ in receiver.received]
    for numbers in orders.values():
        assert [number for number in arrived if number in numbers] == numbers
    assert outbox.size == 0
    assert receiver.reassembler.size == 0
    assert receiver.reassembler.refused == 0


@given(steps=st.lists(MESSAGES | st.just(ROOM), max_size=40))
@example(steps=[*[Message(16_300)] * 3, Message(CHUNK, headers=True)])
@example(steps=[L, Message(CHUNK, 1, headers=True), *[Message(16_300)] * 3])
@example(steps=[Message(2 * CHUNK, headers=True), ROOM, *[Message(16_300)] * 3])
@example(steps=[Message(2 * CHUNK, headers=True), *[Message(1000)] * 60])
def test_every_batch_fits_into_a_frame(steps: list[Message | int]) -> None:
    outbox = Outbox(LIMIT)
    batches = []
    for number, step in enumerate(steps):
        if isinstance(step, int):
            batches.append(outbox.take(step))
        else:
            put(outbox, number, step)
    batches += drain(outbox)
    # Reserve for the names, which these messages lack, and the header of the batch.
    assert max(map(len, batches), default=0) <= MAX_FRAME - 1024


@pytest.mark.parametrize("room", [1, ROOM, READ_SIZE])
def test_batch_is_never_empty_while_messages_wait(room: int) -> None:
    outbox = Outbox(LIMIT)
    for number in range(4):
        put(outbox, number, Message(3 * CHUNK, order=number % 2))
        put(outbox, number, Message(100, order=1))
        put(outbox, number, Message(CHUNK))
    assert all(drain(outbox, room))
    assert outbox.take(room) == b""


@pytest.mark.parametrize("room", [ROOM, READ_SIZE])
def test_small_message_passes_a_large_body(room: int) -> None:
    outbox, receiver = Outbox(LIMIT), Receiver()
    put(outbox, 1, Message(16 * CHUNK, order=1))
    receiver.read(outbox.take(room))
    put(outbox, 2, Message(100, order=2))
    put(outbox, 3, Message(100))
    receiver.read(outbox.take(room))
    assert [number for number, _ in receiver.received] == [2, 3]


@pytest.mark.parametrize("size", [100, 20_000, CHUNK])
def test_small_messages_do_not_starve_a_large_body(size: int) -> None:
    outbox, receiver = Outbox(LIMIT), Receiver()
    put(outbox, 1, Message(16 * CHUNK))
    batches = 0
    while not any(number == 1 for number, _ in receiver.received):
        while len(outbox._ready) * size < 4 * ROOM:
            put(outbox, 2, Message(size))
        receiver.read(outbox.take(ROOM))
        batches += 1
        assert batches <= 2 * 17 + 1


def test_consecutive_small_broadcasts_share_a_message() -> None:
    outbox = Outbox(LIMIT)
    for number in range(40):
        put(outbox, number, C)
    put(outbox, 40, Message(100, order=2, fanout=True))
    outbox.put((PING, 1))
    put(outbox, 41, Message(100, order=2, fanout=True))
    messages = unpacker()
    messages.feed(outbox.take(ROOM))
    shared = [1 if op == PING or type(rest[1]) is bytes else len(rest[1]) for op, *rest in messages]
    assert shared == [MAX_SHARED_BODIES, MAX_SHARED_BODIES, 8, 1, 1, 1]


@pytest.mark.parametrize("count", [1, MAX_SHARED_BODIES - 1, MAX_SHARED_BODIES])
def test_empty_broadcast_body_makes_the_outbox_non_empty(count: int) -> None:
    outbox = Outbox(LIMIT)
    for _ in range(count):
        outbox.put_fanout(BROADCAST, "name", b"")
    assert outbox
    assert outbox.take(ROOM)
    assert outbox.size == 0


def test_name_that_cannot_be_encoded_affects_no_other_message() -> None:
    outbox, receiver = Outbox(LIMIT), Receiver()
    outbox.put_fanout(BROADCAST, "\ud800", body(1, 10))
    with pytest.raises(UnicodeEncodeError):
        put(outbox, 2, C)
    put(outbox, 3, C)
    for batch in drain(outbox):
        receiver.read(batch)
    assert [number for number, _ in receiver.received] == [3]
    assert outbox.size == 0


def test_large_bodies_are_sent_round_robin() -> None:
    outbox, receiver = Outbox(LIMIT), Receiver()
    put(outbox, 1, Message(100 * CHUNK))
    receiver.read(outbox.take(ROOM))
    put(outbox, 2, Message(2 * CHUNK))
    while not receiver.received:
        receiver.read(outbox.take(ROOM))
    assert receiver.received[0][0] == 2
    assert outbox.size > 90 * CHUNK


def test_message_over_the_limit_is_dropped_whole() -> None:
    outbox, receiver = Outbox(3 * CHUNK), Receiver()
    assert put(outbox, 1, Message(4 * CHUNK, order=1))
    for number, message in enumerate(
        [Message(1), Message(1, order=1), Message(2 * CHUNK), Message(1, fanout=True)], start=2
    ):
        assert not put(outbox, number, message)
    for batch in drain(outbox):
        receiver.read(batch)
    assert [number for number, _ in receiver.received] == [1]
    assert put(outbox, 7, Message(1))


def test_body_over_max_body_is_rejected() -> None:
    outbox = Outbox(LIMIT, max_body=2 * CHUNK)
    assert not put(outbox, 1, Message(2 * CHUNK + 1))
    assert outbox.size == 0
    assert put(outbox, 2, Message(2 * CHUNK))
    assert put(outbox, 3, Message(1))
    tiny = Outbox(LIMIT, max_body=1)
    assert put(tiny, 4, Message(CHUNK)), "max_body applies only to bodies in chunks"


def test_reserve_accepts_messages_without_a_body() -> None:
    outbox = Outbox(3 * CHUNK)
    assert outbox.put_body((PING, bytes(4 * CHUNK)), 1)
    assert not outbox.put_body((PING, b"x"), 1)
    while outbox.put((PING, "x" * 1000)):
        assert outbox.size < 3 * 1024 * 1024
    assert outbox.size > 1024 * 1024


def test_limit_counts_the_overhead_of_small_messages() -> None:
    """A PING is three bytes on the wire and about fifty in Python."""
    outbox = Outbox(CHUNK)
    pings = 0
    while outbox.put((PING, 1)):
        pings += 1
        assert pings < 50_000
    assert pings > 10_000
    for batch in drain(outbox):
        assert len(batch) <= ROOM
    assert outbox.put((PING, 1))


def test_tunnel_messages_beyond_any_credit_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_TUNNEL_BYTES", 4 * CHUNK)
    outbox = Outbox(CHUNK)
    parts = 0
    while outbox.put_in_flow((Op.DATA.value, 1, None, bytes(5000)), parts % 3):
        parts += 1
        assert parts < 100
    assert parts > 5 * CHUNK // 5100
    for tunnel in range(3):
        outbox.drop_flow(tunnel)
    assert (outbox.size, outbox._scheduler.message_count) == (0, 0)
    assert outbox.put_in_flow((Op.DATA.value, 1, None, b"x"), 1)


@pytest.mark.parametrize("size", [CHUNK + 1, 5 * CHUNK, MAX_PARTIAL_BYTES // 4])
def test_partial_bodies_stay_within_the_receiver_limit(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tenth of all sizes keeps the ratios; 64 MiB would be slow in Python.
    size = max(size // 10, CHUNK + 1)
    partial_limit = MAX_PARTIAL_BYTES // 10
    monkeypatch.setattr(flow_scheduler, "MAX_PARTIAL_BYTES", partial_limit)
    outbox, reassembler = Outbox(partial_limit), Reassembler(MAX_PARTIAL_BYTES, partial_limit)
    receiver = Receiver(reassembler=reassembler)
    large = (BROADCAST, "t", body(1, size), None)
    sent = 0
    while sent < 2 * partial_limit:  # each batch is taken as soon as it is queued
        while outbox.put_body(large, 2):
            sent += size
        receiver.read(outbox.take(ROOM))
    for batch in drain(outbox):
        receiver.read(batch)
    assert reassembler.refused == 0
    assert reassembler.size == 0


def test_body_over_the_partial_limit_is_sent_alone() -> None:
    outbox, reassembler = (
        Outbox(2 * MAX_PARTIAL_BYTES),
        Reassembler(MAX_PARTIAL_BYTES + CHUNK, MAX_PARTIAL_BYTES + CHUNK),
    )
    receiver = Receiver(reassembler=reassembler)
    for number, size in enumerate([CHUNK + 1, MAX_PARTIAL_BYTES + CHUNK, CHUNK + 1]):
        outbox.put_body((BROADCAST, "t", body(number, size), None), 2)
        receiver.read(outbox.take(ROOM))
    for batch in drain(outbox, READ_SIZE):
        receiver.read(batch)
    assert [number for number, _ in receiver.received] == [0, 1, 2]


# Callbacks of the sender.


class Sender:
    """Counts the callbacks of an outbox."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.wakes = 0
        self.flushes = 0
        self.outbox = Outbox(limit, self._wake, self._flush)

    def _wake(self) -> None:
        self.wakes += 1

    def _flush(self) -> None:
        self.flushes += 1


@pytest.mark.parametrize("message", [Message(10), Message(0, fanout=True), L, Message(CHUNK)])
def test_wake_is_called_for_the_first_message_of_an_empty_outbox(message: Message) -> None:
    sender = Sender()
    for turn in range(1, 4):
        put(sender.outbox, 1, message)
        assert sender.wakes == turn
        sender.outbox.put((PING, 1))
        put(sender.outbox, 2, message)
        assert sender.wakes == turn
        drain(sender.outbox)


def test_flush_is_called_once_a_batch_is_full() -> None:
    sender = Sender()
    while sender.outbox.size < REQUEST_BATCH:
        assert sender.flushes == 0
        put(sender.outbox, 1, Message(500))
    assert sender.flushes == 1
    drain(sender.outbox)
    while sender.outbox.size < FANOUT_BATCH:
        assert sender.flushes == 1
        put(sender.outbox, 1, Message(500, order=1))
    assert sender.flushes == 2
    drain(sender.outbox)
    while sender.outbox.size < FANOUT_BATCH:
        assert sender.flushes == 2
        put(sender.outbox, 1, Message(500, order=1, fanout=True), relay=True)
    assert sender.flushes == 3


def test_flush_callback_may_take_everything() -> None:
    sender, receiver = Sender(), Receiver()
    sender.outbox = outbox = Outbox(LIMIT, lambda: None, lambda: receiver.read(outbox.take(ROOM)))
    for number in range(200):
        put(outbox, number, Message(300, order=1, fanout=number % 3 > 0))
    for batch in drain(outbox):
        receiver.read(batch)
    assert [number for number, _ in receiver.received] == list(range(200))


# Forwarding.


@given(st.integers(CHUNK + 1, 3 * CHUNK), st.lists(st.integers(0, CHUNK), min_size=1, max_size=20))
def test_chunked_body_is_forwarded_unchanged_for_any_chunk_sizes(
    size: int, cuts: list[int]
) -> None:
    whole, came = body(1, size), BodyChunks()
    at = 0
    for cut in cuts:
        came.append(whole[at : at + cut])
        at += cut
    while at < size:
        came.append(whole[at : at + CHUNK])
        at += CHUNK
    assert len(came) == size
    assert bytes(came) == whole
    outbox, receiver = Outbox(LIMIT), Receiver()
    assert outbox.put_body((BROADCAST, "t", came, None), 2)
    for batch in drain(outbox):
        receiver.read(batch)
    assert receiver.received == [(1, whole)]


def test_tiny_chunks_are_merged() -> None:
    came = BodyChunks()
    for _ in range(CHUNK + 1):
        came.append(b"x")
    assert len(came._chunks) == 1
    assert bytes(came) == b"x" * (CHUNK + 1)


# Messages that must not pass a large body.


def _ops(batches: list[bytes]) -> list[int]:
    messages, ops = unpacker(), []
    for batch in batches:
        messages.feed(batch)
        ops += [message[0] for message in messages if message[0] != Op.CHUNK]
    return ops


def test_cancel_stays_behind_its_large_body() -> None:
    outbox = Outbox(LIMIT)
    outbox.put_body((Op.DELIVER_REQUEST.value, 7, bytes(3 * CHUNK), 1), 2, 7)
    outbox.put_in_flow((Op.REQUEST_CANCELLED.value, 7), 7)
    outbox.put((PING, 0))
    assert _ops(drain(outbox)) == [PING, Op.DELIVER_REQUEST, Op.REQUEST_CANCELLED]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_pong_waits_for_earlier_large_bodies_only(count: int) -> None:
    outbox = Outbox(LIMIT)
    for number in range(count):
        outbox.put_body(
            (Op.DELIVER_REQUEST.value, number, bytes((count - number) * 2 * CHUNK), 1), 2, number
        )
    assert outbox.put_after_bodies((Op.PONG.value, 0))
    outbox.put_body((BROADCAST, bytes(20 * CHUNK), "s", None), 1)
    outbox.put((PING, 0))
    ops = _ops(drain(outbox))
    assert sorted(ops[: count + 2]) == sorted([PING, *[Op.DELIVER_REQUEST] * count, Op.PONG])
    assert ops.index(Op.PONG) > max(
        (at for at, op in enumerate(ops) if op == Op.DELIVER_REQUEST), default=-1
    )
    assert ops[-1] == BROADCAST
    assert outbox.size == 0


def test_pongs_behind_a_large_body_are_bounded() -> None:
    outbox = Outbox(CHUNK)
    outbox.put_body((BROADCAST, bytes(2 * CHUNK), "s", None), 1)
    taken = sum(outbox.put_after_bodies((Op.PONG.value, 0)) for _ in range(100_000))
    assert 0 < taken < 100_000
    list(drain(outbox))
    assert outbox.size == 0


def test_drop_flow_keeps_the_large_body() -> None:
    outbox = Outbox(LIMIT)
    for number in (1, 2):
        outbox.put_body((Op.DELIVER_REQUEST.value, number, bytes(2 * CHUNK), 1), 2, number)
        outbox.put_in_flow((Op.DATA.value, number, None, b"x"), number)
        outbox.drop_flow(number)
    assert _ops(drain(outbox)) == [Op.DELIVER_REQUEST, Op.DELIVER_REQUEST]
    assert outbox.size == 0


def test_close_drops_all_messages() -> None:
    outbox = Outbox(LIMIT)
    outbox.put_body((Op.DELIVER_REQUEST.value, 1, bytes(2 * CHUNK), 1), 2, 1)
    outbox.put_after_bodies((Op.PONG.value, 0))
    outbox.close()
    scheduler = outbox._scheduler
    assert not any((outbox._ready, outbox._flows, outbox.size, scheduler.message_count))
    assert not any((scheduler._behind_bodies, scheduler._bodies_waiting))
