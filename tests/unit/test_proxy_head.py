"""Heads, strictly: each input as one piece, and byte by byte as a socket may deliver it."""

from __future__ import annotations

import pytest

from arke_proxy.errors import Malformed
from arke_proxy.http1.head import RequestHead, ResponseHead, parse_request, parse_response
from arke_proxy.http1.head_buffer import HeadBuffer

STEPS = pytest.mark.parametrize("step", [1, 7, 1 << 20], ids=["byte by byte", "by seven", "whole"])


def pieces(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


def request(raw: bytes, step: int = 1 << 20) -> RequestHead:
    buffer = HeadBuffer()
    for piece in pieces(raw, step):
        buffer.push(piece)
        if (head := buffer.pull()) is not None:
            return parse_request(head)
    raise AssertionError("the head never became whole")


def response(raw: bytes, step: int = 1 << 20) -> ResponseHead:
    buffer = HeadBuffer()
    for piece in pieces(raw, step):
        buffer.push(piece)
        if (head := buffer.pull()) is not None:
            return parse_response(head)
    raise AssertionError("the head never became whole")


GET = b"GET /a?b=c HTTP/1.1\r\nHost: example\r\n"
POST = b"POST / HTTP/1.1\r\nHost: example\r\n"


@STEPS
def test_a_request_is_read(step: int) -> None:
    raw = (
        b"POST /a?b=c HTTP/1.1\r\nHost: example:80\r\nX-One:  1\r\n"
        b"Content-Length: 5\r\nx-two:\t2 \r\n\r\n"
    )
    assert request(raw, step) == RequestHead(
        method=b"POST",
        target=b"/a?b=c",
        is_1_0=False,
        host=b"example:80",
        fields=[(b"X-One", b"1"), (b"x-two", b"2 ")],
        length=5,
        chunked=False,
        keep_alive=True,
    )


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        (b"HTTP/1.1\r\nHost: a\r\n", True),
        (b"HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", False),
        (b"HTTP/1.1\r\nHost: a\r\nConnection: Upgrade , CLOSE\r\nUpgrade: h2c\r\n", False),
        (b"HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n", False),
        (b"HTTP/1.0\r\n", False),
        (b"HTTP/1.0\r\nConnection: Keep-Alive\r\n", True),
    ],
)
def test_a_client_says_whether_its_connection_goes_on(lines: bytes, keep_alive: bool) -> None:
    assert request(b"GET / " + lines + b"\r\n").keep_alive is keep_alive


def test_what_is_about_the_connection_or_about_the_proxy_is_dropped() -> None:
    head = request(
        GET + b"Connection: keep-alive, X-Secret\r\nx-secret: 1\r\nKeep-Alive: 5\r\n"
        b"TE: trailers\r\nUpgrade: websocket\r\nProxy-Connection: keep-alive\r\n"
        b"Proxy-Authorization: Basic eA==\r\nHTTP2-Settings: AA\r\nX-Forwarded-For: 6.6.6.6\r\n"
        b"X-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\n"
        b"X-Kept: yes\r\n\r\n"
    )
    assert head.fields == [(b"X-Kept", b"yes")]


@pytest.mark.parametrize("named", [b"Host", b"Content-Length", b"Transfer-Encoding"])
def test_a_connection_field_cannot_name_away_what_frames_a_request(named: bytes) -> None:
    head = request(POST + b"Content-Length: 3\r\nConnection: close, " + named + b"\r\n\r\n")
    assert (head.host, head.length) == (b"example", 3)


@pytest.mark.parametrize(
    ("line", "target", "host"),
    [
        (b"GET http://Example/x?y HTTP/1.1", b"/x?y", b"Example"),
        (b"GET http://example HTTP/1.1", b"/", b"example"),
        (b"GET HTTP://example?y HTTP/1.1", b"/?y", b"example"),
        (b"OPTIONS http://example HTTP/1.1", b"*", b"example"),
        (b"OPTIONS * HTTP/1.1", b"*", b"example"),
    ],
)
def test_the_target_becomes_a_path(line: bytes, target: bytes, host: bytes) -> None:
    head = request(line + b"\r\nHost: example\r\n\r\n")
    assert (head.target, head.host) == (target, host)


def test_an_old_request_needs_no_host() -> None:
    assert request(b"GET / HTTP/1.0\r\n\r\n").host is None


def test_empty_lines_before_a_request_mean_nothing() -> None:
    assert request(b"\r\n\r\n" + GET + b"\r\n", 1).target == b"/a?b=c"


