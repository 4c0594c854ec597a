"""A proxy that watches its cluster: members publish where they serve, and nobody is asked."""

from __future__ import annotations

from support.admin_pages import fetch
from support.backends import respond_with
from support.deployment import Deployment, Proxy
from support.ports import free_port
from support.relays import Relay, Relays
from support.waiting import LIMIT, wait_until

NOBODY = b"Cluster web has no backend: none of its members publishes http=IP:PORT.\n"


def watching(deployment: Deployment, relay: Relay, *flags: str) -> Proxy:
    return deployment.proxy("-cluster", "web", "-port", str(relay.port), *flags)


def test_published_addresses_are_used_and_nobody_is_asked(
    deployment: Deployment, relays: Relays
) -> None:
    relay = relays.start()
    _, one = deployment.publish(relay, respond_with("one"))
    _, two = deployment.publish(relay, respond_with("two"))
    proxy = watching(deployment, relay)
    assert proxy.bodies() == {"one", "two"}
    assert one.requests == two.requests == 0


def test_who_joins_is_used_and_who_leaves_is_not(deployment: Deployment, relays: Relays) -> None:
    near, far = relays.start_pair()
    _, one = deployment.publish(near, respond_with("one"))
    proxy = watching(deployment, near)
    assert proxy.bodies() == {"one"}
    there = deployment.backend(respond_with("two"), host=far.address)
    deployment.member(far, http=there.address)
    wait_until(lambda: proxy.bodies() == {"one", "two"})
    deployment.stop_member(one)
    wait_until(lambda: proxy.bodies() == {"two"})


def test_the_cluster_is_asked_until_a_member_publishes(
    deployment: Deployment, relays: Relays
) -> None:
    relay = relays.start()
    asked = deployment.backend(respond_with("asked"))
    member = deployment.member(relay)
    member.answers = [asked.address]
    proxy = watching(deployment, relay)
    assert proxy.bodies(3) == {"asked"}
    _, publisher = deployment.publish(relay, respond_with("watched"))
    publisher.answers = [asked.address]
    wait_until(lambda: proxy.bodies() == {"watched"})
    deployment.stop_member(publisher)
    wait_until(lambda: proxy.bodies(3) == {"asked"})


def test_a_proxy_that_only_watches_does_not_ask(deployment: Deployment, relays: Relays) -> None:
    relay = relays.start()
    member = deployment.member(relay)
    proxy = watching(deployment, relay, "-choose", "watch")
    response, body = proxy.request()
    assert (response.status, body) == (503, NOBODY)
    assert member.requests == 0
    deployment.stop_member(member)
    wait_until(lambda: proxy.request()[1] == b"Cluster web has no members.\n")


def test_a_proxy_that_only_asks_does_not_watch(deployment: Deployment, relays: Relays) -> None:
    relay = relays.start()
    asked = deployment.backend(respond_with("asked"))
    _, member = deployment.publish(relay, respond_with("watched"))
    member.answers = [asked.address]
    assert watching(deployment, relay, "-choose", "ask").bodies(3) == {"asked"}


def test_who_was_known_stays_known_while_the_relay_is_away(
    deployment: Deployment, relays: Relays
) -> None:
    relay = relays.start()
    deployment.publish(relay, respond_with("one"))
    admin = free_port()
    proxy = watching(deployment, relay, "-admin", f"127.0.0.1:{admin}")
    assert proxy.bodies(3) == {"one"}
    relay.process.terminate()
    relay.process.wait(LIMIT)
    assert proxy.bodies() == {"one"}
    assert fetch(admin, "/-/readyz")[0].status == 200
    relay = relays.start(port=relay.port)
    deployment.publish(relay, respond_with("two"))
    wait_until(lambda: proxy.bodies() == {"one", "two"})


def test_a_missing_ip_is_that_of_the_member_s_node(deployment: Deployment, relays: Relays) -> None:
    near, far = relays.start_pair()
    backend = deployment.backend(respond_with("there"), host=far.address)
    port = backend.address.rpartition(":")[2]
    deployment.member(far, http=f":{port}")
    proxy = watching(deployment, near)
    wait_until(lambda: proxy.body() == "there")


def test_what_cannot_be_read_is_complained_about_and_left_out(
    deployment: Deployment, relays: Relays
) -> None:
    relay = relays.start()
    deployment.publish(relay, respond_with("one"))
    deployment.member(relay, http="example.com:80")
    proxy = watching(deployment, relay)
    line = "of cluster web is ignored: it publishes http='example.com:80', which is not IP:PORT"
    proxy.process.wait_for_line(line, LIMIT)
    assert proxy.bodies() == {"one"}


def test_loopback_of_another_node_is_left_out(deployment: Deployment, relays: Relays) -> None:
    near, far = relays.start_pair()
    deployment.publish(near, respond_with("one"))
    deployment.publish(far, respond_with("another machine's, or this one's"))
    proxy = watching(deployment, near)
    proxy.process.wait_for_line("a loopback address of another machine", LIMIT)
    assert proxy.bodies() == {"one"}


# Several clusters.


def test_each_route_has_its_cluster(deployment: Deployment, relays: Relays) -> None:
    relay = relays.start()
    for cluster in ("shop", "api", "rest"):
        deployment.publish(relay, respond_with(cluster), cluster)
    routes = ("-route", "shop.example=shop", "-route", "/api=api")
    proxy = watching(deployment, relay, *routes, "-cluster", "rest")
    for host, path, cluster in (
        ("Shop.example:80", "/", "shop"),
        ("other", "/api/x", "api"),
        ("other", "/", "rest"),
    ):
        assert proxy.body(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) == cluster


def test_a_default_cluster_is_not_needed(deployment: Deployment, relays: Relays) -> None:
    relay = relays.start()
    deployment.publish(relay, respond_with("api"), "api")
    proxy = deployment.proxy("-port", str(relay.port), "-route", "*/api=api")
    assert proxy.body(b"GET /api HTTP/1.1\r\nHost: example\r\n\r\n") == "api"
