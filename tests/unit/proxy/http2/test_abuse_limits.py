from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from arke_proxy.http2.abuse_limits import PREFACE, AbuseLimits, AbusiveFrames, goaway_frame

HEADERS = HeadersFrame(1, b"a" * 100, flags=["END_HEADERS", "END_STREAM"])
UPDATE = WindowUpdateFrame(1, window_increment=1)


def count_accepted(frame: Frame, *, seconds_between: float = 0.0, max_frames: int = 3000) -> int:
    """Return how many frames a new connection accepts; at most `max_frames` are sent."""
    limits = AbuseLimits(0.0)
    limits.check(PREFACE, 0.0)
    data = frame.serialize()
    for count in range(max_frames):
        try:
            limits.check(data, count * seconds_between)
        except AbusiveFrames:
            return count
    return max_frames


@pytest.mark.parametrize(
    ("frame", "count"),
    [
        (PingFrame(0, b"12345678"), 1000),
        (SettingsFrame(0, {}), 100),
        (PriorityFrame(3), 1000),
        (DataFrame(1, b""), 1000),
        (DataFrame(1, b"", pad_length=10, flags=["PADDED"]), 1000),
        (RstStreamFrame(1), 200),
        (UPDATE, 1000),
        (ContinuationFrame(1, b""), 1000),
        (GoAwayFrame(0), 1000),
    ],
)
def test_frame_flood_exhausts_budget(frame: Frame, count: int) -> None:
    assert count_accepted(frame) == count
    assert count_accepted(frame, seconds_between=0.1) == 3000  # the budget refills


@pytest.mark.parametrize(
    "frame", [HEADERS, DataFrame(1, b"a"), DataFrame(1, b"", flags=["END_STREAM"])]
)
def test_request_frames_cost_nothing(frame: Frame) -> None:
    assert count_accepted(frame) == 3000


def test_rapid_reset_exhausts_budget() -> None:
    limits = AbuseLimits(0.0)
    limits.check(PREFACE, 0.0)
    pair = HEADERS.serialize() + RstStreamFrame(1).serialize()
    with pytest.raises(AbusiveFrames) as rejected:
        limits.check(pair * 400, 0.0)
    assert rejected.value.code is ErrorCodes.ENHANCE_YOUR_CALM


def test_data_sent_by_proxy_refills_budget_for_window_updates() -> None:
    limits = AbuseLimits(0.0)
    limits.check(PREFACE, 0.0)
    for _ in range(3000):
        limits.on_data_sent(16_384, 16_384)
        limits.check(UPDATE.serialize() * 2, 0.0)
    for _ in range(3000):
        limits.on_data_sent(1, 16_384)  # the client's window allows one byte
    with pytest.raises(AbusiveFrames):
        limits.check(UPDATE.serialize() * 1001, 0.0)


def test_endless_header_block_is_rejected() -> None:
    limits = AbuseLimits(0.0)
    limits.check(PREFACE + HeadersFrame(1, b"a" * 16_384).serialize(), 0.0)
    more = ContinuationFrame(1, b"a" * 16_384).serialize()
    limits.check(more * 15, 0.0)
    assert limits.in_header_block
    with pytest.raises(AbusiveFrames, match="too large"):
        limits.check(more, 0.0)


def test_oversized_frame_is_rejected_from_its_header() -> None:
    limits = AbuseLimits(0.0)
    header = DataFrame(1, b"a" * 16_385).serialize()[:9]
    with pytest.raises(AbusiveFrames) as rejected:
        limits.check(PREFACE + header, 0.0)
    assert rejected.value.code is ErrorCodes.FRAME_SIZE_ERROR


@pytest.mark.parametrize("step", [1, 2, 7, 9, 24, 1000])
def test_frames_split_anywhere_are_checked(step: int) -> None:
    limits = AbuseLimits(0.0)
    frames = (HEADERS, DataFrame(1, b"abc"), HeadersFrame(3, b"x" * 40), ContinuationFrame(3, b""))
    data = PREFACE + b"".join(frame.serialize() for frame in frames)
    for at in range(0, len(data), step):
        limits.check(data[at : at + step], 0.0)
    assert limits.in_header_block
    end = ContinuationFrame(3, b"", flags=["END_HEADERS"])
    for byte in end.serialize():
        limits.check(bytes([byte]), 0.0)
    assert not limits.in_header_block


def test_goaway_frame_is_well_formed() -> None:
    data = goaway_frame(7, ErrorCodes.ENHANCE_YOUR_CALM)
    frame, length = Frame.parse_frame_header(memoryview(data[:9]))
    frame.parse_body(memoryview(data[9:]))
    assert isinstance(frame, GoAwayFrame)
    assert (length, frame.last_stream_id, frame.error_code) == (8, 7, 11)