MALFORMED = {
    "no version": b"GET /\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "trailing space": b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    "tab for space": b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "space in target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "leading space": b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "leading LF": b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "leading CR": b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "lower-case method": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "unknown method": b"GOT / HTTP/1.1\r\nHost: a\r\n\r\n",
    "method with junk": b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "lower-case version": b"GET / http/1.1\r\nHost: a\r\n\r\n",
    "long version": b"GET / HTTP/1.10\r\nHost: a\r\n\r\n",
    "other protocol": b"OPTIONS / RTSP/1.0\r\nHost: a\r\n\r\n",
    "control in target": b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in target": b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "non-ASCII target": b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment in URL": b"GET http://a/#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "relative target": b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "authority form": b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "asterisk without OPTIONS": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "URL without host": b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
    "URL with password": b"GET http://u:p@a/ HTTP/1.1\r\nHost: u:p@a\r\n\r\n",
    "URL disagrees with Host": b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": GET + b"Host: example\r\n\r\n",
    "Host with junk": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "Host list": b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "bare LF everywhere": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF after a field": GET + b"X: 1\nY: 2\r\n\r\n",
    "bare CR in a value": GET + b"X: 1\rY: 2\r\n\r\n",
    "folded line": GET + b"X: 1\r\n 2\r\n\r\n",
    "folded line with tab": GET + b"X: 1\r\n\t2\r\n\r\n",
    "fold first": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "space before colon": GET + b"X : 1\r\n\r\n",
    "no colon": GET + b"X\r\n\r\n",
    "no name": GET + b": 1\r\n\r\n",
    "junk in name": GET + b"X(: 1\r\n\r\n",
    "non-ASCII name": GET + b"\xc3\xa9: 1\r\n\r\n",
    "NUL in value": GET + b"X: a\x00b\r\n\r\n",
    "control in value": GET + b"X: a\x01b\r\n\r\n",
    "DEL in value": GET + b"X: a\x7fb\r\n\r\n",
    "length and chunked": POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "the same length twice": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "list of lengths": POST + b"Content-Length: 1, 1\r\n\r\n",
    "signed length": POST + b"Content-Length: +1\r\n\r\n",
    "negative length": POST + b"Content-Length: -1\r\n\r\n",
    "spaced length": POST + b"Content-Length: 1 1\r\n\r\n",
    "hexadecimal length": POST + b"Content-Length: 0x1\r\n\r\n",
    "empty length": POST + b"Content-Length:\r\n\r\n",
    "enormous length": POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "unknown coding": POST + b"Transfer-Encoding: foo\r\n\r\n",
    "coding that ends in chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked not last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked after a control": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@STEPS
@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_or_ambiguous_is_refused(raw: bytes, step: int) -> None:
    with pytest.raises(Malformed) as refused:
        request(raw, step)
    assert refused.value.status == 400


OTHERWISE = {
    "long first line": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "first line that never ends": (b"GET /" + b"a" * 9000, 414),
    "large head": (GET + b"X: " + b"a" * 66_000 + b"\r\n\r\n", 431),
    "head that never ends": (GET + b"X: a\r\n" * 11_000, 431),
    "101 fields": (GET + b"X: a\r\n" * 100 + b"\r\n", 431),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
}


@pytest.mark.parametrize(("raw", "status"), OTHERWISE.values(), ids=OTHERWISE)
@pytest.mark.parametrize("step", [1, 1 << 20], ids=["byte by byte", "whole"])
def test_what_is_too_much_or_not_offered_has_a_code_of_its_own(
    raw: bytes, status: int, step: int
) -> None:
    with pytest.raises(Malformed) as refused:
        request(raw, step)
    assert refused.value.status == status


def test_the_limits_themselves_are_allowed() -> None:
    line = b"GET /" + b"a" * (8192 - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"
    assert len(request(line + b"\r\nHost: a\r\n" + b"X: a\r\n" * 99 + b"\r\n").fields) == 99


def test_a_lone_line_feed_is_refused_before_the_head_is_whole() -> None:
    buffer = HeadBuffer()
    buffer.push(b"GET / HTTP/1.1\r\nHost: a\r")
    assert buffer.pull() is None
    buffer.push(b"\nX: 1\n")
    with pytest.raises(Malformed):
        buffer.pull()


def test_what_follows_a_head_is_kept() -> None:
    buffer = HeadBuffer()
    buffer.push(GET + b"\r\n" + GET + b"\r\nrest")
    assert buffer.pull() == GET + b"\r\n"
    assert buffer.pull() == GET + b"\r\n"
    assert buffer.rest() == b"rest"
    assert len(buffer) == 0


@STEPS
def test_a_response_is_read(step: int) -> None:
    raw = (
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nX-A: b\r\nConnection: X-B\r\n"
        b"X-B: c\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nProxy-Authenticate: Basic\r\n\r\n"
    )
    assert response(raw, step) == ResponseHead(
        status=404,
        status_text=b"404 Not Found",
        fields=[(b"X-A", b"b")],
        length=3,
        chunked=False,
        keep_alive=True,
    )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"HTTP/1.1 200", b"200 "),
        (b"HTTP/1.1 200 ", b"200 "),
        (b"HTTP/1.1 299 S\xe9", b"299 S\xe9"),
        (b"HTTP/1.1 200 O\x01K", b"200 "),
        (b"HTTP/1.0 999 Odd", b"999 Odd"),
    ],
)
def test_a_reason_is_passed_on_if_it_is_text(line: bytes, text: bytes) -> None:
    assert response(line + b"\r\n\r\n").status_text == text


@pytest.mark.parametrize(
    ("raw", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_a_back_end_says_whether_its_connection_goes_on(raw: bytes, keep_alive: bool) -> None:
    assert response(raw).keep_alive is keep_alive


OK = b"HTTP/1.1 200 OK\r\n"
BAD_RESPONSES = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\n\r\n",
    "CR in reason": b"HTTP/1.1 200 O\rK\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nX: 1\n\n",
    "bare LF after a field": OK + b"X: 1\nY: 2\r\n\r\n",
    "bare CR": OK + b"X: 1\rY: 2\r\n\r\n",
    "folded line": OK + b"X: 1\r\n 2\r\n\r\n",
    "space before colon": OK + b"X : 1\r\n\r\n",
    "NUL": OK + b"X: \x00\r\n\r\n",
    "length and chunked": OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "signed length": OK + b"Content-Length: +1\r\n\r\n",
    "coding not offered": OK + b"Transfer-Encoding: gzip\r\n\r\n",
    "two codings": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "101 fields": OK + b"X: 1\r\n" * 101 + b"\r\n",
    "large head": OK + b"X: " + b"a" * 66_000 + b"\r\n\r\n",
}


@STEPS
@pytest.mark.parametrize("raw", BAD_RESPONSES.values(), ids=BAD_RESPONSES)
def test_back_ends_are_read_as_strictly(raw: bytes, step: int) -> None:
    with pytest.raises(Malformed):
        response(raw, step)
