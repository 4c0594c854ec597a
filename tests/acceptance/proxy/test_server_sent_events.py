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
BEGIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
FRAMINGS = {"chunks": b"Transfer-Encoding: chunked\r\n\r\n", "end": b"Connection: close\r\n\r\n"}

Listen = Callable[[Connection], Iterator[bytes]]


def by_http_1(connection: Connection) -> Iterator[bytes]:
    """Yield the events of one response as they arrive."""
    connection.send(b"GET / HTTP/1.1\r\nHost: example\r\nAccept: text/event-stream\r\n\r\n")
    head = connection.read_head()
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
    assert b"\r\nTransfer-Encoding: chunked\r\n" in head
    while size := int(connection.read_until(b"\r\n"), 16):
        yield connection.read_exactly(size)
        assert connection.read_until(b"\r\n") == b"\r\n"


def by_http_2(connection: Connection) -> Iterator[bytes]:
    client = RawHttp2(connection)
    client.get(1, [*GET, (b"accept", b"text/event-stream")])
    frame = client.read_until(HeadersFrame)
    assert frame.fields[b"content-type"] == b"text/event-stream"  # type: ignore[attr-defined]
    while "END_STREAM" not in frame.flags:
        frame = client.read_until(DataFrame)
        assert isinstance(frame, DataFrame)
        if frame.data:
            yield frame.data


LISTEN = pytest.mark.parametrize("listen", [by_http_1, by_http_2])


def framed(event: bytes, framing: str) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event) if framing == "chunks" else event


@LISTEN
@pytest.mark.parametrize("framing", FRAMINGS)
def test_each_event_is_forwarded_at_once(
    harness: ProxyHarness, listen: Listen, framing: str
) -> None:
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(BEGIN + FRAMINGS[framing])
        for event in EVENTS:
            connection.send(framed(event, framing))
            assert heard.get(timeout=LIMIT) == event
        if framing == "chunks":
            connection.send(b"0\r\n\r\n")

    harness.start_backends(script)
    for event in listen(harness.connect()):
        heard.put(event)
    assert heard.empty()


@LISTEN
def test_slow_steady_stream_is_not_timed_out(harness: ProxyHarness, listen: Listen) -> None:
    """The response takes about three times -timeout, but never stalls that long."""
    left = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(BEGIN + FRAMINGS["chunks"])
        for event in EVENTS:
            assert not left.wait(0.4)
            connection.send(framed(event, "chunks"))
        connection.send(b"0\r\n\r\n")

    harness.start_backends(script)
    try:
        assert list(listen(harness.connect())) == EVENTS
    finally:
        left.set()
