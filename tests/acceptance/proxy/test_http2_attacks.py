"""HTTP/2 attacks: the attacker's connection is closed, and no other client is affected."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from support.backend_scripts import never_respond
from support.backends import OK, respond_ok
from support.connection import Connection
from support.proxy_harness import ProxyHarness, harness_for
from support.raw_http2 import GET, POST, ConnectionClosed, RawHttp2, StreamReset
from support.relays import Relays
from support.waiting import LIMIT, wait_until

LARGE = 2_000_000
FLAGS = ("-timeout", "2s")  # of the proxy


def respond_large(connection: Connection) -> None:
    while connection.read_head():
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + b"a" * LARGE)


def send_all(client: RawHttp2, data: bytes) -> None:
    """Send until the proxy closes the connection."""
    with suppress(ConnectionError):
        client.connection.send(data)


FLOODS: dict[str, list[Frame]] = {
    "settings": [SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 100})],
    "ping": [PingFrame(0, b"12345678")],
    "priority": [PriorityFrame(3, depends_on=1)],
    "unknown": [ExtensionFrame(0xBE, 0)],
    "window updates": [WindowUpdateFrame(0, window_increment=1)],
}


@pytest.mark.parametrize("frames", FLOODS.values(), ids=FLOODS)
def test_frame_floods_close_connection(harness: ProxyHarness, frames: list[Frame]) -> None:
    harness.start_backends(respond_ok)
    client = RawHttp2(harness.connect())
    send_all(client, b"".join(frame.serialize() for frame in frames) * 20_000)
    assert client.read_until_goaway() == ErrorCodes.ENHANCE_YOUR_CALM
    assert harness.get()[1] == b"ok"


def test_flood_of_empty_data_frames(harness: ProxyHarness) -> None:
    harness.start_backends(never_respond)
    client = RawHttp2(harness.connect())
    client.send(client.headers(1, POST))
    send_all(client, DataFrame(1, b"").serialize() * 20_000)
    assert client.read_until_goaway() == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.alone
def test_flood_of_continuation_frames(harness: ProxyHarness) -> None:
    client = RawHttp2(harness.connect())
    client.send(HeadersFrame(1, b"\x00"))
    before = harness.memory
    send_all(client, ContinuationFrame(1, b"a" * 16_000).serialize() * 2_000)
    assert client.read_until_goaway() == ErrorCodes.ENHANCE_YOUR_CALM
    assert harness.memory - before < 10_000_000
    client = RawHttp2(harness.connect())
    client.send(HeadersFrame(1, b"\x00"))
    send_all(client, ContinuationFrame(1, b"").serialize() * 20_000)
    assert client.read_until_goaway() in (ErrorCodes.PROTOCOL_ERROR, ErrorCodes.ENHANCE_YOUR_CALM)


@pytest.mark.parametrize("in_one_write", [True, False])
def test_rapid_reset(harness: ProxyHarness, in_one_write: bool) -> None:
    """CVE-2023-44487: the client resets each request immediately."""
    (backend,) = harness.start_backends(never_respond)
    client = RawHttp2(harness.connect())
    frames = [
        client.headers(stream, GET, "END_STREAM").serialize()
        + RstStreamFrame(stream, error_code=ErrorCodes.CANCEL).serialize()
        for stream in range(1, 4001, 2)
    ]
    for data in [b"".join(frames)] if in_one_write else frames:
        send_all(client, data)
    assert client.read_until_goaway() == ErrorCodes.ENHANCE_YOUR_CALM
    assert backend.connections < 400
    harness.start_backends(respond_ok)
    assert harness.get()[1] == b"ok"


@pytest.mark.parametrize(
    "make_invalid_frame",
    [
        lambda stream: WindowUpdateFrame(stream, window_increment=2**31 - 1),
        lambda stream: DataFrame(stream, b"a"),
    ],
    ids=["window", "data"],
)
def test_made_you_reset(harness: ProxyHarness, make_invalid_frame: Callable[[int], Frame]) -> None:
    """CVE-2025-8671: the client makes the proxy reset each request."""
    (backend,) = harness.start_backends(never_respond)
    client = RawHttp2(harness.connect())
    for stream in range(1, 2001, 2):
        data = client.headers(stream, GET, "END_STREAM").serialize()
        send_all(client, data + make_invalid_frame(stream).serialize())
    assert client.read_until_goaway() in (ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.STREAM_CLOSED)
    assert backend.connections < 400


@pytest.mark.parametrize("at_once", [True, False], ids=["one write", "many writes"])
def test_streams_over_the_limit_are_refused_alone(harness: ProxyHarness, at_once: bool) -> None:
    """The running requests continue, and the table of compressed fields stays correct."""
    release = threading.Event()

    def respond_after_release(connection: Connection) -> None:
        while connection.read_head():
            release.wait(LIMIT)
            connection.send(OK)

    (backend,) = harness.start_backends(respond_after_release)
    client = RawHttp2(harness.connect())
    fields = {stream: [*GET, (b"x-number", b"%d" % stream)] for stream in range(1, 301, 2)}
    frames = [client.headers(stream, each, "END_STREAM") for stream, each in fields.items()]
    if at_once:
        client.send(*frames)
    else:
        for frame in frames:
            client.send(frame)
    refused = [client.read_until(RstStreamFrame) for _ in range(50)]
    assert {frame.stream_id for frame in refused} == set(range(201, 301, 2))
    assert {frame.error_code for frame in refused} == {ErrorCodes.REFUSED_STREAM}  # type: ignore[attr-defined]
    release.set()
    responses = client.read_responses(*range(1, 201, 2))
    assert {fields[b":status"] for fields, _ in responses.values()} == {b"200"}
    client.get(301, [*GET, (b"x-number", b"299")])  # the encoder names the refused field
    assert client.read_response(301)[0][b":status"] == b"200"
    assert backend.connections <= 100


def test_flood_of_refused_streams_closes_the_connection(harness: ProxyHarness) -> None:
    harness.start_backends(never_respond)
    client = RawHttp2(harness.connect())
    frames = [client.headers(stream, GET, "END_STREAM") for stream in range(1, 2001, 2)]
    send_all(client, b"".join(frame.serialize() for frame in frames))
    assert client.read_until_goaway() == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.alone
@pytest.mark.parametrize(("window", "max_growth"), [(0, 5_000_000), (1, 9_000_000)])
def test_closed_windows_time_out(harness: ProxyHarness, window: int, max_growth: int) -> None:
    """Responses that the client does not read are bounded, in bytes and in time."""
    harness.start_backends(respond_large)
    client = RawHttp2(harness.connect(), INITIAL_WINDOW_SIZE=window)
    client.send(WindowUpdateFrame(0, window_increment=LARGE))
    memory = [harness.memory]
    for stream in range(1, 201, 2):
        client.get(stream)
    resets: list[int] = []
    statuses = set()
    while len(resets) < 100:
        frame = client.read_frame()
        memory.append(harness.memory)
        if isinstance(frame, HeadersFrame):
            statuses.add(frame.fields[b":status"])  # type: ignore[attr-defined]
        elif isinstance(frame, DataFrame):
            assert len(frame.data) <= window
        elif isinstance(frame, RstStreamFrame):
            resets.append(frame.error_code)
    assert max(memory) - memory[0] < max_growth
    assert statuses <= {b"200", b"408"}  # not 504: the backends did not fail
    assert set(resets) <= {ErrorCodes.INTERNAL_ERROR, ErrorCodes.CANCEL}


def test_blocked_streams_do_not_block_others(harness: ProxyHarness) -> None:
    """The blocked responses are complete once the client opens its windows."""

    def script(connection: Connection) -> None:
        while head := connection.read_head():
            body = b"a" * (2 if head.startswith(b"GET /small ") else LARGE)
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            connection.send(body)

    harness.start_backends(script)
    client = RawHttp2(harness.connect(), INITIAL_WINDOW_SIZE=0)
    received_bytes = dict.fromkeys(range(1, 41, 2), 0)
    for stream in received_bytes:
        client.get(stream)
    small_stream = 41
    client.get(small_stream, [*GET[:3], (b":path", b"/small")])
    client.read_until(HeadersFrame)  # the first responses have been received and are blocked
    client.send(WindowUpdateFrame(small_stream, window_increment=2))
    assert client.read_response(small_stream)[1] == b"aa"
    client.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: LARGE}))
    client.send(WindowUpdateFrame(0, window_increment=len(received_bytes) * LARGE))
    while min(received_bytes.values()) < LARGE:
        if isinstance(frame := client.read_frame(), DataFrame):
            received_bytes[frame.stream_id] += len(frame.data)
    assert set(received_bytes.values()) == {LARGE}


def test_one_byte_windows_are_limited(harness: ProxyHarness) -> None:
    harness.start_backends(respond_large)
    client = RawHttp2(harness.connect(), INITIAL_WINDOW_SIZE=1)
    client.get(1)
    updates = 0
    try:
        while updates < 20_000:
            if isinstance(frame := client.read_frame(), DataFrame):
                assert len(frame.data) == 1
                client.send(WindowUpdateFrame(1, window_increment=1))
                updates += 1
            elif isinstance(frame, GoAwayFrame):
                assert frame.error_code == ErrorCodes.ENHANCE_YOUR_CALM
                break
    except ConnectionError:
        pass
    assert 900 < updates < 19_000


def test_response_is_complete_after_window_opens_late(harness: ProxyHarness) -> None:
    harness.start_backends(respond_large)
    client = RawHttp2(harness.connect(), INITIAL_WINDOW_SIZE=0)
    client.get(1)
    client.read_until(HeadersFrame)
    client.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 10 * LARGE}))
    client.send(WindowUpdateFrame(0, window_increment=10 * LARGE))
    assert len(client.read_response(1)[1]) == LARGE


@pytest.mark.alone
def test_flow_control_credit_follows_backend(harness: ProxyHarness) -> None:
    may_read = threading.Event()
    chunk_counts = []

    def script(connection: Connection) -> None:
        connection.read_head()
        assert may_read.wait(LIMIT)
        count = 0
        while connection.read_until(b"\r\n") != b"0\r\n":
            count += 1
        chunk_counts.append(count)
        connection.read_until(b"\r\n")
        connection.send(OK)

    harness.start_backends(script)
    client = RawHttp2(harness.connect())
    before = harness.memory
    client.send(client.headers(1, POST))
    windows = {0: 65_535, 1: 65_535}
    piece = b"a" * 15_000 + b"\r\n"
    sent = 0
    client.connection.sock.settimeout(0.5)
    try:
        while sent < 100_000_000:
            while min(windows.values()) < len(piece):
                if isinstance(frame := client.read_frame(), WindowUpdateFrame):
                    windows[frame.stream_id] += frame.window_increment
            client.send(DataFrame(1, piece))
            sent += len(piece)
            for stream in windows:
                windows[stream] -= len(piece)
    except TimeoutError:
        pass
    assert sent < 20_000_000  # about the size of the kernel's buffers
    assert harness.memory - before < 5_000_000
    client.connection.sock.settimeout(LIMIT)
    may_read.set()
    client.send(DataFrame(1, b"", flags=["END_STREAM"]))
    assert client.read_response(1)[1] == b"ok"
    assert chunk_counts


def test_silent_backend_is_504_and_silent_client_is_408(harness: ProxyHarness) -> None:
    harness.start_backends(never_respond)
    client = RawHttp2(harness.connect())
    client.get(1)
    assert client.read_response(1)[0][b":status"] == b"504"
    client.send(client.headers(3, POST))
    assert client.read_response(3)[0][b":status"] == b"408"


def test_rejected_request_that_client_has_reset_gets_no_response(harness: ProxyHarness) -> None:
    """The request and its reset arrive in one read. The connection stays usable."""
    client = RawHttp2(harness.connect())
    malformed = [*GET, (b"connection", b"close")]
    rejected = client.headers(1, malformed, "END_STREAM")
    reset = RstStreamFrame(1, error_code=ErrorCodes.CANCEL)
    client.send(rejected, reset, client.headers(3, malformed, "END_STREAM"))
    assert client.read_response(3)[0][b":status"] == b"400"


def test_client_disconnect_cancels_streams(harness: ProxyHarness) -> None:
    backend_cancelled = threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.read_to_end()
        backend_cancelled.set()

    (backend,) = harness.start_backends(script)
    client = RawHttp2(harness.connect())
    client.get(1)
    wait_until(lambda: backend.connections == 1)
    client.connection.reset()
    assert backend_cancelled.wait(LIMIT)


def test_stream_reset_cancels_backend_request(harness: ProxyHarness) -> None:
    backend_cancelled = threading.Event()

    def script(connection: Connection) -> None:
        if b"/slow" not in connection.read_head():
            connection.send(OK)
            return
        connection.read_to_end()
        backend_cancelled.set()

    (backend,) = harness.start_backends(script)
    client = RawHttp2(harness.connect())
    client.get(1, [*GET[:3], (b":path", b"/slow")])
    wait_until(lambda: backend.connections == 1)
    client.send(RstStreamFrame(1, error_code=ErrorCodes.CANCEL))
    assert backend_cancelled.wait(LIMIT)
    client.get(3)
    assert client.read_response(3)[1] == b"ok"


def test_goaway_on_drain(relays: Relays) -> None:
    request_received, may_respond = threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        request_received.set()
        assert may_respond.wait(LIMIT)
        connection.send(OK)

    with harness_for(relays.start(), "web") as harness:
        harness.start_backends(script)
        client, idle = RawHttp2(harness.connect()), RawHttp2(harness.connect())
        client.get(1)
        assert request_received.wait(LIMIT)
        harness.process.terminate()
        assert idle.read_until_goaway() == ErrorCodes.NO_ERROR
        goaway = client.read_until(GoAwayFrame)
        assert isinstance(goaway, GoAwayFrame)
        assert (goaway.last_stream_id, goaway.error_code) == (1, ErrorCodes.NO_ERROR)
        client.get(3)
        with pytest.raises(StreamReset, match="7"):  # REFUSED_STREAM: safe to retry
            client.read_response(3)
        may_respond.set()
        assert client.read_response(1)[1] == b"ok"
        assert client.read_until_goaway() == ErrorCodes.NO_ERROR
        harness.process.wait(LIMIT)


def test_connection_error_cancels_streams(harness: ProxyHarness) -> None:
    harness.start_backends(never_respond)
    client = RawHttp2(harness.connect())
    client.get(1)
    client.connection.send(b"\x00\x00\x01" + bytes(6) + b"a")  # DATA on stream 0
    with pytest.raises(ConnectionClosed, match="1"):  # PROTOCOL_ERROR
        client.read_response(1)
