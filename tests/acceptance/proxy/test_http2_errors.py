"""HTTP/2 errors: early responses, resets, oversized heads, and their log entries."""

from __future__ import annotations

import json
import os
import signal
import ssl
import threading
from contextlib import suppress

import pytest
from h2.errors import ErrorCodes
from hpack import NeverIndexedHeaderTuple
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from support.backend_scripts import never_respond
from support.backends import respond_with
from support.connection import Connection
from support.observed_proxy import StartProxy
from support.proxy_process import worker_pids
from support.raw_http2 import GET, POST, ConnectionClosed, Fields, RawHttp2, StreamReset
from support.waiting import LIMIT

PROTOCOL_ERRORS = 'arke_proxy_failures_total{reason="http2_protocol_error"}'
MAX_BODY = ("-max-body", "1m")
PIECE = bytes(16_000)


def upload(client: RawHttp2, stream: int) -> int:
    """Send a body within the flow-control windows until the proxy resets the stream.

    Return the number of bytes sent. The reset must have the code NO_ERROR.
    """
    windows = {0: 512 * 1024, stream: 65_535}
    sent = 0
    while True:
        while min(windows.values()) >= len(PIECE):
            client.send(DataFrame(stream, PIECE))
            sent += len(PIECE)
            for window in windows:
                windows[window] -= len(PIECE)
        frame = client.read_frame()
        if isinstance(frame, WindowUpdateFrame) and frame.stream_id in windows:
            windows[frame.stream_id] += frame.window_increment
        elif isinstance(frame, RstStreamFrame):
            assert frame.error_code == ErrorCodes.NO_ERROR
            return sent


def test_body_after_response_is_discarded_within_limits(start: StartProxy) -> None:
    client = RawHttp2(start(respond_with("one"), *MAX_BODY).connect())
    client.send(client.headers(1, [*POST, (b"content-length", b"90000000")]))
    assert client.read_response(1)[0][b":status"] == b"413"
    assert 1_000_000 < upload(client, 1) < 1_300_000
    for stream in (3, 5):  # discarded data uses up no credit of the connection
        client.send(client.headers(stream, POST))
        client.send(*[DataFrame(stream, PIECE)] * 3, DataFrame(stream, b"", flags=["END_STREAM"]))
        assert client.read_response(stream)[1] == b"one"


def test_oversized_body_is_logged_with_request(start: StartProxy) -> None:
    """The body has a Content-Length, or it is too large when it arrives. The error is JSON."""
    proxy = start(never_respond, *MAX_BODY)
    client = RawHttp2(proxy.connect())
    fields = [(b":method", b"PUT"), *GET[1:], (b"accept", b"application/json")]
    client.send(client.headers(1, [*fields, (b"content-length", b"2000000")]))
    assert json.loads(client.read_response(1)[1])["status"] == 413
    client.send(client.headers(3, fields))
    upload(client, 3)
    for line in proxy.log_entries(2):
        assert (line["method"], line["target"], line["status"]) == ("PUT", "/", 413)
        assert line["detail"] == "The request is rejected: its body is larger than 1048576 bytes."


def test_short_body_after_response_is_accepted(start: StartProxy) -> None:
    """The body ends before its Content-Length, but the response is complete by then.

    The response waits for the client's window.
    """
    client = RawHttp2(start(respond_with("one"), *MAX_BODY).connect(), INITIAL_WINDOW_SIZE=0)
    client.send(client.headers(1, [*POST, (b"content-length", b"90000000")]))
    client.read_until(HeadersFrame)
    client.send(DataFrame(1, b"four", flags=["END_STREAM"]))
    client.send(WindowUpdateFrame(1, window_increment=1000))
    assert client.read_response(1)[1].endswith(b".\n")


@pytest.mark.parametrize("use_tls", [False, True])
def test_connection_error_is_counted_and_logged(start: StartProxy, use_tls: bool) -> None:
    """The outcome of its requests is http2_protocol_error too, not client_disconnected."""
    request_received = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        request_received.set()
        connection.read_to_end()

    proxy = start(script)
    client = RawHttp2(proxy.connect_tls("h2") if use_tls else proxy.connect())
    client.get(1)
    assert request_received.wait(LIMIT)
    with suppress(OSError):
        client.connection.send(PingFrame(0, b"12345678").serialize() * 20_000)
    assert client.read_until_goaway() == ErrorCodes.ENHANCE_YOUR_CALM
    connection, request = proxy.log_entries(2)
    detail = "The connection is closed: too many frames that serve no request."
    for line in (connection, request):
        assert (line["status"], line["outcome"], line["detail"]) == (
            0,
            "http2_protocol_error",
            detail,
        )
        assert (line["client"], line["version"]) == ("127.0.0.1", "HTTP/2.0")
    assert (connection["method"], request["method"]) == ("-", "GET")
    assert proxy.metric(PROTOCOL_ERRORS) == 2


def test_stream_error_and_client_reset_have_different_outcomes(start: StartProxy) -> None:
    request_received = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        request_received.set()
        connection.read_to_end()

    proxy = start(script)
    client = RawHttp2(proxy.connect())
    client.get(1)
    assert request_received.wait(LIMIT)
    client.send(WindowUpdateFrame(1, window_increment=2**31 - 1))  # overflows the window
    client.read_until(RstStreamFrame)
    request_received.clear()
    client.get(3)
    assert request_received.wait(LIMIT)
    client.send(RstStreamFrame(3, error_code=ErrorCodes.CANCEL))
    stream_error, client_reset = proxy.log_entries(2)
    assert (stream_error["outcome"], client_reset["outcome"]) == (
        "http2_protocol_error",
        "client_disconnected",
    )
    assert stream_error["detail"].endswith("FLOW_CONTROL_ERROR.")


