"""The table of malformed HTTP/1.1 requests, translated to HTTP/2 where possible."""

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
MOST = 16_384  # bytes of a frame
SEEN: list[bytes] = []


def translated(raw: bytes) -> Fields | None:
    """Make of a head the fields that say the same, however malformed; None if there are none.

    They say it in small letters, and a name that is missing is empty.
    """
    head, end, _ = raw.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    first, *rest = re.split(rb"\r\n(?![ \t])", head)  # a folded line is part of a value
    match = LINE.fullmatch(first)
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
    both = {name: translated(raw) for name, raw in table.items()}
    return {name: fields for name, fields in both.items() if fields is not None}


REFUSED = rows(HEADS)
LIMITED = rows({name: raw for name, (raw, _) in LIMITS.items()})
PASSED = rows({name: raw for name, (raw, _) in ACCEPTED.items()})
# Allowed in HTTP/1.1 only: blanks around a value, absolute targets, transfer codings.
FORBIDDEN = {
    "space around a value",
    "blank value",
    "URL",
    "URL, and Host in other letters",
    "URL with the port that goes without saying",
    "Host with the port that goes without saying",
    "coding in other letters",
    "chunk extensions",
    "trailer that means something elsewhere",
}


@pytest.fixture
def harness(module_harness: ProxyHarness) -> Iterator[ProxyHarness]:
    SEEN.clear()
    module_harness.start_backends(good)
    yield module_harness
    module_harness.clean_up()


def good(connection: Connection) -> None:
    while head := connection.read_head():
        SEEN.append(head)
        connection.send(OK)


@pytest.fixture
def client(harness: ProxyHarness) -> RawHttp2:
    return RawHttp2(harness.connect())


def test_most_rows_can_be_translated() -> None:
    assert len(REFUSED) > 0.8 * len(HEADS)
    assert len(PASSED) > 0.8 * len(ACCEPTED)


def status(client: RawHttp2, fields: Fields, body: bytes = b"") -> bytes:
    whole = client.headers(1, fields).data
    pieces = [whole[at : at + MOST] for at in range(0, len(whole), MOST)]
    end = [] if body else ["END_STREAM"]
    frames: list[Frame] = [HeadersFrame(1, pieces[0], flags=end)]
    frames += [ContinuationFrame(1, piece) for piece in pieces[1:]]
    frames[-1].flags.add("END_HEADERS")
    if body:
        frames.append(DataFrame(1, body, flags=["END_STREAM"]))
    client.send(*frames)
    return client.read_response(1)[0][b":status"]


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED)
def test_malformed_request_is_rejected(client: RawHttp2, fields: Fields) -> None:
    assert status(client, fields) == b"400"
    assert not SEEN
    client.get(3)
    assert client.read_response(3)[1] == b"ok"


@pytest.mark.parametrize("name", LIMITED)
def test_exceeded_limits_have_their_own_status(client: RawHttp2, name: str) -> None:
    assert int(status(client, LIMITED[name])) == LIMITS[name][1]
    assert not SEEN


@pytest.mark.parametrize("name", PASSED)
def test_unusual_valid_request_is_forwarded(client: RawHttp2, name: str) -> None:
    if name in FORBIDDEN:
        assert status(client, PASSED[name]) == b"400"
        assert not SEEN
    else:
        body = ACCEPTED[name][0].partition(b"\r\n\r\n")[2]
        assert status(client, PASSED[name], body) == b"200"
        assert ACCEPTED[name][1].lower() in SEEN[0].lower()
