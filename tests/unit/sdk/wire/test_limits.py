"""The unpacker of the SDK and the relay: accepted values, limits, and memory use."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arke.wire.limits import (
    CHUNK,
    FANOUT_BATCH,
    HIGH_WATER,
    MAX_HEADERS,
    MAX_HELLO,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_PARTIAL_BYTES,
    MAX_STREAMS,
    READ_SIZE,
    REQUEST_BATCH,
    unpacker,
)

HEADERS = {f"{number:0125}": "v" * 125 for number in range(64)}
"""The largest number of headers, with nearly the largest size."""


def read(data: bytes) -> list[object]:
    messages = unpacker()
    messages.feed(data)
    return list(messages)


@pytest.mark.parametrize(
    "value",
    [
        tuple(range(16)),
        HEADERS,
        bytes(CHUNK),
        "s" * MAX_HEADERS,
        2**64 - 1,
        -(2**63),
        None,
        True,
        (14, 1, "cluster", bytes(CHUNK), 5000, False, {"h": "v" * (MAX_HEADERS - 1)}),
    ],
)
def test_values_within_all_limits_are_unpacked(value: object) -> None:
    assert read(msgpack.packb(value) * 2) == [value, value]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(msgpack.packb([0] * 17), id="array"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="array"),
        pytest.param(msgpack.packb({str(n): n for n in range(65)}), id="map"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="map"),
        pytest.param(msgpack.packb(bytes(CHUNK + 1)), id="bin"),
        pytest.param(msgpack.packb("s" * (MAX_HEADERS + 1)), id="str"),
        pytest.param(msgpack.packb(msgpack.ExtType(1, b"x")), id="ext"),
        pytest.param(msgpack.packb(msgpack.Timestamp(1)), id="ext"),
        pytest.param(msgpack.packb({1: 1}), id="map key"),
        pytest.param(b"\xa1\xff", id="utf-8"),
        pytest.param(b"\xc1", id="never used"),
        pytest.param(b"\x91" * 2000, id="nested"),
    ],
)
def test_values_beyond_a_limit_raise(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — their texts are msgpack's
        read(data)


@given(st.binary(max_size=200) | st.lists(st.binary(max_size=3), max_size=50).map(b"".join))
@example(b"\xc7\x00\x05")
@example(b"\xd6\xff\xff\xff\xff\xff")
@example(b"\x80")
def test_any_bytes_are_unpacked_or_raise_value_error(data: bytes) -> None:
    with suppress(ValueError):
        read(data)


@pytest.mark.parametrize("announced", [b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"])
def test_announced_length_allocates_at_most_one_message_and_one_read(
    announced: bytes,
) -> None:
    """The unpacker allocates only what has arrived, so its buffer is the bound."""
    messages = unpacker()
    messages.feed(announced + bytes(READ_SIZE))
    assert list(messages) == []
    with pytest.raises(msgpack.BufferFull):
        messages.feed(bytes(READ_SIZE))


def test_message_may_end_anywhere_in_a_full_read() -> None:
    """All but one byte of the largest message is buffered when a full read arrives."""
    message = (14, 1, "n" * MAX_NAME, bytes(CHUNK), 5000, False, {"h": "v" * (MAX_HEADERS - 1)})
    data = msgpack.packb(message)
    messages = unpacker()
    messages.feed(data[:-1])
    assert list(messages) == []
    messages.feed((data[-1:] + data * 4)[:READ_SIZE])
    assert next(messages) == message


@pytest.mark.parametrize(
    "header",
    [
        b"\x9f",
        b"\xdc\x00\x10",
        b"\xdc\xff\xff",
        b"\xdd\x00\x00\x00\x10",
        b"\x8f\xa0",
        b"\xde\x00\x40\xa0",
    ],
)
def test_nested_array_headers_allocate_little(header: bytes) -> None:
    """With msgpack's default limits the same bytes allocate ten times 33 MB."""
    unpackers = []
    tracemalloc.start()
    try:
        for _ in range(10):
            messages = unpacker()
            unpackers.append(messages)
            messages.feed(header * (2500 // len(header)))
            with suppress(ValueError):
                list(messages)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(unpackers) == 10
    assert peak < 16 * 1024 * 1024


def test_limits_are_consistent() -> None:
    assert MAX_NAME < MAX_HELLO < CHUNK < READ_SIZE < MAX_MESSAGE <= MAX_PARTIAL_BYTES
    assert REQUEST_BATCH <= FANOUT_BATCH <= CHUNK
    assert HIGH_WATER <= REQUEST_BATCH
    assert MAX_PARTIAL_BYTES // (CHUNK + 1) <= MAX_STREAMS
