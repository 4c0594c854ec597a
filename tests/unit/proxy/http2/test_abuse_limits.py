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


def borne(frame: Frame, *, seconds_between: float = 0.0, most: int = 3000) -> int:
    """How many of these frames a new guard lets pass."""
    guard = AbuseLimits(0.0)
    guard.check(PREFACE, 0.0)
    data = frame.serialize()
    for count in range(most):
        try:
            guard.check(data, count * seconds_between)
        except AbusiveFrames:
            return count
    return most


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
def test_floods_exhaust_its_patience(frame: Frame, count: int) -> None:
    assert borne(frame) == count
    assert borne(frame, seconds_between=0.1) == 3000  # which time restores


@pytest.mark.parametrize(
    "frame", [HEADERS, DataFrame(1, b"a"), DataFrame(1, b"", flags=["END_STREAM"])]
)
def test_requests_are_free(frame: Frame) -> None:
    assert borne(frame) == 3000


def test_rapid_resets_do_not_pass_for_requests() -> None:
    guard = AbuseLimits(0.0)
    guard.check(PREFACE, 0.0)
    pair = HEADERS.serialize() + RstStreamFrame(1).serialize()
    with pytest.raises(AbusiveFrames) as refused:
        guard.check(pair * 400, 0.0)
    assert refused.value.code is ErrorCodes.ENHANCE_YOUR_CALM


def test_reading_an_answer_earns_window_updates() -> None:
    guard = AbuseLimits(0.0)
    guard.check(PREFACE, 0.0)
    for _ in range(3000):
        guard.on_data_sent(16_384, 16_384)
        guard.check(UPDATE.serialize() * 2, 0.0)
    for _ in range(3000):
        guard.on_data_sent(1, 16_384)  # the client's window was that small
    with pytest.raises(AbusiveFrames):
        guard.check(UPDATE.serialize() * 1001, 0.0)


def test_a_list_of_fields_without_end() -> None:
    guard = AbuseLimits(0.0)
    guard.check(PREFACE + HeadersFrame(1, b"a" * 16_384).serialize(), 0.0)
    more = ContinuationFrame(1, b"a" * 16_384).serialize()
    guard.check(more * 15, 0.0)
    assert guard.in_header_block
    with pytest.raises(AbusiveFrames, match="too large"):
        guard.check(more, 0.0)


def test_a_large_frame_is_refused_before_it_comes() -> None:
    guard = AbuseLimits(0.0)
    header = DataFrame(1, b"a" * 16_385).serialize()[:9]
    with pytest.raises(AbusiveFrames) as refused:
        guard.check(PREFACE + header, 0.0)
    assert refused.value.code is ErrorCodes.FRAME_SIZE_ERROR


@pytest.mark.parametrize("step", [1, 2, 7, 9, 24, 1000])
def test_frames_in_pieces(step: int) -> None:
    guard = AbuseLimits(0.0)
    frames = (HEADERS, DataFrame(1, b"abc"), HeadersFrame(3, b"x" * 40), ContinuationFrame(3, b""))
    data = PREFACE + b"".join(frame.serialize() for frame in frames)
    for at in range(0, len(data), step):
        guard.check(data[at : at + step], 0.0)
    assert guard.in_header_block
    end = ContinuationFrame(3, b"", flags=["END_HEADERS"])
    for octet in end.serialize():
        guard.check(bytes([octet]), 0.0)
    assert not guard.in_header_block


def test_goodbye_is_a_frame() -> None:
    data = goaway_frame(7, ErrorCodes.ENHANCE_YOUR_CALM)
    frame, length = Frame.parse_frame_header(memoryview(data[:9]))
    frame.parse_body(memoryview(data[9:]))
    assert isinstance(frame, GoAwayFrame)
    assert (length, frame.last_stream_id, frame.error_code) == (8, 7, 11)
