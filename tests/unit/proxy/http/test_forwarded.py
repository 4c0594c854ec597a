"""Forwarded, X-Forwarded-*, X-Request-Id and traceparent fields, with constant random ids."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from arke_proxy import flag_types
from arke_proxy.http.forwarded import ForwardedForm, Forwarding
from arke_proxy.http.header_fields import FROM_TRUSTED_PROXIES
from arke_proxy.http1.head_parser import parse_request

TRUSTED = "10.0.0.1"
UNTRUSTED = "203.0.113.9"
PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def constant_ids(size: int) -> bytes:
    """Return trace id 1 and span id c1, each time."""
    return (bytes(15) + b"\x01" + bytes(7) + b"\xc1") * (size // 24)


def forwarded_lines(
    lines: bytes = b"",
    peer: str = UNTRUSTED,
    form: ForwardedForm = ForwardedForm.X,
    *,
    tls: bool = False,
    trace: bool = False,
) -> list[bytes]:
    trusted = [ip_network("10.0.0.0/8")]
    forwarding = Forwarding(trusted, form, constant_ids, begins_traces=trace)
    head = parse_request(b"GET / HTTP/1.1\r\nHost: example:80\r\n" + lines + b"\r\n")
    return forwarding.origin(peer, tls=tls).forwarded_lines(head)[0].split(b"\r\n")[:-1]


def value_of(lines: list[bytes], name: bytes) -> bytes | None:
    values = [line.partition(b": ")[2] for line in lines if line.startswith(name + b": ")]
    assert len(values) <= 1
    return values[0] if values else None


SPOOFED = (
    b"X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n"
    b"X-Forwarded-Host: shop.example\r\nForwarded: for=6.6.6.6;proto=https\r\n"
)


def test_forwarded_fields_from_untrusted_client_are_replaced() -> None:
    assert (
        forwarded_lines(SPOOFED)
        == forwarded_lines()
        == [
            b"X-Forwarded-For: 203.0.113.9",
            b"X-Forwarded-Proto: http",
            b"X-Forwarded-Host: example:80",
            b"X-Request-Id: 00000000000000000000000000000001",
        ]
    )


@pytest.mark.parametrize("peer", [TRUSTED, UNTRUSTED])
@pytest.mark.parametrize("lines", [b"", b"traceparent: invalid\r\n"], ids=["absent", "invalid"])
def test_trace_begins_only_if_the_operator_wants_it(lines: bytes, peer: str) -> None:
    """The proxy records no span: the trace would have no root."""
    assert value_of(forwarded_lines(lines, peer), b"traceparent") is None
    assert value_of(forwarded_lines(lines, peer, trace=True), b"traceparent") == (
        b"00-00000000000000000000000000000001-00000000000000c1-01"
    )


def test_forwarded_fields_from_trusted_proxy_are_extended() -> None:
    assert forwarded_lines(SPOOFED, TRUSTED)[:3] == [
        b"X-Forwarded-For: 6.6.6.6, 7.7.7.7, 10.0.0.1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: shop.example",
    ]


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3"])
def test_ipv4_and_mapped_ipv6_address_of_trusted_proxy_are_trusted(peer: str) -> None:
    assert value_of(forwarded_lines(SPOOFED, peer), b"X-Forwarded-Proto") == b"https"


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("10.1.2.3", b"10.1.2.3"),
        ("::ffff:10.1.2.3", b"10.1.2.3"),
        ("fe80::1%eth0", b"fe80::1"),
        ("", b"unknown"),
    ],
)
def test_x_forwarded_for_has_plain_client_address(peer: str, expected: bytes) -> None:
    assert value_of(forwarded_lines(peer=peer), b"X-Forwarded-For") == expected


def test_forwarded_proto_is_https_for_tls() -> None:
    assert value_of(forwarded_lines(tls=True), b"X-Forwarded-Proto") == b"https"
    assert value_of(forwarded_lines(form=ForwardedForm.RFC7239, tls=True), b"Forwarded") == (
        b'for=203.0.113.9;proto=https;host="example:80"'
    )


@pytest.mark.parametrize(
    ("line", "name", "expected"),
    [
        (b"X-Forwarded-Proto: gopher\r\n", b"X-Forwarded-Proto", b"http"),
        (b"X-Forwarded-Proto: https, http\r\n", b"X-Forwarded-Proto", b"http"),
        (b"X-Forwarded-Host: a, b\r\n", b"X-Forwarded-Host", b"example:80"),
        (b"X-Forwarded-Host: a\r\nX-Forwarded-Host: b\r\n", b"X-Forwarded-Host", b"example:80"),
        (b"X-Forwarded-For:\r\n", b"X-Forwarded-For", b"10.0.0.1"),
    ],
)
def test_malformed_forwarded_fields_from_trusted_proxy_are_replaced(
    line: bytes, name: bytes, expected: bytes
) -> None:
    assert value_of(forwarded_lines(line, TRUSTED), name) == expected


@pytest.mark.parametrize(
    ("line", "peer", "expected"),
    [
        (b"", UNTRUSTED, b'for=203.0.113.9;proto=http;host="example:80"'),
        (b"", "2001:db8::1", b'for="[2001:db8::1]";proto=http;host="example:80"'),
        (b"Forwarded: for=6.6.6.6\r\n", UNTRUSTED, b'for=203.0.113.9;proto=http;host="example:80"'),
        (
            b'Forwarded: for="[::1]";by=a, for=b\r\n',
            TRUSTED,
            b'for="[::1]";by=a, for=b, for=10.0.0.1;proto=http;host="example:80"',
        ),
        (b'Forwarded: for="\r\n', TRUSTED, b'for=10.0.0.1;proto=http;host="example:80"'),
    ],
)
def test_rfc_7239_forwarded_field(line: bytes, peer: str, expected: bytes) -> None:
    lines = forwarded_lines(line, peer, ForwardedForm.RFC7239)
    assert value_of(lines, b"Forwarded") == expected
    assert value_of(lines, b"X-Forwarded-For") is None


def test_x_forwarded_and_forwarded_together() -> None:
    lines = forwarded_lines(form=ForwardedForm.BOTH)
    assert value_of(lines, b"X-Forwarded-For") == UNTRUSTED.encode()
    assert value_of(lines, b"Forwarded")


@pytest.mark.parametrize(
    ("line", "peer", "kept"),
    [
        (b"X-Request-Id: a-1\r\n", TRUSTED, True),
        (b"X-Request-Id: a-1\r\n", UNTRUSTED, False),
        (b"X-Request-Id: " + b"a" * 128 + b"\r\n", TRUSTED, True),
        (b"X-Request-Id: " + b"a" * 129 + b"\r\n", TRUSTED, False),
        (b"X-Request-Id: a b\r\n", TRUSTED, False),
        (b"X-Request-Id: \xc3\xa9\r\n", TRUSTED, False),
        (b"X-Request-Id:\r\n", TRUSTED, False),
        (b"X-Request-Id: a\r\nX-Request-Id: b\r\n", TRUSTED, False),
    ],
)
def test_request_id_is_kept_from_trusted_proxy_only(line: bytes, peer: str, kept: bool) -> None:
    forwarding = Forwarding([ip_network("10.0.0.0/8")], ForwardedForm.X, constant_ids)
    head = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n")
    lines, request_id = forwarding.origin(peer, tls=False).forwarded_lines(head)
    assert b"X-Request-Id: " + request_id + b"\r\n" in lines
    assert (request_id == b"%032x" % 1) is not kept


@pytest.mark.parametrize("name", sorted(FROM_TRUSTED_PROXIES))
def test_other_proxy_fields_are_kept_from_trusted_proxy_only(name: bytes) -> None:
    line = name.title() + b": 6.6.6.6\r\n"
    assert forwarded_lines(line) == forwarded_lines()
    assert forwarded_lines(line, TRUSTED) == [
        *forwarded_lines(peer=TRUSTED)[:3],
        name + b": 6.6.6.6",
        *forwarded_lines(peer=TRUSTED)[3:],
    ]


@pytest.mark.parametrize("peer", [TRUSTED, UNTRUSTED])
def test_trace_context_is_kept_from_any_client(peer: str) -> None:
    lines = forwarded_lines(
        b"TraceParent: " + PARENT + b"\r\ntracestate: a=1\r\ntracestate: b=2\r\n", peer
    )
    assert lines[-3:] == [b"traceparent: " + PARENT, b"tracestate: a=1", b"tracestate: b=2"]


@pytest.mark.parametrize(
    ("parent", "valid"),
    [
        (PARENT, True),
        (b"01" + PARENT[2:], True),
        (b"01" + PARENT[2:] + b"-more", True),
        (PARENT + b"-more", False),
        (b"01" + PARENT[2:] + b"more", False),
        (b"ff" + PARENT[2:], False),
        (PARENT.upper(), False),
        (PARENT[:-1], False),
        (b"00-" + b"0" * 32 + PARENT[35:], False),
        (PARENT[:36] + b"0" * 16 + b"-01", False),
        (b"", False),
        (PARENT + b"\r\ntraceparent: " + PARENT, False),
    ],
)
def test_only_a_valid_traceparent_is_forwarded(parent: bytes, valid: bool) -> None:
    lines = forwarded_lines(b"traceparent: " + parent + b"\r\ntracestate: a=1\r\n")
    assert (value_of(lines, b"tracestate") == b"a=1") is valid
    assert (value_of(lines, b"traceparent") == parent) is valid


@pytest.mark.parametrize("text", ["10.0.0.1/8", "example", "10.0.0.0/33", ""])
def test_network_flag_rejects_malformed_value(text: str) -> None:
    with pytest.raises(ValueError, match="must be a network"):
        flag_types.network(text)


def test_network_flag_parses_address_and_prefix() -> None:
    assert flag_types.network("10.0.0.1") == ip_network("10.0.0.1/32")
    assert flag_types.network("fd00::/8") == ip_network("fd00::/8")


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("65536", 65536), ("64k", 65536), ("10M", 10 << 20), ("1g", 1 << 30)],
)
def test_size_flag_parses_units(text: str, size: int) -> None:
    assert flag_types.size(text) == size


@pytest.mark.parametrize("text", ["", "k", "1.5m", "-1", "1kb", "\u0661"])
def test_size_flag_rejects_malformed_value(text: str) -> None:
    with pytest.raises(ValueError, match="number of bytes"):
        flag_types.size(text)
