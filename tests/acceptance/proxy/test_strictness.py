"""Malformed and ambiguous HTTP/1.1 messages: the proxy rejects them and closes the connection."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from support.connection import Connection
from support.proxy_harness import ProxyHarness, proxy_harness
from support.strict_requests import ACCEPTED, HEADS, LIMITS, POST
from support.strict_responses import CHUNKS, OK, RESPONSES
from support.waiting import LIMIT

EXCESS_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
REJECTED = {name: (raw, 400) for name, raw in HEADS.items()} | LIMITS


WHOLE = 1 << 20  # bytes of a write: more than any row has
BYTE_BY_BYTE = {
    *("two spaces", "bare LF after a field", "folded line", "length and chunked", "URL"),
    *("NUL in extension", "data too long", "endless trailer", "chunk extensions"),
    *("long first line", "CR in reason", "101 with a length"),
}
"""Rows that are also sent byte by byte. Unit tests of the parsers do so with every row."""


def rows(table: Mapping[str, bytes | tuple[bytes, object]]) -> list[ParameterSet]:
    """Return the parameters (row, step) of a table's rows."""
    return [
        pytest.param(row, step, id=f"{name}-{'byte by byte' if step == 1 else 'whole'}")
        for name, row in table.items()
        for step in ((WHOLE, 1) if name in BYTE_BY_BYTE else (WHOLE,))
    ]