FIELD = NeverIndexedHeaderTuple(b"x", b"a" * 7000)  # encoded in full, without the compression table
OVERSIZED: Fields = [FIELD] * 10
BOMB: Fields = [FIELD] * 40


def split_into_frames(client: RawHttp2, stream: int, fields: Fields, *flags: str) -> list[Frame]:
    """Encode fields as one HEADERS frame and CONTINUATION frames of at most 16 kB."""
    whole = client.headers(stream, fields).data
    first, *rest = [whole[at : at + 16_000] for at in range(0, len(whole), 16_000)]
    frames = [HeadersFrame(stream, first, flags=flags)]
    frames += [ContinuationFrame(stream, piece) for piece in rest]
    frames[-1].flags.add("END_HEADERS")
    return frames


def repeat_last_field(client: RawHttp2, stream: int, fields: Fields, times: int) -> Frame:
    """Encode fields and `times` repetitions of the last one, each as a one-byte table index."""
    frame = client.headers(stream, fields, "END_STREAM")
    frame.data += b"\xbe" * times
    return frame


def test_oversized_head_gets_431_and_connection_stays_open(start: StartProxy) -> None:
    def script(connection: Connection) -> None:
        while head := connection.read_head():
            if b"chunked" in head:
                connection.read_until(b"0\r\n\r\n")
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")

    proxy = start(script)
    client = RawHttp2(proxy.connect())
    client.send(client.headers(1, POST))
    client.send(*split_into_frames(client, 3, [*GET, *OVERSIZED], "END_STREAM"))
    assert client.read_response(3)[0][b":status"] == b"431"
    client.send(repeat_last_field(client, 5, [*GET, (b"y", b"b" * 3000)], 30))
    assert client.read_response(5)[0][b":status"] == b"431"
    client.send(DataFrame(1, b"", flags=["END_STREAM"]))
    assert client.read_response(1)[1] == b"one"
    client.send(repeat_last_field(client, 7, [*GET, (b"y", b"b" * 3000)], 0))  # the table is intact
    assert client.read_response(7)[1] == b"one"
    message = "The request is rejected: its fields are larger than 65536 bytes."
    assert [line.get("detail") for line in proxy.log_entries(4)] == [message] * 2 + [None] * 2


def test_oversized_trailer_resets_one_stream(start: StartProxy) -> None:
    proxy = start(never_respond)
    client = RawHttp2(proxy.connect())
    client.send(client.headers(1, POST))
    client.send(*split_into_frames(client, 1, OVERSIZED, "END_STREAM"))
    with pytest.raises(StreamReset, match="1"):  # PROTOCOL_ERROR
        client.read_response(1)
    client.send(PingFrame(0, b"12345678"))
    assert isinstance(client.read_until((PingFrame, GoAwayFrame)), PingFrame)
    (line,) = proxy.log_entries(1)
    assert line["outcome"] == "malformed_body"
    assert line["detail"] == "The request is rejected: its fields are larger than 65536 bytes."


@pytest.mark.parametrize("by_index", [False, True])
def test_compression_bomb_closes_connection(start: StartProxy, by_index: bool) -> None:
    client = RawHttp2(start(respond_with("one")).connect())
    if by_index:
        client.send(repeat_last_field(client, 1, [*GET, (b"y", b"b" * 3000)], 90))
    else:
        with suppress(OSError):
            client.send(*split_into_frames(client, 1, [*GET, *BOMB], "END_STREAM"))
    assert client.read_until_goaway() == ErrorCodes.ENHANCE_YOUR_CALM


def test_repeated_oversized_heads_close_connection(start: StartProxy) -> None:
    """Decoding such a head is expensive: it has thousands of fields."""
    client = RawHttp2(start(respond_with("one")).connect())
    stream = 1
    with suppress(ConnectionError, ConnectionClosed):
        while stream < 1000:
            client.send(repeat_last_field(client, stream, [*GET, (b"y", b"")], 5000))
            assert client.read_response(stream)[0][b":status"] == b"431"
            stream += 2
    assert 10 < stream < 200


@pytest.mark.parametrize("close_notify", [False, True])
def test_nothing_is_written_to_disconnected_client(start: StartProxy, close_notify: bool) -> None:
    """asyncio logs a warning for each write to a closed connection."""
    requests_received, responses_sent = threading.Semaphore(0), threading.Semaphore(0)
    may_respond = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        requests_received.release()
        assert may_respond.wait(LIMIT)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        responses_sent.release()

    proxy = start(script)
    (worker,) = worker_pids(proxy.process)
    client = RawHttp2(proxy.connect_tls("h2"))
    streams = range(1, 101, 2)
    for stream in streams:
        client.get(stream)
    for _ in streams:
        assert requests_received.acquire(timeout=LIMIT)
    os.kill(worker, signal.SIGSTOP)  # so that it processes all events in one loop iteration
    try:
        sock = client.connection.sock
        assert isinstance(sock, ssl.SSLSocket)
        if close_notify:
            sock.setblocking(False)
            with suppress(ssl.SSLError):  # the proxy's close_notify is missing
                sock.unwrap()
        client.connection.close()
        may_respond.set()
        for _ in streams:
            assert responses_sent.acquire(timeout=LIMIT)
    finally:
        os.kill(worker, signal.SIGCONT)
    outcomes = {line.get("outcome") for line in proxy.log_entries(len(streams))}
    assert "SSL connection is closed" not in proxy.process.log
    assert outcomes == {"client_disconnected"} or not close_notify
