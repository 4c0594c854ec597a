"""The proxy's own responses: an honest sentence each."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus

from arke_proxy.errors import ProxyError

_RETRY_AFTER = 1  # seconds; members come and go in less


def own_response(error: ProxyError, now: float, connection: bytes, *, with_body: bool) -> bytes:
    """Write the whole response that tells a client what went wrong.

    `now` is in seconds since 1970; `connection` is the line that says whether the connection stays
    open. The response to HEAD goes without its body.
    """
    body = f"{error}\n".encode()
    status = HTTPStatus(error.status)
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Date: {formatdate(now, usegmt=True)}",
        "Server: arke",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
    ]
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        lines.append(f"Retry-After: {_RETRY_AFTER}")
    head = "".join(f"{line}\r\n" for line in lines).encode()
    return b"".join((head, connection, b"\r\n", body if with_body else b""))
