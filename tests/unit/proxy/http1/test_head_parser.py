"""The strict head parser. Most inputs are parsed whole and in pieces, as a socket may deliver."""

from __future__ import annotations

import tracemalloc

import pytest

from arke_proxy.errors import MalformedMessage
from arke_proxy.http.messages import RequestHead, ResponseHead
from arke_proxy.http1.head_buffer import HeadBuffer
from arke_proxy.http1.head_parser import parse_request, parse_response
from support.strict_requests import ACCEPTED, GET, HEADS, LIMITS, POST
from support.strict_responses import RESPONSES, SWITCH

STEPS = pytest.mark.parametrize("step", [1, 7, 1 << 20], ids=["byte by byte", "7 bytes", "whole"])


def split(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


def parse_request_in_steps(raw: bytes, step: int = 1 << 20) -> RequestHead:
    buffer = HeadBuffer()
    for piece in split(raw, step):
        buffer.push(piece)
        if (head := buffer.pull()) is not None:
            return parse_request(head)
    raise AssertionError("the head is not complete")


def parse_response_in_steps(raw: bytes, step: int = 1 << 20) -> ResponseHead:
    buffer = HeadBuffer(skips_empty_lines=False)
    for piece in split(raw, step):
        buffer.push(piece)
        if (head := buffer.pull()) is not None:
            return parse_response(head)
    raise AssertionError("the head is not complete")


@STEPS
def test_request_head_is_parsed(step: int) -> None:
    raw = (
        b"POST /a?b=c HTTP/1.1\r\nHost: example:80\r\nX-One:  1\r\n"
        b"Content-Length: 5\r\nx-two:\t2 \r\n\r\n"
    )
    head = parse_request_in_steps(raw, step)
    assert (head.method, head.target, head.host) == (b"POST", b"/a?b=c", b"example:80")
    assert head.fields == ((b"X-One", b"1"), (b"x-two", b"2"))
    assert (head.length, head.chunked, head.keep_alive) == (5, False, True)
    assert (head.is_1_0, head.upgrade, head.forwarded) == (False, None, ())
    assert head.lines == b"X-One: 1\r\nx-two: 2\r\n"
    assert head.begin == (
        b"POST /a?b=c HTTP/1.1\r\nHost: example:80\r\nX-One: 1\r\nx-two: 2\r\n"
        b"Content-Length: 5\r\nVia: 1.1 arke\r\n"
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
def test_keep_alive_of_request(lines: bytes, keep_alive: bool) -> None:
    assert parse_request_in_steps(b"GET / " + lines + b"\r\n").keep_alive is keep_alive


def test_hop_by_hop_and_forwarded_fields_are_removed() -> None:
    head = parse_request_in_steps(
        GET + b"Connection: keep-alive, X-Secret\r\nx-secret: 1\r\nKeep-Alive: 5\r\n"
        b"TE: trailers\r\nUpgrade: websocket\r\nProxy-Connection: keep-alive\r\n"
        b"Proxy-Authorization: Basic eA==\r\nHTTP2-Settings: AA\r\nX-Forwarded-For: 6.6.6.6\r\n"
        b"X-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\n"
        b"X-End-To-End: yes\r\n\r\n"
    )
    assert [name for name, _ in head.forwarded] == [
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"forwarded",
    ]
    assert list(head.fields) == [(b"X-End-To-End", b"yes")]


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"Transfer-Encoding"])
def test_connection_field_cannot_remove_framing_fields(name: bytes) -> None:
    head = parse_request_in_steps(
        POST + b"Content-Length: 3\r\nConnection: close, " + name + b"\r\n\r\n"
    )
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
def test_absolute_target_becomes_origin_form(line: bytes, target: bytes, host: bytes) -> None:
    head = parse_request_in_steps(line + b"\r\nHost: example\r\n\r\n")
    assert (head.target, head.host) == (target, host)


UPGRADE = b"Connection: upgrade\r\nUpgrade: websocket\r\n"


