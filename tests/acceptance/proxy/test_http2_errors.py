"""HTTP/2 errors: early responses, resets, oversized heads, and their log entries."""

from __future__ import annotations

import json
import os
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
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

from support.admin_pages import metric_value
from support.backends import respond_with
from support.certificates import write_certificate
from support.connection import Connection, connect_tls
from support.deployment import Deployment, Proxy, new_deployment
from support.ports import free_port
from support.proxy_process import tls_port, worker_pids
from support.raw_http2 import GET, POST, ConnectionClosed, Fields, RawHttp2, StreamReset
from support.waiting import LIMIT, wait_until

PROTOCOL_ERRORS = 'arke_proxy_failures_total{reason="http2_protocol_error"}'
PIECE = bytes(16_000)


class Place:
    """A proxy with one backend, with and without TLS, and its access log."""

    def __init__(self, proxy: Proxy, admin: int, folder: Path) -> None:
        self.proxy = proxy
        self._admin = admin
        self._log = folder / "access.log"
        self._context = ssl.create_default_context(cafile=folder / "a.pem")
        self._context.set_alpn_protocols(["h2"])
        self._made: list[Connection] = []

    def client(self, **settings: int) -> RawHttp2:
        return RawHttp2(self._kept(self.proxy.connect()), **settings)

    def client_by_tls(self, **settings: int) -> RawHttp2:
        connection = connect_tls(tls_port(self.proxy.process), self._context, "a.example")
        return RawHttp2(self._kept(connection), **settings)

    def _kept(self, connection: Connection) -> Connection:
        self._made.append(connection)
        return connection

    def logged(self, count: int) -> list[dict[str, Any]]:
        wait_until(lambda: len(self._log.read_bytes().splitlines()) >= count)
        return [json.loads(line) for line in self._log.read_bytes().splitlines()]

    def counted(self, metric: str) -> float:
        return metric_value(self._admin, metric)

    def end(self) -> None:
        for connection in self._made:
            connection.close()


Make = Callable[[Callable[[Connection], None]], Place]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    places: list[Place] = []
    with new_deployment() as deployment:

        def made(script: Callable[[Connection], None]) -> Place:
            places.append(_place(deployment, script, tmp_path))
            return places[-1]

        yield made
        for place in places:
            place.end()


def _place(deployment: Deployment, script: Callable[[Connection], None], folder: Path) -> Place:
    admin = free_port()
    words = ["-choose", "static", "-backend", deployment.backend(script).address]
    words += ["-cert", write_certificate(folder, "a.example", file="a")]
    words += ["-tls-listen", "127.0.0.1:0", "-admin", f"127.0.0.1:{admin}"]
    words += ["-access-log", str(folder / "access.log"), "-access-format", "json"]
    return Place(deployment.proxy(*words, "-max-body", "1m"), admin, folder)


def silent(connection: Connection) -> None:
    connection.read_head()
    connection.read_to_end()


def upload(client: RawHttp2, stream: int) -> int:
    """Send as much of a body as there is credit for, until the proxy resets; return the octets.

    Raises Reset.
    """
    windows = {0: 512 * 1024, stream: 65_535}
    sent = 0
    while True:
        while min(windows.values()) >= len(PIECE):
            client.send(DataFrame(stream, PIECE))
            sent += len(PIECE)
            for each in windows:
                windows[each] -= len(PIECE)
        frame = client.read_frame()
        if isinstance(frame, WindowUpdateFrame) and frame.stream_id in windows:
            windows[frame.stream_id] += frame.window_increment
        elif isinstance(frame, RstStreamFrame):
            assert frame.error_code == 0
            return sent


def test_body_after_response_is_discarded_within_limits(make: Make) -> None:
    client = make(respond_with("one")).client()
    client.send(client.headers(1, [*POST, (b"content-length", b"90000000")]))
    assert client.read_response(1)[0][b":status"] == b"413"
    assert 1_000_000 < upload(client, 1) < 1_300_000
    for stream in (3, 5):  # their credit is not used up
        client.send(client.headers(stream, POST))
        client.send(*[DataFrame(stream, PIECE)] * 3, DataFrame(stream, b"", flags=["END_STREAM"]))
        assert client.read_response(stream)[1] == b"one"


