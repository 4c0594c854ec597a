"""What no back end must ever see, through the real port: refused, and the connection closed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from http_rig import Connection, Rig, standing

from relays import LIMIT

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture(scope="module")
def standing_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with standing(tmp_path_factory.mktemp("proxy")) as rig:
        yield rig


@pytest.fixture
def rig(standing_rig: Rig) -> Iterator[Rig]:
    yield standing_rig
    standing_rig.tidy()


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
REFUSED = {
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "folded line": (GET + b"X: 1\r\n 2\r\n\r\n", 400),
    "space before colon": (GET + b"Content-Length : 40\r\n\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (GET + b"Host: b\r\n\r\n", 400),
    "length and chunked": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (POST + b"Content-Length: 0\r\nContent-Length: 38\r\n\r\n", 400),
    "signed length": (POST + b"Content-Length: +0\r\n\r\n", 400),
    "unknown coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400),
    "chunk size with junk": (POST + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n", 400),
    "chunk too long": (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", 400),
    "long first line": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "large head": (GET + b"X: " + b"a" * 66_000 + b"\r\n\r\n", 431),
    "101 fields": (GET + b"X: a\r\n" * 100 + b"\r\n", 431),
    "CONNECT": (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
}


@pytest.mark.parametrize("step", [1, 1 << 20], ids=["byte by byte", "whole"])
@pytest.mark.parametrize(("raw", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_ambiguous_is_refused(rig: Rig, raw: bytes, status: int, step: int) -> None:
    bodies = []

    def script(connection: Connection) -> None:
        connection.head()
        bodies.append(connection.rest())

    rig.back_ends(script)
    connection = rig.connect()
    data = raw + SMUGGLED
    for at in range(0, len(data), step):
        try:
            connection.send(data[at : at + step])
        except ConnectionError:  # the proxy has lost patience, and says so below
            break
    response, body = connection.response()
    assert (response.status, response.getheader("connection")) == (status, "close")
    assert body.endswith(b".\n")
    assert connection.rest() == b""
    rig.tidy()
    # A head that was good has gone to the back end by the time its body turns out bad.
    assert not any(b"smuggled" in body or b"0\r\n\r\n" in body for body in bodies)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"HEAD / HTTP/1.1\r\n\r\n", b"400"),
        (b"HEAD /" + b"a" * 9000 + b" HTTP/1.1\r\n", b"414"),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", b"400"),
    ],
)
def test_a_refusal_of_head_has_no_body(rig: Rig, raw: bytes, status: bytes) -> None:
    connection = rig.connect()
    connection.send(raw)
    assert connection.head().startswith(b"HTTP/1.1 " + status)
    assert connection.rest() == b""


def test_a_head_that_never_comes_whole(rig: Rig) -> None:
    connection = rig.connect()
    connection.sock.settimeout(2 * LIMIT)
    connection.send(b"GET / HTTP/1.1\r\nHost: ")
    response, body = connection.response()
    assert response.status == 408
    assert body == b"No whole head came within 10 s.\n"
    assert connection.rest() == b""
