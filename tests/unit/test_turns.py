from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

import pytest

from arke_relay.attachments.turns import PIECE, Turns


class Wire(asyncio.Transport):
    """Knows only whether somebody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.closing = False

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing


class Scene:
    """`turns` looks at a clock on which each look takes two milliseconds."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.heard: list[bytes] = []
        self.on_piece: Callable[[], None] = lambda: None
        clock = count()
        self.turns = Turns(
            asyncio.get_running_loop(), lambda: next(clock) * 0.002, self.wire, self._handle
        )

    async def finish(self) -> list[int]:
        """Go on until there is more to read; return how many pieces were heard by every turn."""
        seen = []
        for _ in range(100):
            if self.wire.reading:
                return seen
            seen.append(len(self.heard))
            await asyncio.sleep(0)
        raise AssertionError("it never reads again")

    def _handle(self, piece: bytes | memoryview) -> None:
        self.heard.append(bytes(piece))
        self.on_piece()


@pytest.fixture
async def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("size", [PIECE + 1, 2 * PIECE, 10 * PIECE + 7])
async def test_all_is_handled_in_order_and_then_there_is_more_to_read(
    scene: Scene, size: int
) -> None:
    data = bytes(i % 251 for i in range(size))
    scene.turns.take(data)
    await scene.finish()
    assert b"".join(scene.heard) == data
    assert max(map(len, scene.heard)) == PIECE


async def test_others_get_their_turns_meanwhile(scene: Scene) -> None:
    scene.turns.take(bytes(10 * PIECE))
    # Three looks at the clock are over five milliseconds: two pieces a turn.
    assert await scene.finish() == [2, 4, 6, 8, 10]


async def test_what_is_dropped_is_not_handled(scene: Scene) -> None:
    scene.on_piece = scene.turns.drop
    scene.turns.take(bytes(10 * PIECE))
    await scene.finish()
    assert len(scene.heard) == 1


async def test_a_connection_that_closes_is_not_read_again(scene: Scene) -> None:
    scene.turns.take(bytes(PIECE))
    scene.wire.closing = True
    for _ in range(3):
        await asyncio.sleep(0)
    assert not scene.wire.reading
