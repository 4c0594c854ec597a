"""Streaming responses such as server-sent events: each part is forwarded at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import pytest
from hyperframe.frame import DataFrame, HeadersFrame

from support.connection import Connection
from support.proxy_harness import ProxyHarness
from support.raw_http2 import GET, RawHttp2
from support.waiting import LIMIT

FLAGS = ("-timeout", "1s")
EVENTS = [b"data: %d\n\n" % number for number in range(8)]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
FRAMINGS = {"chunked": b"Transfer-Encoding: chunked\r\n\r\n", "close": b"Connection: close\r\n\r\n"}

ReadEvents = Callable[[Connection], Iterator[bytes]]


def read_http1_events(connection: Connection) -> Iterator[bytes]:
    """Yield the events of one response as they arrive."""
    connection.send(b"GET / HTTP/1.1\r\nHost: example\r\nAccept: text/event-stream\r\n\r\n")
    head = connection.read_head()
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
    assert b"\r\nTransfer-Encoding: chunked\r\n" in head
    while size := int(connection.read_until(b"\r\n"), 16):
        yield connection.read_exactly(size)
        assert connection.read_until(b"\r\n") == b"\r\n"


def read_http2_events(connection: Connection) -> Iterator[bytes]:
    client = RawHttp2(connection)
    client.get(1, [*GET, (b"accept", b"text/event-stream")])
    frame = client.read_until(HeadersFrame)
    assert frame.fields[b"content-type"] == b"text/event-stream"  # type: ignore[attr-defined]
    while "END_STREAM" not in frame.flags:
        frame = client.read_until(DataFrame)
        assert isinstance(frame, DataFrame)
        if frame.data:
            yield frame.data


BOTH_VERSIONS = pytest.mark.parametrize("read_events", [read_http1_events, read_http2_events])


def frame_event(event: bytes, framing: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event) if framing == "chunked" else event


@BOTH_VERSIONS
@pytest.mark.parametrize("framing", FRAMINGS)
def test_each_event_is_forwarded_at_once(
    harness: ProxyHarness, read_events: ReadEvents, framing: str
) -> None:
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(HEAD + FRAMINGS[framing])
        for event in EVENTS:
            connection.send(frame_event(event, framing))
            assert received.get(timeout=LIMIT) == event
        if framing == "chunked":
            connection.send(b"0\r\n\r\n")

    harness.start_backends(script)
    for event in read_events(harness.connect()):
        received.put(event)
    assert received.empty()


@BOTH_VERSIONS
def test_slow_stream_that_never_stalls_is_not_timed_out(
    harness: ProxyHarness, read_events: ReadEvents
) -> None:
    """The response takes about three times -timeout, but each pause is shorter than -timeout."""
    client_done = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(HEAD + FRAMINGS["chunked"])
        for event in EVENTS:
            assert not client_done.wait(0.4)
            connection.send(frame_event(event, "chunked"))
        connection.send(b"0\r\n\r\n")

    harness.start_backends(script)
    try:
        assert list(read_events(harness.connect())) == EVENTS
    finally:
        client_done.set()
