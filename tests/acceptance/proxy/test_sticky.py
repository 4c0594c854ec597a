"""Sticky sessions: clients return to the same backend while it is usable."""

from __future__ import annotations

import pytest

from support.backends import GET, respond_with
from support.connection import Connection
from support.deployment import Deployment, Proxy
from support.relays import Relays

FLAGS = ("-choose", "static", "-sticky", "seat")


def with_cookie(cookie: str) -> bytes:
    return GET.replace(b"\r\n\r\n", f"\r\nCookie: other=1; {cookie}\r\n\r\n".encode())


def get_in_a_loop(proxy: Proxy, cookie: str = "") -> tuple[str, str]:
    """Return which backend answered, and the sticky cookie."""
    response, body = proxy.request(with_cookie(cookie) if cookie else GET)
    assert response.status == 200
    given = response.headers.get("Set-Cookie", "")
    return body.decode(), given.partition(";")[0] or cookie


def test_client_keeps_sticky_backend_until_it_fails(deployment: Deployment) -> None:
    ends = {name: deployment.backend(respond_with(name)) for name in ("one", "two", "three")}
    backends = [word for end in ends.values() for word in ("-backend", end.address)]
    proxy = deployment.proxy(*FLAGS, *backends)
    here, cookie = get_in_a_loop(proxy)
    assert cookie.startswith("seat=")
    assert ends[here].address not in cookie
    for _ in range(20):
        assert get_in_a_loop(proxy, cookie) == (here, cookie)
    ends[here].stop()
    there, another = get_in_a_loop(proxy, cookie)
    assert there != here
    assert another != cookie
    for _ in range(20):
        assert get_in_a_loop(proxy, another) == (there, another)


@pytest.mark.parametrize("cookie", ["seat=127.0.0.1:1", "seat=", "seat=AAAA", "seat=" + "A" * 5000])
def test_forged_sticky_cookie_is_ignored(deployment: Deployment, cookie: str) -> None:
    proxy = deployment.proxy(*FLAGS, "-backend", deployment.backend(respond_with("one")).address)
    body, given = get_in_a_loop(proxy, cookie)
    assert body == "one"
    assert given != cookie


def test_sticky_cookie_on_websocket(deployment: Deployment) -> None:
    def switches(connection: Connection) -> None:
        connection.read_head()
        lines = b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\n" + lines)
        connection.read_to_end()

    proxy = deployment.proxy(*FLAGS, "-backend", deployment.backend(switches).address)
    ask = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"

    def opening(cookie: bytes = b"") -> bytes:
        connection = proxy.connect()
        connection.send(ask + cookie + b"\r\n")
        head = connection.read_head()
        connection.close()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"Cache-Control" not in head
        return head

    _, given = opening().split(b"\r\nSet-Cookie: seat=")
    value = given.partition(b";")[0]
    assert b"Set-Cookie" not in opening(b"Cookie: seat=" + value + b"\r\n")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (None, "private"),
        ("public, max-age=60", "public, max-age=60, private"),
        ('private="X"', 'private="X", private'),
        ("max-age=60, Private", "max-age=60, Private"),
        ("no-store", "no-store"),
    ],
)
def test_response_with_sticky_cookie_is_not_cacheable(
    deployment: Deployment, said: str | None, kept: str
) -> None:
    status = f"200 OK\r\ncache-control: {said}" if said else "200 OK"
    proxy = deployment.proxy(
        *FLAGS, "-backend", deployment.backend(respond_with("one", status)).address
    )
    first, _ = proxy.request()
    assert first.getheader("Cache-Control") == kept
    cookie = first.headers["Set-Cookie"].partition(";")[0]
    second, _ = proxy.request(with_cookie(cookie))
    assert second.getheader("Cache-Control") == said


def test_sticky_cookie_with_published_addresses(deployment: Deployment, relays: Relays) -> None:
    relay = relays.start()
    for name in ("one", "two"):
        deployment.publish(relay, respond_with(name))
    proxy = deployment.proxy("-cluster", "web", "-port", str(relay.port), "-sticky", "seat")
    here, cookie = get_in_a_loop(proxy)
    assert {get_in_a_loop(proxy, cookie) for _ in range(20)} == {(here, cookie)}
    assert len({get_in_a_loop(proxy)[0] for _ in range(40)}) == 2
