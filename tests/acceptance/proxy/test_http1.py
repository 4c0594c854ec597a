"""What a client sees through the proxy when all goes well, and what a backend sees."""

from __future__ import annotations

import re
import threading
import time
from email.utils import parsedate_to_datetime

import pytest

from support.http_rig import Connection, Rig, always

GET = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_requests_are_spread_over_what_the_cluster_answers(rig: Rig) -> None:
    rig.backends(
        always(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"),
        always(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"),
    )
    asked = rig.cluster.asked
    bodies = [rig.get()[1] for _ in range(10)]
    assert set(bodies) == {b"one", b"two"}
    assert rig.cluster.asked >= asked + 10


def test_what_a_backend_is_told(rig: Rig) -> None:
    heads = []

    def script(connection: Connection) -> None:
        heads.append(connection.head())
        connection.send(OK)

    rig.backends(script)
    rig.exchange(
        b"GET /a%20b?c HTTP/1.1\r\nHost: example:8080\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
        b"X-Forwarded-For: 6.6.6.6\r\nVia: 1.1 other\r\nAccept: */*\r\n\r\n"
    )
    head, names = heads[0].split(b"X-Request-Id: ")
    assert re.fullmatch(
        rb"[0-9a-f]{32}\r\ntraceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-01\r\n\r\n", names
    )
    assert head == (
        b"GET /a%20b?c HTTP/1.1\r\nHost: example:8080\r\nVia: 1.1 other\r\nAccept: */*\r\n"
        b"Via: 1.1 arke\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
        b"X-Forwarded-Host: example:8080\r\n"
    )


def test_what_a_client_is_told(rig: Rig) -> None:
    rig.backends(
        always(
            b"HTTP/1.1 418 I'm a teapot\r\nSet-Cookie: a\r\nDate: x\r\nKeep-Alive: timeout=9\r\n"
            b"Set-Cookie: b\r\nContent-Length: 0\r\n\r\n"
        )
    )
    connection = rig.connect()
    connection.send(GET)
    assert connection.head() == (
        b"HTTP/1.1 418 I'm a teapot\r\nSet-Cookie: a\r\nDate: x\r\nSet-Cookie: b\r\n"
        b"Content-Length: 0\r\nVia: 1.1 arke\r\n\r\n"
    )


FRAMINGS = {
    "length": b"Content-Length: 2\r\n\r\nok",
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "end": b"Connection: close\r\n\r\nok",
}


@pytest.mark.parametrize("rest", FRAMINGS.values(), ids=FRAMINGS)
def test_an_answer_without_a_date_gets_one(rig: Rig, rest: bytes) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nX-Date: 1\r\n" + rest)

    rig.backends(script)
    before = int(time.time())
    for _ in range(2):  # the second head is known
        response, body = rig.get()
        assert body == b"ok"
        (date,) = response.headers.get_all("date", [])
        assert before <= parsedate_to_datetime(date).timestamp() <= time.time()


@pytest.mark.parametrize("rest", FRAMINGS.values(), ids=FRAMINGS)
def test_a_backends_own_date_is_kept(rig: Rig, rest: bytes) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
        connection.send(b"HTTP/1.1 200 OK\r\ndate: yesterday\r\n" + rest)

    rig.backends(script)
    connection = rig.connect()
    connection.send(GET)
    assert b"date" not in connection.head().lower()
    assert connection.head().lower().count(b"\r\ndate: ") == 1


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_each_side_is_told_the_version_that_the_other_spoke(rig: Rig, version: bytes) -> None:
    """RFC 9110, 7.6.3."""
    heads = []

    def script(connection: Connection) -> None:
        heads.append(connection.head())
        connection.send(b"HTTP/%b 200 OK\r\nContent-Length: 2\r\n\r\nok" % version)

    rig.backends(script)
    connection = rig.connect()
    connection.send(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version)
    line = b"\r\nVia: %b arke\r\n" % version
    assert line in connection.head()
    assert line in heads[0]


def test_one_connection_serves_many_requests_on_both_sides(rig: Rig) -> None:
    (backend,) = rig.backends(always(OK))
    connection = rig.connect()
    for _ in range(20):
        connection.send(GET)
        assert connection.response()[1] == b"ok"
    assert backend.connections == 1


def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    def script(connection: Connection) -> None:
        while head := connection.head():
            body = head.split()[1]
            if b"Content-Length: 3" in head:
                body += connection.exactly(3)
            elif b"chunked" in head:
                body += connection.until(b"0\r\n\r\n")
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            connection.send(body)

    (backend,) = rig.backends(script)
    connection = rig.connect()
    connection.send(
        b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
        b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        b"POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
        b"GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        b"GET /5 HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    for body in (b"/1", b"/2abc", b"/33\r\ndef\r\n0\r\n\r\n", b"/4"):
        assert connection.head().startswith(b"HTTP/1.1 200 OK\r\n")
        assert connection.exactly(len(body)) == body
    assert connection.rest() == b""
    assert backend.connections == 1


def test_a_request_that_comes_byte_by_byte_is_forwarded_whole(rig: Rig) -> None:
    bodies = []

    def script(connection: Connection) -> None:
        connection.head()
        bodies.append(connection.exactly(5))
        connection.send(OK)

    rig.backends(script)
    connection = rig.connect()
    for byte in b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello":
        connection.send(bytes([byte]))
    assert connection.response()[1] == b"ok"
    assert bodies == [b"hello"]


def test_a_chunked_request_goes_on_in_chunks(rig: Rig) -> None:
    seen = []

    def script(connection: Connection) -> None:
        seen.append(connection.head())
        seen.append(connection.until(b"0\r\nX-Sum: 7\r\n\r\n"))
        connection.send(OK)

    rig.backends(script)
    connection = rig.connect()
    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.send(b"5;ext=1\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n")
    assert connection.response()[1] == b"ok"
    assert b"\r\nTransfer-Encoding: chunked\r\n" in seen[0]
    assert seen[1] == b"5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\n\r\nabcde"
OLD_STREAM = b"HTTP/1.0 200 OK\r\n\r\nabcde"


@pytest.mark.parametrize("answer", [CHUNKED, STREAM, OLD_STREAM])
def test_a_body_of_unknown_length_reaches_every_client(rig: Rig, answer: bytes) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(answer)

    rig.backends(script)
    connection = rig.connect()
    for _ in range(2):  # the connection is good for more
        connection.send(GET)
        response, body = connection.response()
        assert (response.getheader("transfer-encoding"), body) == ("chunked", b"abcde")
    old = rig.connect()
    old.send(b"GET / HTTP/1.0\r\n\r\n")
    head = old.head()
    assert b"Transfer-Encoding" not in head
    assert b"\r\nConnection: close\r\n" in head
    assert old.rest() == b"abcde"


def test_an_old_client_may_ask_for_more_over_its_connection(rig: Rig) -> None:
    rig.backends(always(OK))
    connection = rig.connect()
    for _ in range(2):
        connection.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        response, body = connection.response()
        assert (response.getheader("connection"), body) == ("keep-alive", b"ok")


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "5"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "5"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "0"),
    ],
)
def test_an_answer_without_a_body_ends_with_its_head(
    rig: Rig, method: str, answer: bytes, length: str | None
) -> None:
    (backend,) = rig.backends(always(answer))
    connection = rig.connect()
    for _ in range(2):
        connection.send(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head = connection.head()
        lengths = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
        assert lengths == ([f"Content-Length: {length}".encode()] if length else [])
    assert backend.connections == 1


def test_interim_answers_come_first(rig: Rig) -> None:
    hinted = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    rig.backends(always(hinted + hinted + OK))
    connection = rig.connect()
    connection.send(GET)
    for _ in range(2):
        assert connection.head().startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n")
    assert connection.head().startswith(b"HTTP/1.1 200 OK\r\n")
    assert connection.exactly(2) == b"ok"
    connection.send(b"GET / HTTP/1.0\r\n\r\n")
    assert connection.rest().startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_expects_to_be_told_to_continue_is(rig: Rig) -> None:
    def script(connection: Connection) -> None:
        assert b"\r\nExpect: 100-continue\r\n" in connection.head()
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert connection.exactly(4) == b"body"
        connection.send(OK)

    rig.backends(script)
    connection = rig.connect()
    connection.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    )
    assert connection.head().startswith(b"HTTP/1.1 100 Continue\r\n")
    connection.send(b"body")
    assert connection.response()[1] == b"ok"


