"""Reassembler: invalid input raises, and partial bodies are bounded."""

from __future__ import annotations

import pytest

from arke.wire.limits import CHUNK, MAX_STREAMS
from arke.wire.reassembly import Reassembler, ReassemblyError

LIMIT = 64 * 1024 * 1024
WHOLE = bytes(CHUNK)


@pytest.mark.parametrize(
    ("stream", "total", "data"),
    [
        ("1", 2 * CHUNK, WHOLE),
        (True, 2 * CHUNK, WHOLE),
        (1, float(2 * CHUNK), WHOLE),
        (1, None, WHOLE),
        (1, 2 * CHUNK, "text"),
        (1, CHUNK, WHOLE),
        (1, 0, b""),
        (1, -1, b""),
        (1, LIMIT + 1, WHOLE),
        (1, CHUNK + 1, bytes(CHUNK + 2)),
    ],
)
def test_invalid_chunk_raises(stream: object, total: object, data: object) -> None:
    with pytest.raises(ReassemblyError):
        Reassembler(LIMIT, LIMIT).add_chunk(stream, total, data)


@pytest.mark.parametrize(
    "fanout", [(), ("text",), (b"", 1), (b"", (b"",)), (bytes(CHUNK), b"x"), None, 7, "text", {}]
)
def test_invalid_shared_bodies_raise(fanout: object) -> None:
    with pytest.raises(ReassemblyError):
        Reassembler(LIMIT, LIMIT).take_fanout(fanout)


@pytest.mark.parametrize("fanout", [b"", bytes(CHUNK), (b"",), (b"one", b"other")])
def test_bodies_without_chunks_are_returned_unchanged(fanout: object) -> None:
    assert Reassembler(LIMIT, LIMIT).take_fanout(fanout) == fanout


@pytest.mark.parametrize("stream", [0, 7, "1", None, True, (), [1]])
def test_message_that_refers_to_an_unknown_stream_raises(stream: object) -> None:
    reassembler = Reassembler(LIMIT, LIMIT)
    reassembler.add_chunk(1, 2 * CHUNK, WHOLE)
    with pytest.raises(ReassemblyError):
        reassembler.take_body(stream)


def test_body_with_a_wrong_size_raises() -> None:
    reassembler = Reassembler(LIMIT, LIMIT)
    reassembler.add_chunk(1, 2 * CHUNK, WHOLE)
    with pytest.raises(ReassemblyError):
        reassembler.take_body(1)
    reassembler.add_chunk(2, 2 * CHUNK, WHOLE)
    with pytest.raises(ReassemblyError):
        reassembler.add_chunk(2, 3 * CHUNK, WHOLE)
    reassembler.add_chunk(3, 2 * CHUNK, WHOLE)
    reassembler.add_chunk(3, 2 * CHUNK, WHOLE)
    with pytest.raises(ReassemblyError):
        reassembler.add_chunk(3, 2 * CHUNK, b"x")


def test_body_can_be_taken_only_once() -> None:
    reassembler = Reassembler(LIMIT, LIMIT)
    reassembler.add_chunk(1, CHUNK + 1, WHOLE)
    reassembler.add_chunk(1, CHUNK + 1, b"x")
    assert bytes(reassembler.take_body(1) or b"") == WHOLE + b"x"
    with pytest.raises(ReassemblyError):
        reassembler.take_body(1)


def test_partial_bodies_are_bounded_by_their_announced_size() -> None:
    """The announced size is reserved when a body starts, however small its first chunk."""
    reassembler = Reassembler(4 * CHUNK, 10 * CHUNK)
    for stream in range(100):
        reassembler.add_chunk(stream, 4 * CHUNK, b"x")
    assert reassembler.refused == 98
    assert reassembler.size == 8 * CHUNK
    for _ in range(3):
        for stream in range(100):
            reassembler.add_chunk(stream, 4 * CHUNK, WHOLE)
    assert (
        sum(len(partial.body) for partial in reassembler._streams.values() if partial.body)
        <= 10 * CHUNK
    )


@pytest.mark.parametrize("total", [CHUNK + 1, 2 * CHUNK])
def test_data_beyond_the_announced_size_is_not_kept(total: int) -> None:
    """The memory of a closing connection must still match its count."""
    reassembler = Reassembler(LIMIT, LIMIT)
    reassembler.add_chunk(1, total, WHOLE)
    reassembler.add_chunk(1, total, bytes(total - CHUNK))
    with pytest.raises(ReassemblyError, match="longer than announced"):
        reassembler.add_chunk(1, total, WHOLE)
    assert (
        sum(len(partial.body) for partial in reassembler._streams.values() if partial.body)
        == reassembler.size
    )


def test_dropped_body_is_reported_as_dropped() -> None:
    reassembler = Reassembler(4 * CHUNK, 4 * CHUNK)
    reassembler.add_chunk(1, 3 * CHUNK, WHOLE)
    reassembler.add_chunk(2, 3 * CHUNK, WHOLE)
    assert reassembler.take_body(2) is None
    reassembler.add_chunk(1, 3 * CHUNK, WHOLE)
    reassembler.add_chunk(1, 3 * CHUNK, WHOLE)
    assert bytes(reassembler.take_body(1) or b"") == 3 * WHOLE
    reassembler.add_chunk(2, 3 * CHUNK, WHOLE)
    assert reassembler.refused == 1


def test_streams_are_bounded_including_dropped_ones() -> None:
    reassembler = Reassembler(2 * CHUNK, 2 * CHUNK)
    for stream in range(MAX_STREAMS):
        reassembler.add_chunk(stream, 2 * CHUNK, b"")
    with pytest.raises(ReassemblyError, match="partial bodies"):
        reassembler.add_chunk(MAX_STREAMS, 2 * CHUNK, b"")
