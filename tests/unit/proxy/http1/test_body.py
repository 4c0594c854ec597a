from __future__ import annotations

import pytest

from arke_proxy.errors import MalformedMessage
from arke_proxy.http1.body import (
    BodyParser,
    ChunkedBody,
    LengthBody,
    StreamBody,
    chunk,
    last_chunk,
    request_body,
    response_body,
)
from arke_proxy.http1.head_parser import parse_request, parse_response
from support.strict_responses import CHUNKS

STEPS = pytest.mark.parametrize("step", [1, 3, 1 << 20], ids=["byte by byte", "3 bytes", "whole"])


def decode(body: BodyParser, data: bytes, step: int) -> tuple[bytes, bytes]:
    """Feed `data` in steps; return the payload, and the bytes after the body."""
    payload = b""
    for at in range(0, len(data), step):
        piece, rest = body.feed(data[at : at + step])
        payload += piece
        if body.done:
            return payload, rest + data[at + step :]
        assert rest == b""
    return payload, b""


@STEPS
def test_content_length_body_ends_after_length(step: int) -> None:
    body = LengthBody(5)
    assert decode(body, b"helloGET /", step) == (b"hello", b"GET /")
    assert body.done


def test_truncated_body_is_not_done() -> None:
    body = LengthBody(5)
    assert body.feed(b"hell") == (b"hell", b"")
    assert not body.done
    assert not body.ends_with_stream()


def test_stream_body_ends_with_connection() -> None:
    body = StreamBody()
    assert body.feed(b"0\r\n\r\n") == (b"0\r\n\r\n", b"")
    assert not body.done
    assert body.ends_with_stream()


@STEPS
@pytest.mark.parametrize(
    ("data", "payload"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"005\r\nhello\r\n000\r\n\r\n", b"hello"),
        (b"2\r\n\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", b"\r\n0123456789"),
        (b'5;name=value;quoted="a;b"\r\nhello\r\n0;last\r\n\r\n', b"hello"),
        (b"5 ;spaced\r\nhello\r\n0\r\n\r\n", b"hello"),
    ],
)
def test_chunked_body_is_decoded(data: bytes, payload: bytes, step: int) -> None:
    body = ChunkedBody()
    assert decode(body, data + b"GET /", step) == (payload, b"GET /")
    assert body.done


@STEPS
def test_trailer_fields_not_allowed_in_trailers_are_dropped(step: int) -> None:
    body = ChunkedBody()
    data = b"1\r\na\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\nHOST: b\r\nY:\r\n\r\n"
    assert decode(body, data, step) == (b"a", b"")
    assert body.done
    assert body.trailer == b"X-Sum: 7\r\nY: \r\n"


@pytest.mark.parametrize("data", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("step", [1, 1 << 20], ids=["byte by byte", "whole"])
def test_malformed_chunks_are_rejected(data: bytes, step: int) -> None:
    with pytest.raises(MalformedMessage):
        decode(ChunkedBody(), data, step)


def test_serialized_chunks_can_be_parsed() -> None:
    data = chunk(b"hello") + chunk(b"") + chunk(b"0" * 300) + last_chunk(b"A: b\r\n")
    body = ChunkedBody()
    assert decode(body, data, 1 << 20) == (b"hello" + b"0" * 300, b"")
    assert body.trailer == b"A: b\r\n"


@pytest.mark.parametrize(
    ("lines", "body_type"),
    [
        (b"", None),
        (b"Content-Length: 0\r\n", None),
        (b"Content-Length: 1\r\n", LengthBody),
        (b"Transfer-Encoding: chunked\r\n", ChunkedBody),
    ],
)
def test_request_body_framing(lines: bytes, body_type: type | None) -> None:
    body = request_body(parse_request(b"POST / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n"))
    assert body_type is None if body is None else type(body) is body_type


@pytest.mark.parametrize(
    ("method", "head", "body_type"),
    [
        (b"GET", b"200 OK\r\n", StreamBody),
        (b"GET", b"200 OK\r\nContent-Length: 0\r\n", None),
        (b"GET", b"200 OK\r\nContent-Length: 1\r\n", LengthBody),
        (b"GET", b"200 OK\r\nTransfer-Encoding: chunked\r\n", ChunkedBody),
        (b"GET", b"204 No Content\r\n", None),
        (b"GET", b"304 Not Modified\r\nContent-Length: 5\r\n", None),
        (b"HEAD", b"200 OK\r\nContent-Length: 5\r\n", None),
        (b"HEAD", b"200 OK\r\nTransfer-Encoding: chunked\r\n", None),
        (b"HEAD", b"200 OK\r\n", None),
    ],
)
def test_response_body_framing(method: bytes, head: bytes, body_type: type | None) -> None:
    body = response_body(parse_response(b"HTTP/1.1 " + head + b"\r\n"), method)
    assert body_type is None if body is None else type(body) is body_type
