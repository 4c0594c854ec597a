from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

import pytest

from arke_relay.attachments.fair_reader import PIECE, FairReader


class Reader:
    """A connection that knows only whether somebody reads, and what was heard."""

    def __init__(self) -> None:
        self.reading = True
        self.heard: list[bytes] = []
        self.aborted = ""
        self.on_piece: Callable[[], None] = lambda: None

    def understand(self, data: bytes | memoryview) -> None:
        self.heard.append(bytes(data))
        self.on_piece()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self, reason: str) -> None:
        self.aborted = reason


@pytest.fixture
async def turns() -> FairReader:
    """Looks at a clock on which each look takes two milliseconds: two pieces a turn."""
    clock = count()
    return FairReader(asyncio.get_running_loop(), lambda: next(clock) * 0.002)


async def finish(*readers: Reader) -> list[int]:
    """Go on until all read again; return how many pieces the first had heard by every turn."""
    seen = []
    for _ in range(100):
        if all(reader.reading for reader in readers):
            return seen
        seen.append(len(readers[0].heard))
        await asyncio.sleep(0)
    raise AssertionError("somebody never reads again")


@pytest.mark.parametrize("size", [PIECE + 1, 2 * PIECE, 10 * PIECE + 7])
async def test_all_is_handled_in_order_and_then_there_is_more_to_read(
    turns: FairReader, size: int
) -> None:
    data = bytes(i % 251 for i in range(size))
    reader = Reader()
    turns.take(reader, data)
    await finish(reader)
    assert b"".join(reader.heard) == data
    assert max(map(len, reader.heard)) == PIECE


async def test_others_on_the_loop_get_their_turns_meanwhile(turns: FairReader) -> None:
    reader = Reader()
    turns.take(reader, bytes(10 * PIECE))
    assert await finish(reader) == [2, 4, 6, 8, 10]


async def test_those_who_read_much_share_one_turn(turns: FairReader) -> None:
    readers = [Reader() for _ in range(4)]
    for reader in readers:
        turns.take(reader, bytes(4 * PIECE))
    heard = 0
    while not all(reader.reading for reader in readers):
        now = sum(len(reader.heard) for reader in readers)
        assert now - heard <= 2, "one turn for all of them, not one each"
        heard = now
        lengths = [len(reader.heard) for reader in readers if not reader.reading]
        assert max(lengths, default=0) - min(lengths, default=0) <= 3, "the first began alone"
        await asyncio.sleep(0)
    assert [len(reader.heard) for reader in readers] == [4] * 4


async def test_what_is_dropped_is_not_handled(turns: FairReader) -> None:
    reader = Reader()
    reader.on_piece = lambda: turns.drop(reader)
    turns.take(reader, bytes(10 * PIECE))
    await finish(reader)
    assert len(reader.heard) == 1


async def test_who_cannot_be_handled_is_cut_off_and_others_go_on(turns: FairReader) -> None:
    broken, sound = Reader(), Reader()
    turns.take(sound, bytes(4 * PIECE))

    def fail() -> None:
        raise RuntimeError("unforeseen")

    broken.on_piece = fail
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: failures.append(about))
    turns.take(broken, bytes(4 * PIECE))
    await finish(sound)
    assert broken.aborted
    assert len(broken.heard) == 1
    assert len(sound.heard) == 4
    assert len(failures) == 1
