"""The tables of malformed and unusual HTTP/1.1 requests, translated to HTTP/2 where possible."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame

from support.backends import OK
from support.connection import Connection
from support.proxy_harness import ProxyHarness
from support.raw_http2 import Fields, RawHttp2
from support.strict_requests import ACCEPTED, HEADS, LIMITS

LINE = re.compile(rb"([^ ]*) (.*) HTTP/1\.1", re.DOTALL)
MAX_FRAME = 16_384  # bytes
RECEIVED_HEADS: list[bytes] = []


def translate(raw: bytes) -> Fields | None:
    """Translate an HTTP/1.1 head to HTTP/2 fields, as malformed as the head is.

    Field names become lower-case; a missing name becomes an empty one. None: a line of the head
    has no equivalent.
    """
    head, end, _ = raw.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    first_line, *rest = re.split(rb"\r\n(?![ \t])", head)  # a folded line is part of a value
    match = LINE.fullmatch(first_line)
    if not match or not end:
        return None
    fields = []
    for line in rest:
        name, colon, value = line.partition(b":")
        if not colon:
            return None
        fields.append((name.lower(), value.removeprefix(b" ")))
    pseudo = [(b":method", match[1]), (b":scheme", b"http"), (b":path", match[2])]
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) == 1:
        pseudo.append((b":authority", hosts[0]))
        fields = [(name, value) for name, value in fields if name != b"host"]
    return [*pseudo, *fields]


def rows(table: dict[str, bytes]) -> dict[str, Fields]:
    translated = {name: translate(raw) for name, raw in table.items()}
    return {name: fields for name, fields in translated.items() if fields is not None}


MALFORMED = rows(HEADS)
OVER_LIMITS = rows({name: raw for name, (raw, _) in LIMITS.items()})
UNUSUAL = rows({name: raw for name, (raw, _) in ACCEPTED.items()})
# Rows of ACCEPTED that HTTP/2 forbids: blanks around a value, absolute URLs, transfer codings.
FORBIDDEN_IN_HTTP2 = {
    "space around a value",
    "blank value",
    "URL",
    "URL, and Host in another case",
    "URL with the default port",
    "Host with the default port",
    "coding in upper case",
    "chunk extensions",
    "trailer with a field for framing or routing",
}


@pytest.fixture
def harness(module_harness: ProxyHarness) -> Iterator[ProxyHarness]:
    RECEIVED_HEADS.clear()
    module_harness.start_backends(record_and_respond_ok)
    yield module_harness
    module_harness.clean_up()


def record_and_respond_ok(connection: Connection) -> None:
    while head := connection.read_head():
        RECEIVED_HEADS.append(head)
        connection.send(OK)


@pytest.fixture
def client(harness: ProxyHarness) -> RawHttp2:
    return RawHttp2(harness.connect())


def test_most_rows_can_be_translated() -> None:
    assert len(MALFORMED) > 0.8 * len(HEADS)
    assert len(UNUSUAL) > 0.8 * len(ACCEPTED)


def request_status(client: RawHttp2, fields: Fields, body: bytes = b"") -> bytes:
    """Send a request on stream 1, in frames of at most MAX_FRAME; return the response's status."""
    encoded = client.headers(1, fields).data
    pieces = [encoded[at : at + MAX_FRAME] for at in range(0, len(encoded), MAX_FRAME)]
    end = [] if body else ["END_STREAM"]
    frames: list[Frame] = [HeadersFrame(1, pieces[0], flags=end)]
    frames += [ContinuationFrame(1, piece) for piece in pieces[1:]]
    frames[-1].flags.add("END_HEADERS")
    if body:
        frames.append(DataFrame(1, body, flags=["END_STREAM"]))
    client.send(*frames)
    return client.read_response(1)[0][b":status"]


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
def test_malformed_request_is_rejected(client: RawHttp2, fields: Fields) -> None:
    assert request_status(client, fields) == b"400"
    assert not RECEIVED_HEADS
    client.get(3)
    assert client.read_response(3)[1] == b"ok"


@pytest.mark.parametrize("name", OVER_LIMITS)
def test_exceeded_limits_have_their_own_status(client: RawHttp2, name: str) -> None:
    assert int(request_status(client, OVER_LIMITS[name])) == LIMITS[name][1]
    assert not RECEIVED_HEADS


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_valid_request_is_forwarded(client: RawHttp2, name: str) -> None:
    if name in FORBIDDEN_IN_HTTP2:
        assert request_status(client, UNUSUAL[name]) == b"400"
        assert not RECEIVED_HEADS
    else:
        body = ACCEPTED[name][0].partition(b"\r\n\r\n")[2]
        assert request_status(client, UNUSUAL[name], body) == b"200"
        assert ACCEPTED[name][1].lower() in RECEIVED_HEADS[0].lower()
