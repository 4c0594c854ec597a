"""The fair reader handles large reads in slices, in turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

import pytest

from arke_relay.attachments.detach_reason import DetachReason
from arke_relay.attachments.fair_reader import SLICE, FairReader


class FakeConnection:
    """Records the slices it handles, and whether its reading is paused."""

    def __init__(self) -> None:
        self.reading = True
        self.slices: list[bytes] = []
        self.aborted: DetachReason | None = None
        self.on_slice: Callable[[], None] = lambda: None

    def handle_data(self, data: bytes | memoryview) -> None:
        self.slices.append(bytes(data))
        self.on_slice()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self, reason: DetachReason) -> None:
        self.aborted = reason


@pytest.fixture
async def reader() -> FairReader:
    """Return a reader whose clock advances 2 ms per reading, so that a turn handles two slices."""
    clock = count()
    return FairReader(asyncio.get_running_loop(), lambda: next(clock) * 0.002)


async def finish(*connections: FakeConnection) -> list[int]:
    """Run until all resume reading. Return the first one's number of slices after each turn."""
    handled = []
    for _ in range(100):
        if all(connection.reading for connection in connections):
            return handled
        handled.append(len(connections[0].slices))
        await asyncio.sleep(0)
    raise AssertionError("a connection did not resume reading")


@pytest.mark.parametrize("size", [SLICE + 1, 2 * SLICE, 10 * SLICE + 7])
async def test_slices_are_handled_in_order_and_reading_resumes(
    reader: FairReader, size: int
) -> None:
    data = bytes(i % 251 for i in range(size))
    connection = FakeConnection()
    reader.add(connection, data)
    await finish(connection)
    assert b"".join(connection.slices) == data
    assert max(map(len, connection.slices)) == SLICE


async def test_event_loop_runs_between_turns(reader: FairReader) -> None:
    connection = FakeConnection()
    reader.add(connection, bytes(10 * SLICE))
    assert await finish(connection) == [2, 4, 6, 8, 10]


async def test_connections_share_one_turn(reader: FairReader) -> None:
    connections = [FakeConnection() for _ in range(4)]
    for connection in connections:
        reader.add(connection, bytes(4 * SLICE))
    handled = 0
    while not all(connection.reading for connection in connections):
        now = sum(len(connection.slices) for connection in connections)
        assert now - handled <= 2, "all connections share one turn"
        handled = now
        lengths = [len(each.slices) for each in connections if not each.reading]
        assert max(lengths, default=0) - min(lengths, default=0) <= 3, "progress is even"
        await asyncio.sleep(0)
    assert [len(connection.slices) for connection in connections] == [4] * 4


async def test_removed_connection_gets_no_further_slice(reader: FairReader) -> None:
    connection = FakeConnection()
    connection.on_slice = lambda: reader.remove(connection)
    reader.add(connection, bytes(10 * SLICE))
    await finish(connection)
    assert len(connection.slices) == 1


async def test_exception_aborts_its_connection_only(reader: FairReader) -> None:
    broken, healthy = FakeConnection(), FakeConnection()
    reader.add(healthy, bytes(4 * SLICE))

    def fail() -> None:
        raise RuntimeError("unforeseen")

    broken.on_slice = fail
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: failures.append(about))
    reader.add(broken, bytes(4 * SLICE))
    await finish(healthy)
    assert broken.aborted is DetachReason.INTERNAL_ERROR
    assert len(broken.slices) == 1
    assert len(healthy.slices) == 4
    assert len(failures) == 1
