"""Parse a request of the ZeroMQ Authentication Protocol 1.0 (RFC 27) and build the reply.

    request   envelope…, "", version, request id, domain, address, identity, mechanism, credentials
    reply     envelope…, "", version, request id, status, status text, user id, metadata

libzmq has already verified the CURVE key in the request. The `decide` function decides whether the
key is admitted.
"""

from __future__ import annotations

from collections.abc import Callable

VERSION = b"1.0"
_MAX_TEXT_BYTES = 255  # of a request id, a domain and an address, by the RFC
_CURVE_KEY_BYTES = 32

Decide = Callable[[str, bytes, str], str | None]
"""(domain, CURVE key, IP address) → name of the admitted connection, or None to reject it."""


def answer(frames: list[bytes], decide: Decide) -> list[bytes] | None:
    """Return the reply to the frames a ROUTER received; None if no reply can be addressed.

    The user id of an admitted connection is its CURVE key in hex; libzmq attaches it to every
    message. The frames may contain any bytes. An exception from `decide` is passed on, and the
    connection is not admitted.
    """
    try:
        start = frames.index(b"") + 1
    except ValueError:
        return None
    envelope, request = frames[:start], frames[start:]
    if start == 1 or len(request) < 2 or len(request[1]) > _MAX_TEXT_BYTES:
        return None
    status, text, user = _verdict(request, decide)
    return [*envelope, VERSION, request[1], status, text, user, b""]


def _verdict(request: list[bytes], decide: Decide) -> tuple[bytes, bytes, bytes]:
    if request[0] != VERSION:
        return b"500", b"unsupported version of ZAP", b""
    if len(request) < 6 or max(len(request[2]), len(request[3])) > _MAX_TEXT_BYTES:
        return b"500", b"malformed request", b""
    _, _, domain, address, _, mechanism, *credentials = request
    if mechanism != b"CURVE":
        return b"400", b"only CURVE is supported", b""
    if len(credentials) != 1 or len(credentials[0]) != _CURVE_KEY_BYTES:
        return b"500", b"malformed credentials", b""
    key = credentials[0]
    # Fail closed: anything but a string is a rejection, also the result of a faulty `decide`.
    if not isinstance(decide(_text(domain), key, _text(address)), str):
        return b"400", b"not admitted", b""
    return b"200", b"OK", key.hex().encode()


def _text(data: bytes) -> str:
    return data.decode("ascii", "backslashreplace")