class RecordingBackend:
    """A backend script that records the requests, and never responds."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    def __call__(self, connection: Connection) -> None:
        if head := connection.read_head():
            self.heads.append(head)
            self.bodies.append(connection.read_to_end())


def send(connection: Connection, data: bytes, step: int) -> None:
    """Send `data` in writes of `step` bytes, until the proxy closes the connection."""
    with suppress(ConnectionError):
        for at in range(0, len(data), step):
            connection.send(data[at : at + step])


@pytest.mark.parametrize(("row", "step"), rows(REJECTED))
def test_malformed_request_is_rejected(
    harness: ProxyHarness, row: tuple[bytes, int], step: int
) -> None:
    raw, status = row
    backend = RecordingBackend()
    harness.start_backends(backend)
    connection = harness.connect()
    send(connection, raw + SMUGGLED, step)
    response, body = connection.read_response()
    assert (response.status, response.getheader("connection")) == (status, "close")
    assert body.endswith(b".\n")
    assert connection.read_to_end() == b""
    harness.clean_up()
    assert backend.heads == []


@pytest.mark.parametrize(("raw", "step"), rows(CHUNKS))
def test_malformed_request_body_is_rejected(harness: ProxyHarness, raw: bytes, step: int) -> None:
    backend = RecordingBackend()
    harness.start_backends(backend)
    connection = harness.connect()
    send(connection, CHUNKED + raw + SMUGGLED, step)
    response, _ = connection.read_response()
    assert response.status == 400 or (response.status == 431 and b"A: b\r\n" * 101 in raw)
    assert response.getheader("connection") == "close"
    assert connection.read_to_end() == b""
    harness.clean_up()
    # The valid head has been forwarded before the body turns out malformed.
    assert len(backend.heads) <= 1
    assert not any(b"smuggled" in body or body.endswith(b"0\r\n\r\n") for body in backend.bodies)


@pytest.mark.parametrize(("row", "step"), rows(ACCEPTED))
def test_unusual_valid_request_is_forwarded(
    harness: ProxyHarness, row: tuple[bytes, bytes], step: int
) -> None:
    raw, expected = row
    heads = []

    def script(connection: Connection) -> None:
        heads.append(connection.read_head())
        if b"\r\nTransfer-Encoding: chunked\r\n" in heads[-1]:
            connection.read_until(b"0\r\n\r\n")
        connection.send(OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok")

    harness.start_backends(script)
    connection = harness.connect()
    send(connection, raw, step)
    response, body = connection.read_response()
    assert (response.status, body) == (200, b"ok")
    assert expected in heads[0]
    connection.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    assert connection.read_response()[1] == b"ok"
    assert heads[1].startswith(b"GET /next HTTP/1.1\r\n")


@pytest.mark.parametrize(("raw", "step"), rows(RESPONSES))
def test_malformed_response_is_rejected(harness: ProxyHarness, raw: bytes, step: int) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        send(connection, raw + EXCESS_RESPONSE, step)
        connection.read_to_end()

    harness.start_backends(script)
    response, body = harness.exchange(POST + b"\r\n")
    assert response.status == 502
    assert b"secret" not in body
    assert body.endswith(b".\n")


@pytest.mark.parametrize(("raw", "step"), rows(CHUNKS))
def test_malformed_response_body_resets_client(
    harness: ProxyHarness, raw: bytes, step: int
) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        send(connection, OK + b"Transfer-Encoding: chunked\r\n\r\n" + raw + EXCESS_RESPONSE, step)
        connection.read_to_end()

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(POST + b"Connection: close\r\n\r\n")
    received = b""
    with suppress(ConnectionResetError):
        while data := connection.sock.recv(65536):
            received += data
        # No reset: the body was malformed before the proxy had started its response.
        assert received.startswith(b"HTTP/1.1 502 ")
    assert b"secret" not in received
    assert b"0\r\n\r\n" not in received


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"HEAD / HTTP/1.1\r\n\r\n", b"400"),
        (b"HEAD /" + b"a" * 9000 + b" HTTP/1.1\r\n", b"414"),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", b"400"),
    ],
)
def test_rejected_head_request_has_no_body(
    harness: ProxyHarness, raw: bytes, status: bytes
) -> None:
    connection = harness.connect()
    connection.send(raw)
    assert connection.read_head().startswith(b"HTTP/1.1 " + status)
    assert connection.read_to_end() == b""


def test_incomplete_head_is_408(harness: ProxyHarness) -> None:
    connection = harness.connect()
    connection.sock.settimeout(2 * LIMIT)
    connection.send(b"GET / HTTP/1.1\r\nHost: ")
    response, body = connection.read_response()
    assert response.status == 408
    assert body == b"The request's head was not complete within 10 s.\n"
    assert connection.read_to_end() == b""


def test_body_over_max_body_is_413(tmp_path: Path) -> None:
    backend = RecordingBackend()
    with proxy_harness(tmp_path, "-max-body", "1k") as harness:
        harness.start_backends(backend)
        for framing in (
            b"Content-Length: 1025\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n200\r\n" + b"a" * 512 + b"\r\n201\r\n",
        ):
            connection = harness.connect()
            connection.send(POST + framing)
            response, body = connection.read_response()
            assert (response.status, response.getheader("connection")) == (413, "close")
            assert body == b"The request is rejected: its body is larger than 1024 bytes.\n"
            assert connection.read_to_end() == b""
        harness.clean_up()
        assert backend.heads == []


def test_forwarded_fields_are_kept_from_trusted_proxy_only(tmp_path: Path) -> None:
    heads = []

    def script(connection: Connection) -> None:
        heads.append(connection.read_head())
        connection.send(OK + b"Content-Length: 0\r\n\r\n")

    request = (
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\nX-Request-Id: 7\r\n"
        b"X-Real-IP: 6.6.6.6\r\nX-Forwarded-Prefix: /admin\r\n\r\n"
    )
    flags = ("-trust", "10.0.0.0/8", "-trust", "127.0.0.1", "-forwarded", "both")
    for number, proxy_flags in enumerate((flags[:2], flags)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with proxy_harness(folder, *proxy_flags) as harness:
            harness.start_backends(script)
            assert harness.exchange(request)[0].status == 200
    assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in heads[0]
    assert b"\r\nX-Request-Id: 7\r\n" not in heads[0]
    assert b"\r\nForwarded: " not in heads[0]
    assert b"6.6.6.6" not in heads[0]
    assert b"/admin" not in heads[0]
    assert b"\r\nX-Forwarded-For: 6.6.6.6, 127.0.0.1\r\n" in heads[1]
    assert b"\r\nX-Request-Id: 7\r\n" in heads[1]
    assert b"\r\nx-real-ip: 6.6.6.6\r\nx-forwarded-prefix: /admin\r\n" in heads[1]
    assert b'\r\nForwarded: for=127.0.0.1;proto=http;host="a"\r\n' in heads[1]


@pytest.mark.parametrize(
    ("flags", "forwarded"), [((), b""), (["-request-trailers"], b"Sum: 1\r\n")]
)
def test_request_trailers_are_dropped_without_flag(
    tmp_path: Path, flags: tuple[str, ...], forwarded: bytes
) -> None:
    bodies = []

    def script(connection: Connection) -> None:
        connection.read_head()
        bodies.append(connection.read_until(b"\r\n\r\n"))
        connection.send(OK + b"Content-Length: 0\r\n\r\n")

    request = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nSum: 1\r\n\r\n"
    with proxy_harness(tmp_path, *flags) as harness:
        harness.start_backends(script)
        assert harness.exchange(request)[0].status == 200
    assert bodies == [b"1\r\na\r\n0\r\n" + forwarded + b"\r\n"]


def test_rows_sent_byte_by_byte_exist() -> None:
    assert REJECTED.keys() | ACCEPTED.keys() | CHUNKS.keys() | RESPONSES.keys() >= BYTE_BY_BYTE