@pytest.mark.parametrize("hint", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
def test_a_body_behind_an_expectation_that_was_not_met_answers_nobody_else(
    rig: Rig, hint: bytes
) -> None:
    """A backend that refuses the head may expect no body, and read a request where it comes."""

    def refusing(connection: Connection) -> None:
        while head := connection.head():
            path = head.split()[1]
            if path == b"/smuggled":
                time.sleep(0.05)  # until the next request is on its way
            answer = b"HTTP/1.1 404 No\r\nContent-Length: %d\r\n\r\n" % len(path) + path
            connection.send(hint + answer)

    rig.backends(refusing)
    body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    client = rig.connect()
    client.send(head % len(body) + body + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    client.until(b"\r\n\r\n/")
    client.until(b"\r\n\r\n/")
    assert client.exactly(4) == b"next"


def test_an_answer_before_the_request_is_whole_closes_the_connection(rig: Rig) -> None:
    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        connection.rest()

    rig.backends(script)
    connection = rig.connect()
    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
    response, _ = connection.response("POST")
    assert (response.status, response.getheader("connection")) == (413, "close")
    assert connection.rest() == b""


def test_an_answer_that_comes_early_spoils_its_connection(rig: Rig) -> None:
    """It is whole when the request is; but who knows what was taken for that request's end."""

    def script(connection: Connection) -> None:
        connection.head()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        connection.exactly(4)
        connection.send(b"k")
        connection.rest()

    (backend,) = rig.backends(script)
    for times in (1, 2):
        connection = rig.connect()
        connection.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
        assert connection.head().startswith(b"HTTP/1.1 200 ")
        connection.send(b"body")
        assert connection.exactly(2) == b"ok"
        assert backend.connections == times


def test_a_client_that_sends_no_more_still_reads_its_answers(rig: Rig) -> None:
    rig.backends(always(OK))
    connection = rig.connect()
    connection.send(GET + GET)
    connection.sock.shutdown(1)
    assert connection.rest().count(b"HTTP/1.1 200 OK") == 2


def test_a_client_that_goes_away_takes_its_request_along(rig: Rig) -> None:
    asked, ended = threading.Event(), threading.Event()

    def script(connection: Connection) -> None:
        connection.head()
        asked.set()
        try:
            assert connection.rest() == b""
        finally:
            ended.set()

    rig.backends(script)
    connection = rig.connect()
    connection.send(GET)
    assert asked.wait(30)
    connection.reset()
    assert ended.wait(30)
