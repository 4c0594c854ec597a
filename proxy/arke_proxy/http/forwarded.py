"""Forwarding information for backends: X-Forwarded-*, Forwarded, X-Request-Id, traceparent."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from arke_proxy.errors import MalformedMessage
from arke_proxy.http.header_fields import FROM_TRUSTED_PROXIES, Field, written
from arke_proxy.http.messages import RequestHead
from arke_proxy.http.request_target import checked_host

Network = IPv4Network | IPv6Network

_ANY: Final = re.compile(rb".+")
_PROTO: Final = re.compile(rb"https?")
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
# Version 00 ends after the flags. A later version may continue after a hyphen; ff is invalid.
_TRACEPARENT: Final = re.compile(
    rb"(?!ff|00.{53}-)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    rb"(?:-[!-~]*)?"
)
# Marked as sampled: backends would not record a new trace that is marked as not sampled.
_NEW_TRACE: Final = b"traceparent: 00-%b-%b-01\r\n"
_IDS_PER_DRAW: Final = 256  # pairs of a trace id and a span id
_TRACE_DIGITS: Final = 32
_SPAN_DIGITS: Final = 16
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR: Final = rb'%b=(?:%b|"(?:[\t !#-\[\]-~]|\\[\t -~])*")' % (_TOKEN, _TOKEN)
_ELEMENT: Final = rb"%b(?:;%b)*" % (_PAIR, _PAIR)
_FORWARDED: Final = re.compile(rb"%b(?:[ \t]*,[ \t]*%b)*" % (_ELEMENT, _ELEMENT))


class ForwardedForm(Enum):
    """The header fields in which backends learn the client's address."""

    X = "x"  # X-Forwarded-For, -Proto and -Host
    RFC7239 = "rfc7239"  # Forwarded
    BOTH = "both"


class Forwarding:
    """The operator's configuration: which proxies are trusted, and which fields are sent.

    `randbytes` makes the ids of requests and traces, which must be unique, but not secret.
    `begins_traces`: a request without a valid traceparent begins a trace.
    """

    def __init__(
        self,
        trusted: Sequence[Network],
        form: ForwardedForm,
        randbytes: Callable[[int], bytes],
        *,
        begins_traces: bool = False,
    ) -> None:
        self._trusted = trusted
        self.begins_traces = begins_traces
        self.form = form
        self.only_x = form is ForwardedForm.X
        self._randbytes = randbytes
        self._digits = b""  # of unused ids
        self._at = 0

    def new_ids(self) -> bytes:
        """Return a new trace id followed by a span id: 48 hexadecimal digits."""
        at = self._at
        if at == len(self._digits):
            size = _IDS_PER_DRAW * (_TRACE_DIGITS + _SPAN_DIGITS) // 2
            self._digits = self._randbytes(size).hex().encode()
            at = 0
        self._at = at + _TRACE_DIGITS + _SPAN_DIGITS
        return self._digits[at : self._at]

    def origin(self, peer: str, *, tls: bool) -> ClientOrigin:
        """Make the origin of a connection. `peer` is its IP address, or "" if that is unknown."""
        if not peer:
            return ClientOrigin(self, b"unknown", trusted=False, tls=tls)
        # Without the prefix of IPv4 on an IPv6 socket, and without the IPv6 zone.
        plain = peer.removeprefix("::ffff:").partition("%")[0]
        trusted = bool(self._trusted) and any(ip_address(plain) in net for net in self._trusted)
        return ClientOrigin(self, plain.encode(), trusted=trusted, tls=tls)