@pytest.mark.parametrize(
    ("raw", "upgrade"),
    [
        (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"websocket"),
        (GET + b"Connection: keep-alive, UPGRADE\r\nUpgrade: WebSocket \r\n", b"websocket"),
        (GET + b"Content-Length: 0\r\n" + UPGRADE, b"websocket"),
        (GET + b"Content-Length: 1\r\n" + UPGRADE, None),
        (GET + b"Transfer-Encoding: chunked\r\n" + UPGRADE, None),
        (POST + UPGRADE, None),
        (b"GET / HTTP/1.0\r\n" + UPGRADE, None),
        (GET + b"Upgrade: websocket\r\n", None),
        (GET + b"Connection: upgrade\r\n", None),
        (GET + UPGRADE + b"Upgrade: h2c\r\n", None),
        (GET + b"Connection: upgrade\r\nUpgrade: h2c, websocket\r\n", None),
        (GET + b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n", None),
    ],
)
def test_only_valid_websocket_upgrade_is_forwarded(raw: bytes, upgrade: bytes | None) -> None:
    head = parse_request_in_steps(raw + b"\r\n")
    assert (head.upgrade, list(head.fields)) == (upgrade, [])


@pytest.mark.parametrize(
    ("raw", "forwarded"),
    [
        (POST + b"Content-Length: 1\r\n", True),
        (POST + b"Transfer-Encoding: chunked\r\n", True),
        (POST + b"Content-Length: 0\r\n", False),
        (GET, False),
        (b"POST / HTTP/1.0\r\nContent-Length: 1\r\n", False),
    ],
)
def test_expect_is_forwarded_only_with_body(raw: bytes, forwarded: bool) -> None:
    head = parse_request_in_steps(raw + b"Expect: 100-Continue\r\n\r\n")
    assert (head.fields == ((b"Expect", b"100-Continue"),)) is forwarded
    assert (b"Expect" in (head.lines or b"")) is forwarded


def test_http_1_0_request_needs_no_host() -> None:
    assert parse_request_in_steps(b"GET / HTTP/1.0\r\n\r\n").host is None


def test_empty_lines_before_request_are_skipped() -> None:
    assert parse_request_in_steps(b"\r\n\r\n" + GET + b"\r\n", 1).target == b"/a?b=c"


@STEPS
@pytest.mark.parametrize("raw", HEADS.values(), ids=HEADS)
def test_malformed_or_ambiguous_request_is_rejected(raw: bytes, step: int) -> None:
    with pytest.raises(MalformedMessage) as rejected:
        parse_request_in_steps(raw, step)
    assert rejected.value.status == 400


@pytest.mark.parametrize("raw", [raw for raw, _ in ACCEPTED.values()], ids=ACCEPTED)
def test_unusual_request_in_pieces_is_parsed_like_whole(raw: bytes) -> None:
    head, end, _ = raw.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    whole = parse_request_in_steps(head + end)
    assert parse_request_in_steps(head + end, 1) == parse_request_in_steps(head + end, 7) == whole


@pytest.mark.parametrize(("raw", "status"), LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("step", [1, 1 << 20], ids=["byte by byte", "whole"])
def test_exceeded_limits_have_their_own_status(raw: bytes, status: int, step: int) -> None:
    with pytest.raises(MalformedMessage) as rejected:
        parse_request_in_steps(raw, step)
    assert rejected.value.status == status


def test_request_at_the_limits_is_accepted() -> None:
    line = b"GET /" + b"a" * (8192 - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"
    raw = line + b"\r\nHost: a\r\n" + b"X: a\r\n" * 99 + b"\r\n"
    assert len(parse_request_in_steps(raw).fields) == 99


def test_bare_line_feed_is_rejected_before_head_is_complete() -> None:
    buffer = HeadBuffer()
    buffer.push(b"GET / HTTP/1.1\r\nHost: a\r")
    assert buffer.pull() is None
    buffer.push(b"\nX: 1\n")
    with pytest.raises(MalformedMessage):
        buffer.pull()


def test_data_after_head_stays_buffered() -> None:
    buffer = HeadBuffer()
    buffer.push(GET + b"\r\n" + GET + b"\r\nrest")
    assert buffer.pull() == GET + b"\r\n"
    assert buffer.pull() == GET + b"\r\n"
    assert buffer.rest() == b"rest"
    assert len(buffer) == 0


@STEPS
def test_response_head_is_parsed(step: int) -> None:
    raw = (
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nDate: b\r\nConnection: X-B\r\n"
        b"X-B: c\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nProxy-Authenticate: Basic\r\n\r\n"
    )
    head = parse_response_in_steps(raw, step)
    assert (head.status, head.status_text) == (404, b"404 Not Found")
    assert head.fields == ((b"Date", b"b"),)
    assert (head.length, head.chunked, head.keep_alive, head.upgrade) == (3, False, True, None)
    assert head.lines == b"Date: b\r\n"
    assert head.begin == (
        b"HTTP/1.1 404 Not Found\r\nDate: b\r\nContent-Length: 3\r\nVia: 1.1 arke\r\n"
    )


@STEPS
def test_101_response_has_upgrade(step: int) -> None:
    raw = SWITCH + b"Upgrade: WebSocket\r\nConnection: upgrade\r\n\r\n"
    head = parse_response_in_steps(raw, step)
    assert (head.status, head.upgrade) == (101, b"websocket")


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
def test_printable_reason_phrase_is_forwarded(line: bytes, text: bytes) -> None:
    assert parse_response_in_steps(line + b"\r\n\r\n").status_text == text


@pytest.mark.parametrize(
    ("raw", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\n\r\n", False),
        (b"HTTP/1.1 204 -\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 204 -\r\nContent-Length: 5\r\n\r\n", False),
        (b"HTTP/1.1 204 -\r\nTransfer-Encoding: chunked\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_keep_alive_of_response(raw: bytes, keep_alive: bool) -> None:
    assert parse_response_in_steps(raw).keep_alive is keep_alive


@STEPS
@pytest.mark.parametrize("raw", RESPONSES.values(), ids=RESPONSES)
def test_malformed_response_is_rejected(raw: bytes, step: int) -> None:
    with pytest.raises(MalformedMessage):
        parse_response_in_steps(raw, step)


def test_long_connection_fields_are_not_cached() -> None:
    """Otherwise a client could fill 100 MB of cache with a few megabytes of heads."""
    tracemalloc.start()
    try:
        for number in range(16):
            options = b",".join([b"%x" % (number * 10_000 + at) for at in range(8000)])
            parse_request(GET + b"Connection: %b\r\n\r\n" % options)
        allocated, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert allocated < 1_000_000


@pytest.mark.parametrize(
    ("lines", "dated"),
    [
        (b"Date: x\r\n", True),
        (b"A: b\r\nDATE:x\r\n", True),
        (b"X-Date: 1\r\nA: date: 2\r\n", False),
        (b"", False),
        (b"Date: x\r\nConnection: date\r\n", False),  # a field named in Connection is removed
    ],
)
def test_response_with_date_field_is_dated(lines: bytes, dated: bool) -> None:
    for status in (b"200 OK", b"204 No Content"):
        raw = b"HTTP/1.1 %b\r\n%bContent-Length: 0\r\n\r\n" % (status, lines)
        assert parse_response(raw).dated is dated
