"""The proxy's own responses: one sentence, as text, JSON or HTML by the Accept field.

It says what kind of fault it is, and not which backend failed: the client may be anyone. The log
has the reason, with the request id that is on the page.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus

from arke.program.printable import printable
from arke_proxy.errors import ProxyError
from arke_proxy.http.date import http_date
from arke_proxy.http.header_fields import Field

_RETRY_AFTER = 1  # seconds; members join and leave within less
_TEXT = "text/plain"
_JSON = "application/json"
_HTML = "text/html"
_FORMS = (_TEXT, _JSON, _HTML)  # in the order of preference when Accept gives them equal quality
_MAX_ACCEPT = 1000  # bytes of an Accept field that are parsed

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{status} {phrase}</title>
<h1>{status} {phrase}</h1>
<p>{sentence}
"""


class ErrorPages:
    """Writes the responses. `detailed`: they say which backend failed and why, as the log does."""

    def __init__(self, *, detailed: bool) -> None:
        self._detailed = detailed

    def response(
        self,
        error: ProxyError,
        now: float,
        connection: bytes,
        *,
        with_body: bool,
        accept: bytes = b"",
        request_id: bytes = b"",
    ) -> bytes:
        """Write an HTTP/1.1 response for an error.

        `now`: seconds since 1970; `connection`: the Connection line, if any; `with_body`: False for
        HEAD; `request_id`: empty for a request that was not read completely.
        """
        fields, body = self.message(error, now, accept, request_id)
        status = HTTPStatus(error.status)
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
        lines = b"".join([b"%b: %b\r\n" % field for field in fields])
        return b"".join((head, lines, connection, b"\r\n", body if with_body else b""))

    def message(
        self, error: ProxyError, now: float, accept: bytes = b"", request_id: bytes = b""
    ) -> tuple[list[Field], bytes]:
        """Return the fields and the body of the response for an error.

        `Server-Timing: arke` contains the failure code. A backend could send that field too, for
        instance another Arke proxy; but forwarded responses have `Via`, and own responses do not.
        """
        form = preferred_form(accept[:_MAX_ACCEPT])
        body = self._body(error, form, request_id.decode("latin-1"))
        fields = [
            (b"Date", http_date(now)),
            (b"Server", b"arke"),
            (b"Server-Timing", f'arke;desc="{error.code}"'.encode()),
            (
                b"Content-Type",
                f"{form}; charset=utf-8".encode() if form != _JSON else form.encode(),
            ),
            (b"Content-Length", b"%d" % len(body)),
            (b"Cache-Control", b"no-store"),
            (b"X-Content-Type-Options", b"nosniff"),  # the sentence may quote the request
        ]
        if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
            fields.append((b"Retry-After", b"%d" % _RETRY_AFTER))
        return fields, body

    def _body(self, error: ProxyError, form: str, request_id: str) -> bytes:
        status = HTTPStatus(error.status)
        # It may quote the request, a member or a backend.
        detail = printable(str(error) if self._detailed else error.page_text)
        if form == _JSON:
            fields = {"status": status.value, "error": error.code, "detail": detail}
            if request_id:
                fields["request_id"] = request_id
            return json.dumps(fields).encode() + b"\n"
        if request_id and not self._detailed:
            detail = f"{detail} Request id: {request_id}"
        if form == _HTML:
            sentence = html.escape(detail)
            page = _PAGE.format(status=status.value, phrase=status.phrase, sentence=sentence)
            return page.encode(errors="replace")
        return f"{detail}\n".encode(errors="replace")


def accept_of(fields: Iterable[Field]) -> bytes:
    """Return the request's Accept value; several fields are joined."""
    return b",".join([value for name, value in fields if name.lower() == b"accept"])


@lru_cache(maxsize=256)
def preferred_form(accept: bytes) -> str:
    """Choose text, JSON or HTML by an Accept field (RFC 9110, 12.5.1); text by default."""
    ranges = dict(_parse_range(part) for part in accept.decode("latin-1").lower().split(","))

    def quality(form: str) -> float:
        kind = form.partition("/")[0]
        for pattern in (form, f"{kind}/*", "*/*"):
            if pattern in ranges:
                return ranges[pattern]
        return 0.0

    return max(_FORMS, key=quality)


def _parse_range(part: str) -> tuple[str, float]:
    """Return the media range and its quality."""
    name, *parameters = [word.strip() for word in part.split(";")]
    quality = 1.0
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                quality = float(parameter[2:])
            except ValueError:
                quality = 0.0
    return name, quality if 0.0 <= quality <= 1.0 else 0.0
