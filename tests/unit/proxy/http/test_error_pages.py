from __future__ import annotations

import json

import pytest

from arke_proxy.errors import (
    BackendFailed,
    BackendsUnreachable,
    BackendTimeout,
    BadClusterReply,
    BadRequest,
    BadResponse,
    ClusterQueryFailed,
    NoBackend,
    NoRoute,
    ProxyError,
    TooManyConnections,
)
from arke_proxy.http.error_pages import ErrorPages, accept_of, preferred_form

PAGES = ErrorPages(detailed=True)
BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (b"", "text/plain"),
        (b"*/*", "text/plain"),
        (BROWSER, "text/html"),
        (b"application/json", "application/json"),
        (b"Application/JSON; charset=utf-8", "application/json"),
        (b"text/html;q=0.5, application/json;q=0.6", "application/json"),
        (b"text/*", "text/plain"),
        (b"text/plain;q=0, text/*", "text/html"),
        (b"application/*", "application/json"),
        (b"image/png", "text/plain"),
        (b"text/html;q=nan, application/json;q=7", "text/plain"),
        (b";;;,,q=,\xff=\x00", "text/plain"),
    ],
)
def test_accept_selects_text_json_or_html(accept: bytes, form: str) -> None:
    assert preferred_form(accept) == form


def test_html_page_escapes_request_content() -> None:
    error = BadRequest('The request is rejected: <script>alert("x")</script>.')
    fields, body = PAGES.message(error, 0.0, BROWSER)
    assert b"<script>" not in body
    assert b"&lt;script&gt;" in body
    assert dict(fields)[b"Content-Type"] == b"text/html; charset=utf-8"
    assert dict(fields)[b"X-Content-Type-Options"] == b"nosniff"


@pytest.mark.parametrize("accept", [b"text/plain", b"application/json", b"text/html"])
def test_control_characters_of_a_member_do_not_reach_the_page(accept: bytes) -> None:
    error = ClusterQueryFailed("Cluster web: \x1b[31mred\r\nSet-Cookie: a=b\x00.")
    _, body = PAGES.message(error, 0.0, accept)
    assert not set(body) & {0x00, 0x0D, 0x1B}
    assert b"[31mred??Set-Cookie" in body


def test_json_body_has_failure_code_and_detail() -> None:
    fields, body = PAGES.message(NoBackend("Cluster web has no members."), 0.0, b"application/json")
    assert json.loads(body) == {
        "status": 503,
        "error": "no_backend",
        "detail": "Cluster web has no members.",
    }
    assert dict(fields)[b"Retry-After"] == b"1"
    assert dict(fields)[b"Content-Length"] == b"%d" % len(body)


def test_own_response_has_server_timing_with_failure_code() -> None:
    head = PAGES.response(NoRoute("No such path."), 0.0, b"Connection: close\r\n", with_body=False)
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b'\r\nServer-Timing: arke;desc="no_route"\r\n' in head
    assert head.endswith(b"Connection: close\r\n\r\n")
    assert b"Content-Length: 14\r\n" in head


def test_accept_fields_are_joined_in_any_case() -> None:
    assert accept_of([(b"ACCEPT", b"a/b"), (b"X", b"y"), (b"accept", b"c/d")]) == b"a/b,c/d"


FAULTS = [
    NoBackend("Cluster secret has no members."),
    ClusterQueryFailed("Cluster secret did not name a backend: no answer within 1 s."),
    BadClusterReply("Cluster secret answered with b'10.0.0.7'."),
    BackendsUnreachable("No backend answered: 10.0.0.7:80 refused the connection."),
    BackendFailed("Backend 10.0.0.7:80 closed the connection."),
    BadResponse("The response of backend 10.0.0.7:80 is rejected."),
    BackendTimeout("Backend 10.0.0.7:80 did not answer within 2 s."),
    TooManyConnections("The proxy has 24 connections to 10.0.0.7:80."),
]


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("accept", [b"text/plain", b"application/json", b"text/html"])
def test_page_has_the_request_id_and_names_no_backend(error: ProxyError, accept: bytes) -> None:
    _, body = ErrorPages(detailed=False).message(error, 0.0, accept, b"id-7")
    assert b"id-7" in body
    assert b"10.0.0.7" not in body
    assert b"secret" not in body


def test_page_about_the_request_itself_says_what_is_wrong() -> None:
    error = BadRequest("The request is rejected: two Host fields.")
    _, body = ErrorPages(detailed=False).message(error, 0.0)
    assert body == b"The request is rejected: two Host fields.\n"