class ClientOrigin:
    """The client of a connection. Makes the fields that describe it to backends."""

    __slots__ = ("_address", "_forwarding", "_lines", "_proto", "_trusted", "tls")

    def __init__(self, forwarding: Forwarding, address: bytes, *, trusted: bool, tls: bool) -> None:
        self._forwarding = forwarding
        self._address = address
        self._trusted = trusted
        self.tls = tls  # the client connection uses TLS
        self._proto = b"https" if tls else b"http"
        self._lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (address, self._proto)

    def forwarded_lines(self, head: RequestHead) -> tuple[bytes, bytes]:
        """Return the lines to add to a request, and the request's id; all attempts get the same.

        Forwarding fields of the request are kept only from a trusted proxy. A valid traceparent is
        continued from every client. Without one, a trace begins only if the operator wants it: its
        id is the new request id. The proxy records no span, so that such a trace has no root.
        """
        forwarding = self._forwarding
        host = head.host
        ids = forwarding.new_ids()
        request_id = ids[:_TRACE_DIGITS]
        new_trace = b""
        if forwarding.begins_traces:
            new_trace = _NEW_TRACE % (request_id, ids[_TRACE_DIGITS:])
        if host and not head.forwarded and forwarding.only_x:  # the usual case
            parts = (
                self._lines,
                b"X-Forwarded-Host: ",
                host,
                b"\r\nX-Request-Id: ",
                request_id,
                b"\r\n",
                new_trace,
            )
            return b"".join(parts), request_id
        if forwarding.only_x and not (head.forwarded and self._trusted):
            lines = self._lines
            if host is not None:
                lines = b"%bX-Forwarded-Host: %b\r\n" % (lines, host)
        else:
            lines = self._merged_lines(head.forwarded if self._trusted else (), host)
        trace = _continued_trace(head.forwarded) or new_trace
        if self._trusted:
            kept = [field for field in head.forwarded if field[0] in FROM_TRUSTED_PROXIES]
            lines = b"%b%b" % (lines, written(kept))
            request_id = _single(head.forwarded, b"x-request-id", _REQUEST_ID) or request_id
        return b"%bX-Request-Id: %b\r\n%b" % (lines, request_id, trace), request_id

    def _merged_lines(self, received: Sequence[Field], host: bytes | None) -> bytes:
        """Return the lines in the configured form; `received`: the fields of a trusted proxy."""
        form = self._forwarding.form
        return b"".join(
            (
                b"" if form is ForwardedForm.RFC7239 else self._x_forwarded(received, host),
                b"" if form is ForwardedForm.X else self._forwarded(received, host),
            )
        )

    def _x_forwarded(self, received: Sequence[Field], host: bytes | None) -> bytes:
        addresses = [value for name, value in received if name == b"x-forwarded-for" and value]
        proto = _single(received, b"x-forwarded-proto", _PROTO) or self._proto
        received_host = _single(received, b"x-forwarded-host", _ANY)
        try:
            original_host = checked_host(received_host) if received_host else host
        except MalformedMessage:
            original_host = host
        return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n%b" % (
            b", ".join([*addresses, self._address]),
            proto,
            b"X-Forwarded-Host: %b\r\n" % original_host if original_host is not None else b"",
        )

    def _forwarded(self, received: Sequence[Field], host: bytes | None) -> bytes:
        elements = [value for name, value in received if name == b"forwarded"]
        if not all(_FORWARDED.fullmatch(value) for value in elements):
            elements = []  # an unclosed quote would include the element that is appended
        node = b'"[%b]"' % self._address if b":" in self._address else self._address
        own = b"for=%b;proto=%b" % (node, self._proto)
        if host is not None:
            own = b'%b;host="%b"' % (own, host)
        return b"Forwarded: %b\r\n" % b", ".join([*elements, own])


def _single(fields: Sequence[Field], name: bytes, form: re.Pattern[bytes]) -> bytes:
    """Return the value of the field `name` if there is exactly one and it matches, else b""."""
    values = [value for other, value in fields if other == name]
    return values[0] if len(values) == 1 and form.fullmatch(values[0]) else b""


def _continued_trace(fields: Sequence[Field]) -> bytes:
    """Return the lines that continue a trace (W3C Trace Context), b"" if there is none."""
    parent = _single(fields, b"traceparent", _TRACEPARENT)
    if not parent:
        return b""
    states = [b"tracestate: %b\r\n" % value for name, value in fields if name == b"tracestate"]
    return b"traceparent: %b\r\n%b" % (parent, b"".join(states))