def test_oversized_body_is_logged_with_request(make: Make) -> None:
    """With and without Content-Length; the error has the form that the client accepts."""
    place = make(silent)
    client = place.client()
    fields = [(b":method", b"PUT"), *GET[1:], (b"accept", b"application/json")]
    client.send(client.headers(1, [*fields, (b"content-length", b"2000000")]))
    assert json.loads(client.read_response(1)[1])["status"] == 413
    client.send(client.headers(3, fields))
    upload(client, 3)
    for line in place.logged(2):
        assert (line["method"], line["target"], line["status"]) == ("PUT", "/", 413)
        assert line["detail"] == "The request is rejected: its body is larger than 1048576 bytes."


def test_short_body_after_response_is_accepted(make: Make) -> None:
    """The rest of the body is not forwarded. The response waits for its window."""
    client = make(respond_with("one")).client(INITIAL_WINDOW_SIZE=0)
    client.send(client.headers(1, [*POST, (b"content-length", b"90000000")]))
    client.read_until(HeadersFrame)
    client.send(DataFrame(1, b"four", flags=["END_STREAM"]))
    client.send(WindowUpdateFrame(1, window_increment=1000))
    assert client.read_response(1)[1].endswith(b".\n")


@pytest.mark.parametrize("by_tls", [False, True])
def test_connection_error_is_counted_and_logged(make: Make, by_tls: bool) -> None:
    """Its requests have the same outcome, not client_disconnected."""
    asked = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        asked.set()
        connection.read_to_end()

    place = make(script)
    client = place.client_by_tls() if by_tls else place.client()
    client.get(1)
    assert asked.wait(LIMIT)
    with suppress(OSError):
        client.connection.send(PingFrame(0, b"12345678").serialize() * 20_000)
    assert client.read_until_goaway() == 11
    connection, request = place.logged(2)
    detail = "The connection is closed: too many frames that serve no request."
    for line in (connection, request):
        assert (line["status"], line["outcome"], line["detail"]) == (
            0,
            "http2_protocol_error",
            detail,
        )
        assert (line["client"], line["version"]) == ("127.0.0.1", "HTTP/2.0")
    assert (connection["method"], request["method"]) == ("-", "GET")
    assert place.counted(PROTOCOL_ERRORS) == 2


def test_stream_error_and_client_reset_have_different_outcomes(make: Make) -> None:
    asked = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        asked.set()
        connection.read_to_end()

    place = make(script)
    client = place.client()
    client.get(1)
    assert asked.wait(LIMIT)
    client.send(WindowUpdateFrame(1, window_increment=2**31 - 1))  # overflows the window
    client.read_until(RstStreamFrame)
    asked.clear()
    client.get(3)
    assert asked.wait(LIMIT)
    client.send(RstStreamFrame(3, error_code=8))
    broken, left = place.logged(2)
    assert (broken["outcome"], left["outcome"]) == ("http2_protocol_error", "client_disconnected")
    assert broken["detail"].endswith("FLOW_CONTROL_ERROR.")


VALUE = NeverIndexedHeaderTuple(b"x", b"a" * 7000)  # never compressed
LONG: Fields = [VALUE] * 10
BOMB: Fields = [VALUE] * 40


def in_frames(client: RawHttp2, stream: int, fields: Fields, *flags: str) -> list[Frame]:
    """Split a header list into frames."""
    whole = client.headers(stream, fields).data
    first, *more = [whole[at : at + 16_000] for at in range(0, len(whole), 16_000)]
    frames = [HeadersFrame(stream, first, flags=flags)]
    frames += [ContinuationFrame(stream, piece) for piece in more]
    frames[-1].flags.add("END_HEADERS")
    return frames


def indexed(client: RawHttp2, stream: int, fields: Fields, times: int) -> Frame:
    """Repeat the last field, which is in the compression table, as one byte each."""
    frame = client.headers(stream, fields, "END_STREAM")
    frame.data += b"\xbe" * times
    return frame


