"""Visitors who come back to the back end they were at, as long as it is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from publishers import GET, Proxy, Site, says, site

from relays import Relays

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


def test_a_visitor_stays_until_the_back_end_is_lost(web: Site) -> None:
    ends = {name: web.back_end(says(name)) for name in ("one", "two", "three")}
    back_ends = [word for end in ends.values() for word in ("-backend", end.address)]
    proxy = web.proxy(*FLAGS, *back_ends)
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
    proxy = web.proxy(*FLAGS, "-backend", web.back_end(says("one")).address)
    body, given = visit(proxy, cookie)
    assert body == "one"
    assert given != cookie


def test_members_that_publish_are_come_back_to(web: Site, relays: Relays) -> None:
    relay = relays.start()
    for name in ("one", "two"):
        web.publish(relay, says(name))
    proxy = web.proxy("-cluster", "web", "-port", str(relay.port), "-sticky", "seat")
    here, cookie = visit(proxy)
    assert {visit(proxy, cookie) for _ in range(20)} == {(here, cookie)}
    assert len({visit(proxy)[0] for _ in range(40)}) == 2
