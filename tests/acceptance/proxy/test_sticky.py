"""Sticky sessions: clients return to the same backend while it is usable."""

from __future__ import annotations

import pytest

from support.backend_scripts import UPGRADE_REQUEST, UPGRADE_RESPONSE
from support.backends import GET, respond_with
from support.connection import Connection
from support.deployment import Deployment, Proxy
from support.relays import Relays

FLAGS = ("-choose", "static", "-sticky", "backend")


def with_cookie(cookie: str) -> bytes:
    return GET.replace(b"\r\n\r\n", f"\r\nCookie: other=1; {cookie}\r\n\r\n".encode())


def get_with_cookie(proxy: Proxy, cookie: str = "") -> tuple[str, str]:
    """Send a GET; return the name of the backend, and the sticky cookie after the response."""
    response, body = proxy.request(with_cookie(cookie) if cookie else GET)
    assert response.status == 200
    set_cookie = response.headers.get("Set-Cookie", "")
    return body.decode(), set_cookie.partition(";")[0] or cookie


def test_client_keeps_sticky_backend_until_it_fails(deployment: Deployment) -> None:
    backends = {name: deployment.backend(respond_with(name)) for name in ("one", "two", "three")}
    addresses = [flag for backend in backends.values() for flag in ("-backend", backend.address)]
    proxy = deployment.proxy(*FLAGS, *addresses)
    first, cookie = get_with_cookie(proxy)
    assert cookie.startswith("backend=")
    assert backends[first].address not in cookie
    for _ in range(20):
        assert get_with_cookie(proxy, cookie) == (first, cookie)
    backends[first].stop()
    second, new_cookie = get_with_cookie(proxy, cookie)
    assert second != first
    assert new_cookie != cookie
    for _ in range(20):
        assert get_with_cookie(proxy, new_cookie) == (second, new_cookie)


@pytest.mark.parametrize(
    "cookie", ["backend=127.0.0.1:1", "backend=", "backend=AAAA", "backend=" + "A" * 5000]
)
def test_forged_sticky_cookie_is_ignored(deployment: Deployment, cookie: str) -> None:
    proxy = deployment.proxy(*FLAGS, "-backend", deployment.backend(respond_with("one")).address)
    body, new_cookie = get_with_cookie(proxy, cookie)
    assert body == "one"
    assert new_cookie != cookie


def test_sticky_cookie_on_websocket(deployment: Deployment) -> None:
    def upgrade_to_websocket(connection: Connection) -> None:
        connection.read_head()
        connection.send(UPGRADE_RESPONSE)
        connection.read_to_end()

    proxy = deployment.proxy(*FLAGS, "-backend", deployment.backend(upgrade_to_websocket).address)

    def open_websocket(cookie: bytes = b"") -> bytes:
        """Open a WebSocket and close it; return the response's head."""
        connection = proxy.connect()
        connection.send(UPGRADE_REQUEST[:-2] + cookie + b"\r\n")
        head = connection.read_head()
        connection.close()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Cache-Control" not in head
        return head

    _, set_cookie = open_websocket().split(b"\r\nSet-Cookie: backend=")
    value = set_cookie.partition(b";")[0]
    assert b"Set-Cookie" not in open_websocket(b"Cookie: backend=" + value + b"\r\n")


@pytest.mark.parametrize(
    ("cache_control", "expected"),
    [
        (None, "private"),
        ("public, max-age=60", "public, max-age=60, private"),
        ('private="X"', 'private="X", private'),
        ("max-age=60, Private", "max-age=60, Private"),
        ("no-store", "no-store"),
    ],
)
def test_response_with_sticky_cookie_is_not_cacheable(
    deployment: Deployment, cache_control: str | None, expected: str
) -> None:
    status = f"200 OK\r\ncache-control: {cache_control}" if cache_control else "200 OK"
    proxy = deployment.proxy(
        *FLAGS, "-backend", deployment.backend(respond_with("one", status)).address
    )
    first, _ = proxy.request()
    assert first.getheader("Cache-Control") == expected
    cookie = first.headers["Set-Cookie"].partition(";")[0]
    second, _ = proxy.request(with_cookie(cookie))
    assert second.getheader("Cache-Control") == cache_control


def test_sticky_cookie_with_published_addresses(deployment: Deployment, relays: Relays) -> None:
    relay = relays.start()
    for name in ("one", "two"):
        deployment.publish(relay, respond_with(name))
    proxy = deployment.proxy("-cluster", "web", "-port", str(relay.port), "-sticky", "backend")
    first, cookie = get_with_cookie(proxy)
    assert {get_with_cookie(proxy, cookie) for _ in range(20)} == {(first, cookie)}
    assert len({get_with_cookie(proxy)[0] for _ in range(40)}) == 2