def test_oversized_head_gets_431_and_connection_stays(make: Make) -> None:
    def script(connection: Connection) -> None:
        while head := connection.read_head():
            if b"chunked" in head:
                connection.read_until(b"0\r\n\r\n")
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")

    place = make(script)
    client = place.client()
    client.send(client.headers(1, POST))
    client.send(*in_frames(client, 3, [*GET, *LONG], "END_STREAM"))
    assert client.read_response(3)[0][b":status"] == b"431"
    client.send(indexed(client, 5, [*GET, (b"y", b"b" * 3000)], 30))
    assert client.read_response(5)[0][b":status"] == b"431"
    client.send(DataFrame(1, b"", flags=["END_STREAM"]))
    assert client.read_response(1)[1] == b"one"
    client.send(indexed(client, 7, [*GET, (b"y", b"b" * 3000)], 0))  # the table is intact
    assert client.read_response(7)[1] == b"one"
    sentence = "The request is rejected: its fields are larger than 65536 bytes."
    assert [line.get("detail") for line in place.logged(4)] == [sentence] * 2 + [None] * 2


def test_oversized_trailer_resets_one_stream(make: Make) -> None:
    place = make(silent)
    client = place.client()
    client.send(client.headers(1, POST))
    client.send(*in_frames(client, 1, LONG, "END_STREAM"))
    with pytest.raises(StreamReset, match="1"):
        client.read_response(1)
    client.send(PingFrame(0, b"12345678"))
    assert isinstance(client.read_until((PingFrame, GoAwayFrame)), PingFrame)
    (line,) = place.logged(1)
    assert line["outcome"] == "malformed_body"
    assert line["detail"] == "The request is rejected: its fields are larger than 65536 bytes."


@pytest.mark.parametrize("expanded", [False, True])
def test_compression_bomb_closes_connection(make: Make, expanded: bool) -> None:
    client = make(respond_with("one")).client()
    if expanded:
        client.send(indexed(client, 1, [*GET, (b"y", b"b" * 3000)], 90))
    else:
        with suppress(OSError):
            client.send(*in_frames(client, 1, [*GET, *BOMB], "END_STREAM"))
    assert client.read_until_goaway() == 11


def test_repeated_oversized_heads_close_connection(make: Make) -> None:
    """Decoding them is expensive: each has thousands of fields."""
    client = make(respond_with("one")).client()
    stream = 1
    with suppress(ConnectionError, ConnectionClosed):
        while stream < 1000:
            client.send(indexed(client, stream, [*GET, (b"y", b"")], 5000))
            assert client.read_response(stream)[0][b":status"] == b"431"
            stream += 2
    assert 10 < stream < 200


@pytest.mark.parametrize("goodbye", [False, True])
def test_nothing_is_written_to_disconnected_client(make: Make, goodbye: bool) -> None:
    """The event loop would log a warning for each write."""
    asked, said = threading.Semaphore(0), threading.Semaphore(0)
    go = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        asked.release()
        assert go.wait(LIMIT)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        said.release()

    place = make(script)
    (worker,) = worker_pids(place.proxy.process)
    client = place.client_by_tls()
    streams = range(1, 101, 2)
    for stream in streams:
        client.get(stream)
    for _ in streams:
        assert asked.acquire(timeout=LIMIT)
    os.kill(worker, signal.SIGSTOP)  # it will see all events in one loop iteration
    try:
        sock = client.connection.sock
        assert isinstance(sock, ssl.SSLSocket)
        if goodbye:
            sock.setblocking(False)
            with suppress(ssl.SSLError):  # the proxy's close_notify is missing
                sock.unwrap()
        client.connection.close()
        go.set()
        for _ in streams:
            assert said.acquire(timeout=LIMIT)
    finally:
        os.kill(worker, signal.SIGCONT)
    outcomes = {line.get("outcome") for line in place.logged(len(streams))}
    assert "SSL connection is closed" not in place.proxy.process.log
    assert outcomes == {"client_disconnected"} or not goodbye
