"""HTTP/1.1 through the proxy: what clients and backends receive."""

from __future__ import annotations

import re
import threading
import time
from email.utils import parsedate_to_datetime

import pytest

from support.backends import GET, OK, respond_always
from support.connection import Connection
from support.proxy_harness import ProxyHarness


def test_requests_are_spread_over_backends(harness: ProxyHarness) -> None:
    harness.start_backends(
        respond_always(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"),
        respond_always(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"),
    )
    requests_before = harness.cluster.requests
    bodies = [harness.get()[1] for _ in range(10)]
    assert set(bodies) == {b"one", b"two"}
    assert harness.cluster.requests >= requests_before + 10


def test_forwarded_request_fields(harness: ProxyHarness) -> None:
    heads = []

    def script(connection: Connection) -> None:
        heads.append(connection.read_head())
        connection.send(OK)

    harness.start_backends(script)
    harness.exchange(
        b"GET /a%20b?c HTTP/1.1\r\nHost: example:8080\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
        b"X-Forwarded-For: 6.6.6.6\r\nVia: 1.1 other\r\nAccept: */*\r\n\r\n"
    )
    head, added = heads[0].split(b"X-Request-Id: ")
    assert re.fullmatch(rb"[0-9a-f]{32}\r\n\r\n", added)
    assert head == (
        b"GET /a%20b?c HTTP/1.1\r\nHost: example:8080\r\nVia: 1.1 other\r\nAccept: */*\r\n"
        b"Via: 1.1 arke\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
        b"X-Forwarded-Host: example:8080\r\n"
    )


def test_forwarded_response_fields(harness: ProxyHarness) -> None:
    harness.start_backends(
        respond_always(
            b"HTTP/1.1 418 I'm a teapot\r\nSet-Cookie: a\r\nDate: x\r\nKeep-Alive: timeout=9\r\n"
            b"Set-Cookie: b\r\nContent-Length: 0\r\n\r\n"
        )
    )
    connection = harness.connect()
    connection.send(GET)
    assert connection.read_head() == (
        b"HTTP/1.1 418 I'm a teapot\r\nSet-Cookie: a\r\nDate: x\r\nSet-Cookie: b\r\n"
        b"Content-Length: 0\r\nVia: 1.1 arke\r\n\r\n"
    )


FRAMINGS = {
    "length": b"Content-Length: 2\r\n\r\nok",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "close": b"Connection: close\r\n\r\nok",
}


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
def test_date_is_added_to_response(harness: ProxyHarness, framing: bytes) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nX-Date: 1\r\n" + framing)

    harness.start_backends(script)
    before = int(time.time())
    for _ in range(2):  # the second head is cached
        response, body = harness.get()
        assert body == b"ok"
        (date,) = response.headers.get_all("date", [])
        assert before <= parsedate_to_datetime(date).timestamp() <= time.time()


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
def test_date_of_backend_is_kept(harness: ProxyHarness, framing: bytes) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
        connection.send(b"HTTP/1.1 200 OK\r\ndate: yesterday\r\n" + framing)

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(GET)
    assert b"date" not in connection.read_head().lower()
    assert connection.read_head().lower().count(b"\r\ndate: ") == 1


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_via_names_received_http_version(harness: ProxyHarness, version: bytes) -> None:
    """RFC 9110, 7.6.3."""
    heads = []

    def script(connection: Connection) -> None:
        heads.append(connection.read_head())
        connection.send(b"HTTP/%b 200 OK\r\nContent-Length: 2\r\n\r\nok" % version)

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version)
    line = b"\r\nVia: %b arke\r\n" % version
    assert line in connection.read_head()
    assert line in heads[0]


def test_backend_connection_is_reused(harness: ProxyHarness) -> None:
    (backend,) = harness.start_backends(respond_always(OK))
    connection = harness.connect()
    for _ in range(20):
        connection.send(GET)
        assert connection.read_response()[1] == b"ok"
    assert backend.connections == 1


def test_pipelined_requests_are_answered_in_order(harness: ProxyHarness) -> None:
    def script(connection: Connection) -> None:
        while head := connection.read_head():
            body = head.split()[1]
            if b"Content-Length: 3" in head:
                body += connection.read_exactly(3)
            elif b"chunked" in head:
                body += connection.read_until(b"0\r\n\r\n")
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            connection.send(body)

    (backend,) = harness.start_backends(script)
    connection = harness.connect()
    connection.send(
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
        b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        b"POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
        b"GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        b"GET /5 HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    for body in (b"/1", b"/2abc", b"/33\r\ndef\r\n0\r\n\r\n", b"/4"):
        assert connection.read_head().startswith(b"HTTP/1.1 200 OK\r\n")
        assert connection.read_exactly(len(body)) == body
    assert connection.read_to_end() == b""
    assert backend.connections == 1


def test_request_received_byte_by_byte(harness: ProxyHarness) -> None:
    bodies = []

    def script(connection: Connection) -> None:
        connection.read_head()
        bodies.append(connection.read_exactly(5))
        connection.send(OK)

    harness.start_backends(script)
    connection = harness.connect()
    for byte in b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello":
        connection.send(bytes([byte]))
    assert connection.read_response()[1] == b"ok"
    assert bodies == [b"hello"]


def test_chunked_request_is_forwarded_chunked(harness: ProxyHarness) -> None:
    received = []

    def script(connection: Connection) -> None:
        received.append(connection.read_head())
        received.append(connection.read_until(b"0\r\n\r\n"))
        connection.send(OK)

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.send(b"5;ext=1\r\nhello\r\n0\r\n\r\n")
    assert connection.read_response()[1] == b"ok"
    assert b"\r\nTransfer-Encoding: chunked\r\n" in received[0]
    assert received[1] == b"5\r\nhello\r\n0\r\n\r\n"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nabcde"
UNTIL_CLOSE_1_0 = b"HTTP/1.0 200 OK\r\n\r\nabcde"


@pytest.mark.parametrize("response", [CHUNKED, UNTIL_CLOSE, UNTIL_CLOSE_1_0])
def test_response_without_length_is_framed_for_http_version_of_client(
    harness: ProxyHarness, response: bytes
) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(response)

    harness.start_backends(script)
    connection = harness.connect()
    for _ in range(2):  # the client connection is reused
        connection.send(GET)
        received, body = connection.read_response()
        assert (received.getheader("transfer-encoding"), body) == ("chunked", b"abcde")
    http_1_0 = harness.connect()
    http_1_0.send(b"GET / HTTP/1.0\r\n\r\n")
    head = http_1_0.read_head()
    assert b"Transfer-Encoding" not in head
    assert b"\r\nConnection: close\r\n" in head
    assert http_1_0.read_to_end() == b"abcde"


def test_http_1_0_keep_alive(harness: ProxyHarness) -> None:
    harness.start_backends(respond_always(OK))
    connection = harness.connect()
    for _ in range(2):
        connection.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        response, body = connection.read_response()
        assert (response.getheader("connection"), body) == ("keep-alive", b"ok")


@pytest.mark.parametrize(
    ("method", "response", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "5"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "5"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "0"),
    ],
)
def test_response_without_body_keeps_connections_open(
    harness: ProxyHarness, method: str, response: bytes, length: str | None
) -> None:
    (backend,) = harness.start_backends(respond_always(response))
    connection = harness.connect()
    for _ in range(2):
        connection.send(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head = connection.read_head()
        lengths = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
        assert lengths == ([f"Content-Length: {length}".encode()] if length else [])
    assert backend.connections == 1


def test_interim_responses_are_forwarded(harness: ProxyHarness) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    harness.start_backends(respond_always(hints + hints + OK))
    connection = harness.connect()
    connection.send(GET)
    for _ in range(2):
        assert connection.read_head().startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n")
    assert connection.read_head().startswith(b"HTTP/1.1 200 OK\r\n")
    assert connection.read_exactly(2) == b"ok"
    connection.send(b"GET / HTTP/1.0\r\n\r\n")
    assert connection.read_to_end().startswith(b"HTTP/1.1 200 OK\r\n")


def test_expect_100_continue_is_forwarded(harness: ProxyHarness) -> None:
    def script(connection: Connection) -> None:
        assert b"\r\nExpect: 100-continue\r\n" in connection.read_head()
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert connection.read_exactly(4) == b"body"
        connection.send(OK)

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    )
    assert connection.read_head().startswith(b"HTTP/1.1 100 Continue\r\n")
    connection.send(b"body")
    assert connection.read_response()[1] == b"ok"


@pytest.mark.parametrize("hint", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_body_after_rejected_expectation_is_not_taken_for_a_request(
    harness: ProxyHarness, hint: bytes
) -> None:
    """A backend that rejects the head may expect no body, and parse the body as a request.

    The proxy must not reuse the connection: the smuggled response would answer the next request.
    """

    def respond_404_to_each_head(connection: Connection) -> None:
        while head := connection.read_head():
            path = head.split()[1]
            if path == b"/smuggled":
                time.sleep(0.05)  # the next request arrives before this response
            response = b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n" % len(path) + path
            connection.send(hint + response)

    harness.start_backends(respond_404_to_each_head)
    body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    client = harness.connect()
    client.send(head % len(body) + body + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    client.read_until(b"\r\n\r\n/")
    client.read_until(b"\r\n\r\n/")
    assert client.read_exactly(4) == b"next"


def test_early_response_closes_client_connection(harness: ProxyHarness) -> None:
    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        connection.read_to_end()

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
    response, _ = connection.read_response("POST")
    assert (response.status, response.getheader("connection")) == (413, "close")
    assert connection.read_to_end() == b""


def test_early_response_prevents_reuse_of_backend_connection(harness: ProxyHarness) -> None:
    """The backend responds before it has read the body, so it may misread the end of the body."""

    def script(connection: Connection) -> None:
        connection.read_head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        connection.read_exactly(4)
        connection.send(b"k")
        connection.read_to_end()

    (backend,) = harness.start_backends(script)
    for connections in (1, 2):
        connection = harness.connect()
        connection.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
        assert connection.read_head().startswith(b"HTTP/1.1 200 ")
        connection.send(b"body")
        assert connection.read_exactly(2) == b"ok"
        assert backend.connections == connections


def test_half_closed_client_gets_responses(harness: ProxyHarness) -> None:
    harness.start_backends(respond_always(OK))
    connection = harness.connect()
    connection.send(GET + GET)
    connection.sock.shutdown(1)
    assert connection.read_to_end().count(b"HTTP/1.1 200 OK") == 2


def test_client_disconnect_cancels_request(harness: ProxyHarness) -> None:
    request_received, connection_closed = threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        connection.read_head()
        request_received.set()
        try:
            assert connection.read_to_end() == b""
        finally:
            connection_closed.set()

    harness.start_backends(script)
    connection = harness.connect()
    connection.send(GET)
    assert request_received.wait(30)
    connection.reset()
    assert connection_closed.wait(30)
