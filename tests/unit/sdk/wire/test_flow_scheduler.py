"""Flows of tunnels in an outbox: order, round-robin with large bodies, and dropping."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import example, given
from hypothesis import strategies as st

from arke.wire.limits import CHUNK, unpacker
from arke.wire.messages import Op
from arke.wire.outbox import Outbox

DATA = Op.DATA.value
LIMIT = 64 * 1024 * 1024
SMALL, LARGE = 10, 10_000
EVERYTHING = 2**31

Step = tuple[str, int, int]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("part"), st.integers(0, 2), st.sampled_from([SMALL, LARGE, CHUNK])),
        st.tuples(st.just("drop"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("body"), st.integers(0, 2), st.sampled_from([SMALL, LARGE, 3 * CHUNK])),
        st.tuples(st.just("ping"), st.just(0), st.just(0)),
        st.tuples(st.just("take"), st.just(0), st.sampled_from([1, 20_000, 48_000, EVERYTHING])),
    ),
    max_size=40,
)


class Sender:
    """An outbox and the messages that its tunnels still expect; dropped ones are negative."""

    def __init__(self) -> None:
        self.outbox = Outbox(LIMIT)
        self.waiting: dict[int, list[int]] = defaultdict(list)
        self._number = 0
        self._unpacker = unpacker(LIMIT)

    def do(self, action: str, tunnel: int, size: int) -> None:
        self._number += 1
        match action:
            case "part":
                message = (DATA, tunnel, self._number, bytes(size))
                self.outbox.put_in_flow(message, f"tunnel {tunnel}")
                self.waiting[tunnel].append(self._number)
            case "drop":
                self.outbox.drop_flow(f"tunnel {tunnel}")
                # Messages that are already in the queue of small messages still arrive.
                self.waiting[tunnel] = [-abs(number) for number in self.waiting[tunnel]]
            case "body":
                assert self.outbox.put_body(
                    (Op.DELIVER_BROADCAST.value, bytes(size), "s", None), 1, tunnel
                )
            case "ping":
                assert self.outbox.put((Op.PING.value, 0))
            case _:
                self.take(size)

    def take(self, room: int) -> None:
        waited = self.outbox.size
        data = self.outbox.take(room)
        assert bool(data) == (waited > 0)
        self._unpacker.feed(data)
        for message in self._unpacker:
            if message[0] == DATA:
                self._on_message(message[1], message[2])

    def _on_message(self, tunnel: int, number: int) -> None:
        waiting = self.waiting[tunnel]
        while waiting[0] != number:
            skipped = waiting.pop(0)
            assert skipped < 0, f"{skipped} of tunnel {tunnel} was skipped before {number}"
            if skipped == -number:
                return
        waiting.pop(0)


@given(steps)
@example([("ping", 0, 0), ("part", 0, LARGE), ("drop", 0, 0), ("take", 0, EVERYTHING)])
def test_batches_are_not_empty_and_tunnels_keep_their_order(given: list[Step]) -> None:
    sender = Sender()
    for action, which, size in given:
        sender.do(action, which, size)
    while sender.outbox.size:
        sender.take(48_000)
    assert not [number for left in sender.waiting.values() for number in left if number > 0]


def test_dropped_flow_does_not_block_other_flows() -> None:
    sender = Sender()
    sender.do("ping", 0, 0)
    sender.do("part", 1, LARGE)
    sender.do("drop", 1, 0)
    sender.take(EVERYTHING)
    sender.do("part", 2, LARGE)
    sender.take(EVERYTHING)
    assert not sender.outbox.size


def test_batch_is_filled_after_its_flow_was_dropped() -> None:
    sender = Sender()
    sender.do("part", 1, LARGE)
    sender.do("ping", 0, 0)
    sender.take(1)
    sender.do("drop", 1, 0)
    sender.do("ping", 0, 0)
    sender.take(1)
    assert not sender.outbox.size


def test_dropped_flow_can_be_started_again() -> None:
    sender = Sender()
    sender.do("part", 1, LARGE)
    sender.do("drop", 1, 0)
    for _ in range(3):
        sender.do("part", 1, LARGE)
    while sender.outbox.size:
        sender.take(48_000)
    assert not [number for number in sender.waiting[1] if number > 0]
