"""Properties: what the serializer writes parses to the same head; splits do not change a result."""

from __future__ import annotations

import itertools
from contextlib import suppress

import httptools
from hypothesis import given, settings
from hypothesis import strategies as st

from arke_proxy.backends.address import BackendAddress
from arke_proxy.errors import MalformedMessage
from arke_proxy.http.messages import RequestHead, ResponseHead
from arke_proxy.http1 import serializer
from arke_proxy.http1.body import ChunkedBody
from arke_proxy.http1.head_buffer import HeadBuffer
from arke_proxy.http1.head_parser import parse_request, parse_response
from support.strict_requests import ACCEPTED, HEADS
from support.strict_responses import CHUNKS, RESPONSES

BACKEND = BackendAddress("192.168.56.102", 63450)
NAMES = [
    *(b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect"),
    *(b"Keep-Alive", b"Via", b"X_Y", b"Content_Length", b"Cookie", b"traceparent", b""),
]
VALUES = [
    *(b"a", b"a:80", b"0", b"5", b"+5", b"chunked", b"chunked, chunked", b"close", b"upgrade"),
    *(b"websocket", b"h2c", b"100-continue", b"keep-alive, cookie", b"\x0bchunked", b""),
]
INVALID_LINE_ENDS = [b"\r", b"\n", b"\r\n", b"\r\n ", b"\x00", b" ", b"\t", b":", b"\x7f", b"\xff"]
TARGETS = [b"/", b"*", b"http://a/x", b"http://b", b"a:80", b"//a", b"/#", b"/\x01"]
FIELD = st.tuples(
    st.sampled_from(NAMES) | st.binary(max_size=5),
    st.sampled_from([b":", b": ", b" :", b":\t"]),
    st.sampled_from(VALUES) | st.binary(max_size=9),
    st.sampled_from([b"\r\n"] * 9 + INVALID_LINE_ENDS),
).map(b"".join)
FIELDS = st.lists(FIELD, max_size=6).map(b"".join)
REQUEST_LINE = st.tuples(
    st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"get", b"G T"]),
    st.sampled_from(TARGETS) | st.binary(max_size=5),
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0"]),
).map(b" ".join)
STATUS_LINE = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.0 204 -", b"HTTP/1.1 101 -", b"HTTP/1.1 103", b"HTTP/1.1 2000 OK"]
)
CASES = settings(max_examples=400, deadline=None)


def make_head(line: bytes, fields: bytes) -> bytes:
    return line + b"\r\nHost: a\r\n" + fields + b"\r\n"


def serialize(head: RequestHead) -> bytes:
    return serializer.request_head(head, b"", BACKEND)


@CASES
@given(REQUEST_LINE, FIELDS)
def test_serialized_request_parses_to_same_head(line: bytes, fields: bytes) -> None:
    with suppress(MalformedMessage):
        head = parse_request(make_head(line, fields))
        reparsed = parse_request(serialize(head))
        assert (reparsed.method, reparsed.target) == (head.method, head.target)
        assert reparsed.fields == (*head.fields, (b"Via", b"%b arke" % head.version))
        assert head.version == (b"1.0" if head.is_1_0 else b"1.1")
        assert (reparsed.length, reparsed.chunked, reparsed.upgrade) == (
            head.length,
            head.chunked,
            head.upgrade,
        )
        assert reparsed.host == (head.host or str(BACKEND).encode())


@CASES
@given(STATUS_LINE, FIELDS)
def test_serialized_response_parses_to_same_head(line: bytes, fields: bytes) -> None:
    with suppress(MalformedMessage):
        head = parse_response(make_head(line, fields))
        connection = serializer.upgrade_lines(head.upgrade) if head.upgrade else b""
        framing = serializer.response_framing(head, b"GET", to_1_0=False)
        if head.status < 200:
            framing = serializer.ResponseFraming(b"")
        reparsed = parse_response(serializer.response_head(head, framing.line, connection))
        assert (reparsed.status, reparsed.status_text) == (head.status, head.status_text)
        version = line[len(b"HTTP/") : len(b"HTTP/1.1")]
        assert reparsed.fields == (*head.fields, (b"Via", version + b" arke"))
        assert reparsed.upgrade == head.upgrade


class LlhttpResult:
    """The fields that llhttp, the parser of Node.js, finds."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


@CASES
@given(REQUEST_LINE, FIELDS)
def test_llhttp_parses_serialized_request_to_same_head(line: bytes, fields: bytes) -> None:
    with suppress(MalformedMessage):
        head = parse_request(make_head(line, fields))
        result = LlhttpResult()
        parser = httptools.HttpRequestParser(result)
        with suppress(httptools.HttpParserUpgrade):
            parser.feed_data(serialize(head))
        assert result.complete
        assert parser.get_method() == head.method
        names = [name.lower() for name, _ in result.fields]
        assert result.fields[0][0] == b"Host"
        assert (b"transfer-encoding" in names) is head.chunked
        lengths = [int(value) for name, value in result.fields if name.lower() == b"content-length"]
        assert lengths == ([] if head.length is None else [head.length])
        assert [field for field in result.fields if field in head.fields] == list(head.fields)


def parse_split(
    raw: bytes, cuts: list[int], *, is_response: bool
) -> RequestHead | ResponseHead | str | None:
    """Parse a head that arrives split at `cuts`; "rejected" if it is malformed."""
    buffer = HeadBuffer(skips_empty_lines=not is_response)
    offsets = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    try:
        for begin, end in itertools.pairwise(offsets):
            buffer.push(raw[begin:end])
            if (head := buffer.pull()) is not None:
                return parse_response(head) if is_response else parse_request(head)
    except MalformedMessage:
        return "rejected"
    return None


CUTS = st.lists(st.integers(0, 1 << 16), max_size=8)
REQUESTS = [*HEADS.values(), *(raw for raw, _ in ACCEPTED.values())]


@CASES
@given(
    st.sampled_from(REQUESTS) | st.tuples(REQUEST_LINE, FIELDS).map(lambda t: make_head(*t)), CUTS
)
def test_request_split_anywhere_parses_like_whole(raw: bytes, cuts: list[int]) -> None:
    assert parse_split(raw, cuts, is_response=False) == parse_split(raw, [], is_response=False)


@CASES
@given(
    st.sampled_from([*RESPONSES.values()])
    | st.tuples(STATUS_LINE, FIELDS).map(lambda t: make_head(*t)),
    CUTS,
)
def test_response_split_anywhere_parses_like_whole(raw: bytes, cuts: list[int]) -> None:
    assert parse_split(raw, cuts, is_response=True) == parse_split(raw, [], is_response=True)


def decode_split(data: bytes, cuts: list[int]) -> tuple[bytes, bytes, bytes] | None:
    """Return (payload, rest, trailer) of a body split at `cuts`; None if it is malformed."""
    body = ChunkedBody()
    offsets = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    payload = b""
    try:
        for begin, end in itertools.pairwise(offsets):
            piece, rest = body.feed(data[begin:end])
            payload += piece
            if body.done:
                return payload, rest + data[end:], body.trailer
    except MalformedMessage:
        return None
    return payload, b"", b""


PIECES = [b"0\r\n", b"1\r\na\r\n", b"3;x\r\nabc\r\n", b"\r\n", b"A: b\r\n", b"\n", b"GET /"]


@CASES
@given(st.sampled_from([*CHUNKS.values()]) | st.lists(st.sampled_from(PIECES)).map(b"".join), CUTS)
def test_chunked_body_split_anywhere_parses_like_whole(data: bytes, cuts: list[int]) -> None:
    assert decode_split(data, cuts) == decode_split(data, [])
