"""What a backend learns about where a request comes from, and by which names it is traced."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from arke_proxy.errors import MalformedMessage
from arke_proxy.http.header_fields import Field
from arke_proxy.http.messages import RequestHead
from arke_proxy.http.request_target import checked_host

Network = IPv4Network | IPv6Network

_ANY: Final = re.compile(rb".+")
_PROTO: Final = re.compile(rb"https?")
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
# Version 00 ends after the flags; a later one may go on after a further hyphen; ff is none.
_TRACEPARENT: Final = re.compile(
    rb"(?!ff|00.{53}-)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    rb"(?:-[!-~]*)?"
)
# As sampled: a backend that is told "not sampled" would record nothing.
_BEGUN: Final = b"traceparent: 00-%b-%b-01\r\n"
_NAMES: Final = 256  # drawn at once
_TRACE: Final = 32  # digits of a trace's name
_SPAN: Final = 16  # and of a span's
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR: Final = rb'%b=(?:%b|"(?:[\t !#-\[\]-~]|\\[\t -~])*")' % (_TOKEN, _TOKEN)
_ELEMENT: Final = rb"%b(?:;%b)*" % (_PAIR, _PAIR)
_FORWARDED: Final = re.compile(rb"%b(?:[ \t]*,[ \t]*%b)*" % (_ELEMENT, _ELEMENT))


class Form(Enum):
    """How a client's address is told."""

    X = "x"  # X-Forwarded-For, -Proto and -Host
    RFC7239 = "rfc7239"  # Forwarded
    BOTH = "both"


class Forwarding:
    """Made once, from what the operator says: who is believed, and in which form to speak."""

    def __init__(
        self, trusted: Sequence[Network], form: Form, randbytes: Callable[[int], bytes]
    ) -> None:
        self._trusted = trusted
        self.form = form
        self.only_x = form is Form.X
        self._randbytes = randbytes  # need not be secret: what is drawn only has to differ
        self._digits = b""  # of names that nobody has yet
        self._at = 0

    def name(self) -> bytes:
        """Draw a name for a trace and its first span: 48 hexadecimal digits."""
        at = self._at
        if at == len(self._digits):
            self._digits = self._randbytes(_NAMES * (_TRACE + _SPAN) // 2).hex().encode()
            at = 0
        self._at = at + _TRACE + _SPAN
        return self._digits[at : self._at]

    def origin(self, peer: str, *, tls: bool) -> ClientOrigin:
        """Make what is constant for the connection of a client at this address, "" if unknown."""
        if not peer:
            return ClientOrigin(self, b"unknown", trusted=False, tls=tls)
        plain = peer.removeprefix("::ffff:").partition("%")[0]  # IPv4 on an IPv6 socket; the zone
        trusted = bool(self._trusted) and any(ip_address(plain) in net for net in self._trusted)
        return ClientOrigin(self, plain.encode(), trusted=trusted, tls=tls)


class ClientOrigin:
    """One client's connection, as backends learn of it."""

    __slots__ = ("_address", "_forwarding", "_lines", "_proto", "_trusted", "tls")

    def __init__(self, forwarding: Forwarding, address: bytes, *, trusted: bool, tls: bool) -> None:
        self._forwarding = forwarding
        self._address = address
        self._trusted = trusted
        self.tls = tls  # the client came over it
        self._proto = b"https" if tls else b"http"
        self._lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (address, self._proto)

    def forwarded_lines(self, head: RequestHead) -> tuple[bytes, bytes]:
        """Say about a request where it comes from; of what it says itself, what is believed.

        Returns the lines, for each attempt the same, and the request's id. What is begun here, the
        id and the trace, has one name.
        """
        forwarding = self._forwarding
        host = head.host
        name = forwarding.name()
        request_id = name[:_TRACE]
        span = name[_TRACE:]
        if host and not head.forwarded and forwarding.only_x:  # nearly always
            parts = (
                self._lines,
                b"X-Forwarded-Host: ",
                host,
                b"\r\nX-Request-Id: ",
                request_id,
                b"\r\ntraceparent: 00-",
                request_id,
                b"-",
                span,
                b"-01\r\n",
            )
            return b"".join(parts), request_id
        if forwarding.only_x and not (head.forwarded and self._trusted):
            lines = self._lines
            if host is not None:
                lines = b"%bX-Forwarded-Host: %b\r\n" % (lines, host)
        else:
            lines = self._from_trusted(head.forwarded if self._trusted else (), host)
        trace = _trace(head.forwarded) or _BEGUN % (request_id, span)
        if self._trusted:
            request_id = _only(head.forwarded, b"x-request-id", _REQUEST_ID) or request_id
        return b"%bX-Request-Id: %b\r\n%b" % (lines, request_id, trace), request_id

    def _from_trusted(self, said: Sequence[Field], host: bytes | None) -> bytes:
        form = self._forwarding.form
        return b"".join(
            (
                b"" if form is Form.RFC7239 else self._x_forwarded(said, host),
                b"" if form is Form.X else self._forwarded(said, host),
            )
        )

    def _x_forwarded(self, said: Sequence[Field], host: bytes | None) -> bytes:
        way = [value for name, value in said if name == b"x-forwarded-for" and value]
        proto = _only(said, b"x-forwarded-proto", _PROTO) or self._proto
        named = _only(said, b"x-forwarded-host", _ANY)
        try:
            first = checked_host(named) if named else host
        except MalformedMessage:
            first = host
        return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n%b" % (
            b", ".join([*way, self._address]),
            proto,
            b"X-Forwarded-Host: %b\r\n" % first if first is not None else b"",
        )

    def _forwarded(self, said: Sequence[Field], host: bytes | None) -> bytes:
        way = [value for name, value in said if name == b"forwarded"]
        if not all(_FORWARDED.fullmatch(value) for value in way):
            way = []  # an open quote would swallow what is appended
        node = b'"[%b]"' % self._address if b":" in self._address else self._address
        here = b"for=%b;proto=%b" % (node, self._proto)
        if host is not None:
            here = b'%b;host="%b"' % (here, host)
        return b"Forwarded: %b\r\n" % b", ".join([*way, here])


def _only(said: Sequence[Field], name: bytes, form: re.Pattern[bytes]) -> bytes:
    """Return the value of the one field of this name that has this form, else b""."""
    values = [value for other, value in said if other == name]
    return values[0] if len(values) == 1 and form.fullmatch(values[0]) else b""


def _trace(said: Sequence[Field]) -> bytes:
    """Return the lines that go on with a trace (W3C Trace Context), b"" if there is none."""
    parent = _only(said, b"traceparent", _TRACEPARENT)
    if not parent:
        return b""
    states = [b"tracestate: %b\r\n" % value for name, value in said if name == b"tracestate"]
    return b"traceparent: %b\r\n%b" % (parent, b"".join(states))
