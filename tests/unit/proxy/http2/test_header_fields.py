from __future__ import annotations

import pytest

from arke_proxy.errors import MalformedMessage
from arke_proxy.http1.head_parser import parse_request, parse_response
from arke_proxy.http2.header_fields import (
    read_request,
    read_trailer,
    response_fields,
    trailer_fields,
)

Fields = list[tuple[bytes, bytes]]


def pseudo_fields(
    method: bytes = b"GET",
    path: bytes = b"/",
    scheme: bytes = b"https",
    authority: bytes = b"example",
) -> Fields:
    return [
        (b":method", method),
        (b":scheme", scheme),
        (b":authority", authority),
        (b":path", path),
    ]


def pseudo_fields_without(name: bytes) -> Fields:
    return [field for field in pseudo_fields() if field[0] != name]


def test_request_fields_become_head() -> None:
    fields = [
        *pseudo_fields(b"POST", b"/a?b"),
        (b"content-length", b"5"),
        (b"x", b"1"),
        (b"te", b"trailers"),
    ]
    head = read_request(fields, complete=False)
    assert (head.method, head.target, head.host) == (b"POST", b"/a?b", b"example")
    assert (head.length, head.chunked, head.keep_alive, head.is_1_0) == (5, False, True, False)
    assert list(head.fields) == [(b"x", b"1")]


def test_http2_and_http1_requests_are_cached_separately() -> None:
    """Parsed heads are cached under their HTTP/1.1 form, which both requests share."""
    raw = b"GET / HTTP/1.1\r\nHost: example\r\n\r\n"
    for _ in range(2):
        assert read_request(pseudo_fields(), complete=True).version == b"2.0"
        assert parse_request(raw).version == b"1.1"


def test_body_without_length_is_chunked() -> None:
    assert read_request(pseudo_fields(b"POST"), complete=False).chunked
    assert not read_request(pseudo_fields(b"POST"), complete=True).chunked


