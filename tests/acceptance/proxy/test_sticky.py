"""Visitors who come back to the backend they were at, as long as it is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.http_rig import Connection
from support.publishers import GET, Proxy, Site, says, site
from support.relays import Relays

FLAGS = ("-choose", "static", "-sticky", "seat")


@pytest.fixture
def web() -> Iterator[Site]:
    with site() as made:
        yield made


def with_cookie(cookie: str) -> bytes:
    return GET.replace(b"\r\n\r\n", f"\r\nCookie: other=1; {cookie}\r\n\r\n".encode())


def visit(proxy: Proxy, cookie: str = "") -> tuple[str, str]:
    """Return who answered, and the cookie to come back with."""
    response, body = proxy.exchange(with_cookie(cookie) if cookie else GET)
    assert response.status == 200
    given = response.headers.get("Set-Cookie", "")
    return body.decode(), given.partition(";")[0] or cookie


def test_a_visitor_stays_until_the_backend_is_lost(web: Site) -> None:
    ends = {name: web.backend(says(name)) for name in ("one", "two", "three")}
    backends = [word for end in ends.values() for word in ("-backend", end.address)]
    proxy = web.proxy(*FLAGS, *backends)
    here, cookie = visit(proxy)
    assert cookie.startswith("seat=")
    assert ends[here].address not in cookie
    for _ in range(20):
        assert visit(proxy, cookie) == (here, cookie)
    ends[here].end()
    there, another = visit(proxy, cookie)
    assert there != here
    assert another != cookie
    for _ in range(20):
        assert visit(proxy, another) == (there, another)


@pytest.mark.parametrize("cookie", ["seat=127.0.0.1:1", "seat=", "seat=AAAA", "seat=" + "A" * 5000])
def test_what_the_proxy_did_not_write_is_ignored(web: Site, cookie: str) -> None:
    proxy = web.proxy(*FLAGS, "-backend", web.backend(says("one")).address)
    body, given = visit(proxy, cookie)
    assert body == "one"
    assert given != cookie


def test_a_web_socket_is_come_back_to(web: Site) -> None:
    def switches(connection: Connection) -> None:
        connection.head()
        lines = b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\n" + lines)
        connection.rest()

    proxy = web.proxy(*FLAGS, "-backend", web.backend(switches).address)
    ask = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"

    def opening(cookie: bytes = b"") -> bytes:
        connection = proxy.connect()
        connection.send(ask + cookie + b"\r\n")
        head = connection.head()
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
def test_no_cache_hands_ones_cookie_to_others(web: Site, said: str | None, kept: str) -> None:
    status = f"200 OK\r\ncache-control: {said}" if said else "200 OK"
    proxy = web.proxy(*FLAGS, "-backend", web.backend(says("one", status)).address)
    first, _ = proxy.exchange()
    assert first.getheader("Cache-Control") == kept
    cookie = first.headers["Set-Cookie"].partition(";")[0]
    second, _ = proxy.exchange(with_cookie(cookie))
    assert second.getheader("Cache-Control") == said


def test_members_that_publish_are_come_back_to(web: Site, relays: Relays) -> None:
    relay = relays.start()
    for name in ("one", "two"):
        web.publish(relay, says(name))
    proxy = web.proxy("-cluster", "web", "-port", str(relay.port), "-sticky", "seat")
    here, cookie = visit(proxy)
    assert {visit(proxy, cookie) for _ in range(20)} == {(here, cookie)}
    assert len({visit(proxy)[0] for _ in range(40)}) == 2
