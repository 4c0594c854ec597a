from __future__ import annotations

import pytest

from arke_proxy.backends.address import BackendAddress
from arke_proxy.http.messages import RequestHead
from arke_proxy.http1 import serializer
from arke_proxy.http1.head_parser import parse_request, parse_response

BACKEND = BackendAddress("192.168.56.102", 63450)


def test_request_head_for_backend_has_via_and_forwarded_fields() -> None:
    head = parse_request(
        b"POST http://example/a HTTP/1.1\r\nHost: example\r\nX-Forwarded-For: 6.6.6.6\r\n"
        b"Connection: close\r\nVia: 1.0 other\r\nContent-Length: 3\r\n\r\n"
    )
    assert serializer.request_head(head, b"X-Forwarded-For: 10.1.2.3\r\n", BACKEND) == (
        b"POST /a HTTP/1.1\r\nHost: example\r\nVia: 1.0 other\r\nContent-Length: 3\r\n"
        b"Via: 1.1 arke\r\nX-Forwarded-For: 10.1.2.3\r\n\r\n"
    )


def test_http_1_0_request_is_forwarded_as_1_1_with_host() -> None:
    head = parse_request(b"GET / HTTP/1.0\r\n\r\n")
    assert serializer.request_head(head, b"", BACKEND) == (
        b"GET / HTTP/1.1\r\nHost: 192.168.56.102:63450\r\nVia: 1.0 arke\r\n\r\n"
    )


def test_request_without_cached_lines_is_serialized_identically() -> None:
    head = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\ny: 2\r\n\r\n")
    serialized = serializer.request_head(head, b"", BACKEND)
    assert b"\r\nX: 1\r\ny: 2\r\n" in serialized
    uncached = RequestHead(head.method, head.target, head.host, head.fields)
    assert serializer.request_head(uncached, b"", BACKEND) == serialized


def test_upgrade_is_forwarded_in_both_directions() -> None:
    lines = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    head = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
    assert lines in serializer.request_head(head, b"", BACKEND)
    response = parse_response(b"HTTP/1.1 101 -\r\n" + lines + b"\r\n")
    assert response.upgrade
    assert serializer.response_head(response, b"", serializer.upgrade_lines(response.upgrade)) == (
        b"HTTP/1.1 101 -\r\nVia: 1.1 arke\r\n" + lines + b"\r\n"
    )


@pytest.mark.parametrize(
    ("method", "head", "to_1_0", "framing"),
    [
        (b"GET", b"200 OK\r\nContent-Length: 5\r\n", False, (b"Content-Length: 5\r\n", 0, 0)),
        (b"GET", b"200 OK\r\nContent-Length: 0\r\n", True, (b"Content-Length: 0\r\n", 0, 0)),
        (b"HEAD", b"200 OK\r\nContent-Length: 5\r\n", False, (b"Content-Length: 5\r\n", 0, 0)),
        (b"GET", b"304 -\r\nContent-Length: 5\r\n", False, (b"Content-Length: 5\r\n", 0, 0)),
        (b"GET", b"204 -\r\nContent-Length: 5\r\n", False, (b"", 0, 0)),
        (b"GET", b"204 -\r\n", False, (b"", 0, 0)),
        (b"HEAD", b"200 OK\r\nTransfer-Encoding: chunked\r\n", False, (b"", 0, 0)),
        (b"GET", b"200 OK\r\n", False, (serializer.CHUNKED, 1, 0)),
        (b"GET", b"200 OK\r\nTransfer-Encoding: chunked\r\n", False, (serializer.CHUNKED, 1, 0)),
        (b"GET", b"200 OK\r\n", True, (b"", 0, 1)),
        (b"GET", b"200 OK\r\nTransfer-Encoding: chunked\r\n", True, (b"", 0, 1)),
    ],
)
def test_response_framing(
    method: bytes, head: bytes, to_1_0: bool, framing: tuple[bytes, int, int]
) -> None:
    parsed = parse_response(b"HTTP/1.1 " + head + b"\r\n")
    assert serializer.response_framing(parsed, method, to_1_0=to_1_0) == framing


@pytest.mark.parametrize(
    ("keep_alive", "to_1_0", "line"),
    [
        (True, False, b""),
        (False, False, b"Connection: close\r\n"),
        (True, True, b"Connection: keep-alive\r\n"),
        (False, True, b"Connection: close\r\n"),
    ],
)
def test_connection_line(keep_alive: bool, to_1_0: bool, line: bytes) -> None:
    assert serializer.connection_line(keep_alive=keep_alive, to_1_0=to_1_0) == line


def test_response_head_for_client_is_http_1_1_with_via() -> None:
    head = parse_response(b"HTTP/1.0 200 Fine\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n")
    assert serializer.response_head(head, serializer.CHUNKED, serializer.CLOSE) == (
        b"HTTP/1.1 200 Fine\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nTransfer-Encoding: chunked\r\n"
        b"Via: 1.0 arke\r\nConnection: close\r\n\r\n"
    )