def test_cookie_fields_are_joined() -> None:
    cookies = [(b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")]
    head = read_request([*pseudo_fields(), *cookies], complete=True)
    assert list(head.fields) == [(b"x", b"y"), (b"cookie", b"a=1; b=2")]


def test_host_field_replaces_authority() -> None:
    fields = [*pseudo_fields_without(b":authority"), (b"host", b"h")]
    assert read_request(fields, complete=True).host == b"h"
    assert read_request([*pseudo_fields(), (b"host", b"EXAMPLE")], complete=True).host == b"example"


def test_options_asterisk_is_accepted() -> None:
    assert read_request(pseudo_fields(b"OPTIONS", b"*"), complete=True).target == b"*"


REJECTED: dict[str, tuple[Fields, int]] = {
    **{
        f"no {name.decode()}": (pseudo_fields_without(name), 400)
        for name in (b":method", b":scheme", b":path")
    },
    "no host": (pseudo_fields_without(b":authority"), 400),
    "empty host": ([*pseudo_fields_without(b":authority"), (b"host", b"")], 400),
    **{
        f"two {name.decode()}": ([*pseudo_fields(), (name, value)], 400)
        for name, value in pseudo_fields()
    },
    "pseudo-field after a field": (
        [*pseudo_fields_without(b":path"), (b"x", b"y"), (b":path", b"/")],
        400,
    ),
    "pseudo-field after cookie": (
        [*pseudo_fields_without(b":path"), (b"cookie", b"y"), (b":path", b"/")],
        400,
    ),
    "pseudo-field after host": (
        [*pseudo_fields_without(b":path"), (b"host", b"example"), (b":path", b"/")],
        400,
    ),
    "unknown pseudo-field": ([*pseudo_fields(), (b":protocol", b"websocket")], 400),
    "pseudo-field of responses": ([*pseudo_fields(), (b":status", b"200")], 400),
    "empty path": (pseudo_fields(path=b""), 400),
    "path without slash": (pseudo_fields(path=b"a"), 400),
    "absolute path": (pseudo_fields(path=b"http://example/"), 400),
    "asterisk": (pseudo_fields(path=b"*"), 400),
    "space in path": (pseudo_fields(path=b"/a HTTP/1.1"), 400),
    "CRLF in path": (pseudo_fields(path=b"/ HTTP/1.1\r\nX: y\r\n\r\n"), 400),
    "non-ASCII path": (pseudo_fields(path=b"/\xe9"), 400),
    "fragment": (pseudo_fields(path=b"/a#b"), 400),
    "long path": (pseudo_fields(path=b"/" + b"a" * 9000), 414),
    "empty method": (pseudo_fields(b""), 400),
    "lower-case method": (pseudo_fields(b"get"), 400),
    "CRLF in method": (pseudo_fields(b"GET / HTTP/1.1\r\nA: b\r\n\r\nGET"), 400),
    "unknown method": (pseudo_fields(b"NONSENSE"), 400),
    "PRI": (pseudo_fields(b"PRI"), 400),
    "CONNECT": (pseudo_fields(b"CONNECT"), 501),
    "unsupported scheme": (pseudo_fields(scheme=b"ftp"), 400),
    "empty scheme": (pseudo_fields(scheme=b""), 400),
    "userinfo": (pseudo_fields(authority=b"user@example"), 400),
    "CRLF in authority": (pseudo_fields(authority=b"a\r\nX: y"), 400),
    "empty authority": (pseudo_fields(authority=b""), 400),
    "host differs from authority": ([*pseudo_fields(), (b"host", b"other")], 400),
    "two hosts": ([*pseudo_fields(), (b"host", b"example"), (b"host", b"example")], 400),
    "Content-Length without body": ([*pseudo_fields(), (b"content-length", b"5")], 400),
    "101 fields": ([*pseudo_fields(), *[(b"x", b"y")] * 100], 431),
    **{
        f"name {name!r}": ([*pseudo_fields(), (name, b"v")], 400)
        for name in (b"", b"X", b"a b", b"a:", b"a\r\n", b"\x00", b"a\xe9", b"a\tb")
    },
    **{
        f"value {value!r}": ([*pseudo_fields(), (b"x", value)], 400)
        for value in (b"a\rb", b"a\nb", b"a\r\nb: c", b"\x00", b" a", b"a ", b"\ta", b"a\x7f", b" ")
    },
    **{
        f"field {name.decode()}": ([*pseudo_fields(), (name, b"x")], 400)
        for name in (
            b"connection",
            b"http2-settings",
            b"keep-alive",
            b"proxy-connection",
            b"te",
            b"transfer-encoding",
            b"upgrade",
        )
    },
    "te other than trailers": ([*pseudo_fields(), (b"te", b"trailers, gzip")], 400),
}


@pytest.mark.parametrize(("fields", "status"), REJECTED.values(), ids=REJECTED)
def test_malformed_http2_request_is_rejected(fields: Fields, status: int) -> None:
    with pytest.raises(MalformedMessage) as rejected:
        read_request(fields, complete=True)
    assert rejected.value.status == status


@pytest.mark.parametrize("value", [b"+5", b"5, 5", b"0x5", b" 5", b"", b"-1", b"9" * 30])
def test_malformed_content_length_is_rejected(value: bytes) -> None:
    with pytest.raises(MalformedMessage):
        read_request([*pseudo_fields(b"POST"), (b"content-length", value)], complete=False)


def test_two_content_lengths_are_rejected() -> None:
    with pytest.raises(MalformedMessage):
        read_request([*pseudo_fields(b"POST"), *[(b"content-length", b"5")] * 2], complete=False)


def test_trailer_fields_are_filtered_and_checked() -> None:
    fields = [(b"sum", b"1"), (b"content-length", b"5"), (b"x-forwarded-for", b"1.1.1.1")]
    assert read_trailer(fields) == b"sum: 1\r\n"
    for invalid in ((b":path", b"/"), (b"A", b"b"), (b"a", b"b\r\n"), (b"connection", b"close")):
        with pytest.raises(MalformedMessage):
            read_trailer([invalid])


def test_response_fields_are_translated() -> None:
    lines = b"X-Some: Thing \r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
    assert response_fields(parse_response(b"HTTP/1.1 404 Not Found\r\n" + lines)) == [
        (b":status", b"404"),
        (b"x-some", b"Thing"),
        (b"content-length", b"3"),
        (b"via", b"1.1 arke"),
    ]
    empty = response_fields(parse_response(b"HTTP/1.0 204 No\r\nContent-Length: 0\r\n\r\n"))
    assert empty == [(b":status", b"204"), (b"via", b"1.0 arke")]
    assert trailer_fields(b"Sum: 1\r\nEmpty:\r\n") == [(b"sum", b"1"), (b"empty", b"")]
