"""A proxy that watches its cluster: members publish where they serve, and nobody is asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.admin_pages import fetch
from support.publishers import Proxy, Site, says, site
from support.relays import LIMIT, Relay, Relays, eventually, free_port


@pytest.fixture
def web() -> Iterator[Site]:
    with site() as made:
        yield made


NOBODY = b"Cluster web has no backend: none of its members publishes http=IP:PORT.\n"


def watching(web: Site, relay: Relay, *flags: str) -> Proxy:
    return web.proxy("-cluster", "web", "-port", str(relay.port), *flags)


def test_published_addresses_are_used_and_nobody_is_asked(web: Site, relays: Relays) -> None:
    relay = relays.start()
    _, one = web.publish(relay, says("one"))
    _, two = web.publish(relay, says("two"))
    proxy = watching(web, relay)
    assert proxy.bodies() == {"one", "two"}
    assert one.asked == two.asked == 0


def test_who_joins_is_used_and_who_leaves_is_not(web: Site, relays: Relays) -> None:
    near, far = relays.pair()
    _, one = web.publish(near, says("one"))
    proxy = watching(web, near)
    assert proxy.bodies() == {"one"}
    there = web.backend(says("two"), host=far.address)
    web.member(far, http=there.address)
    eventually(lambda: proxy.bodies() == {"one", "two"})
    web.leave(one)
    eventually(lambda: proxy.bodies() == {"two"})


def test_the_cluster_is_asked_until_a_member_publishes(web: Site, relays: Relays) -> None:
    relay = relays.start()
    asked = web.backend(says("asked"))
    member = web.member(relay)
    member.answers = [asked.address]
    proxy = watching(web, relay)
    assert proxy.bodies(3) == {"asked"}
    _, publisher = web.publish(relay, says("watched"))
    publisher.answers = [asked.address]
    eventually(lambda: proxy.bodies() == {"watched"})
    web.leave(publisher)
    eventually(lambda: proxy.bodies(3) == {"asked"})


def test_a_proxy_that_only_watches_does_not_ask(web: Site, relays: Relays) -> None:
    relay = relays.start()
    member = web.member(relay)
    proxy = watching(web, relay, "-choose", "watch")
    response, body = proxy.exchange()
    assert (response.status, body) == (503, NOBODY)
    assert member.asked == 0
    web.leave(member)
    eventually(lambda: proxy.exchange()[1] == b"Cluster web has no members.\n")


def test_a_proxy_that_only_asks_does_not_watch(web: Site, relays: Relays) -> None:
    relay = relays.start()
    asked = web.backend(says("asked"))
    _, member = web.publish(relay, says("watched"))
    member.answers = [asked.address]
    assert watching(web, relay, "-choose", "ask").bodies(3) == {"asked"}


def test_who_was_known_stays_known_while_the_relay_is_away(web: Site, relays: Relays) -> None:
    relay = relays.start()
    web.publish(relay, says("one"))
    admin = free_port()
    proxy = watching(web, relay, "-admin", f"127.0.0.1:{admin}")
    assert proxy.bodies(3) == {"one"}
    relay.process.terminate()
    relay.process.wait(LIMIT)
    assert proxy.bodies() == {"one"}
    assert fetch(admin, "/-/readyz")[0].status == 200
    relay = relays.start(port=relay.port)
    web.publish(relay, says("two"))
    eventually(lambda: proxy.bodies() == {"one", "two"})


def test_a_missing_ip_is_that_of_the_member_s_node(web: Site, relays: Relays) -> None:
    near, far = relays.pair()
    backend = web.backend(says("there"), host=far.address)
    port = backend.address.rpartition(":")[2]
    web.member(far, http=f":{port}")
    proxy = watching(web, near)
    eventually(lambda: proxy.body() == "there")


def test_what_cannot_be_read_is_complained_about_and_left_out(web: Site, relays: Relays) -> None:
    relay = relays.start()
    web.publish(relay, says("one"))
    web.member(relay, http="example.com:80")
    proxy = watching(web, relay)
    line = "of cluster web is ignored: it publishes http='example.com:80', which is not IP:PORT"
    proxy.process.wait_for_line(line, LIMIT)
    assert proxy.bodies() == {"one"}


def test_loopback_of_another_node_is_left_out(web: Site, relays: Relays) -> None:
    near, far = relays.pair()
    web.publish(near, says("one"))
    web.publish(far, says("another machine's, or this one's"))
    proxy = watching(web, near)
    proxy.process.wait_for_line("which only its own machine can connect to", LIMIT)
    assert proxy.bodies() == {"one"}


# Several clusters.


def test_each_route_has_its_cluster(web: Site, relays: Relays) -> None:
    relay = relays.start()
    for cluster in ("shop", "api", "rest"):
        web.publish(relay, says(cluster), cluster)
    routes = ("-route", "shop.example=shop", "-route", "/api=api")
    proxy = watching(web, relay, *routes, "-cluster", "rest")
    for host, path, cluster in (
        ("Shop.example:80", "/", "shop"),
        ("other", "/api/x", "api"),
        ("other", "/", "rest"),
    ):
        assert proxy.body(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) == cluster


def test_a_default_cluster_is_not_needed(web: Site, relays: Relays) -> None:
    relay = relays.start()
    web.publish(relay, says("api"), "api")
    proxy = web.proxy("-port", str(relay.port), "-route", "*/api=api")
    assert proxy.body(b"GET /api HTTP/1.1\r\nHost: example\r\n\r\n") == "api"
