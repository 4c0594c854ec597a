"""A proxy that watches the addresses that members publish, and sends members no requests."""

from __future__ import annotations

from support.admin_pages import fetch
from support.backends import respond_with
from support.deployment import Deployment, Proxy
from support.ports import free_port
from support.relays import Relay, Relays
from support.waiting import LIMIT, wait_until

NO_BACKEND = b"Cluster web has no backend: none of its members publishes http=IP:PORT.\n"


def start_proxy(deployment: Deployment, relay: Relay, *flags: str) -> Proxy:
    return deployment.proxy("-cluster", "web", "-port", str(relay.port), *flags)


def test_published_addresses_are_used_without_requests_to_members(
    deployment: Deployment, relays: Relays
) -> None:
    relay = relays.start()
    _, one = deployment.publish(relay, respond_with("one"))
    _, two = deployment.publish(relay, respond_with("two"))
    proxy = start_proxy(deployment, relay)
    assert proxy.bodies() == {"one", "two"}
    assert one.requests == two.requests == 0


def test_backends_follow_members_that_join_and_leave(
    deployment: Deployment, relays: Relays
) -> None:
    near, far = relays.start_pair()
    _, one = deployment.publish(near, respond_with("one"))
    proxy = start_proxy(deployment, near)
    assert proxy.bodies() == {"one"}
    far_backend = deployment.backend(respond_with("two"), host=far.address)
    deployment.member(far, http=far_backend.address)
    wait_until(lambda: proxy.bodies() == {"one", "two"})
    deployment.stop_member(one)
    wait_until(lambda: proxy.bodies() == {"two"})


def test_choose_auto_asks_members_until_one_publishes(
    deployment: Deployment, relays: Relays
) -> None:
    relay = relays.start()
    backend = deployment.backend(respond_with("named"))
    member = deployment.member(relay)
    member.answers = [backend.address]
    proxy = start_proxy(deployment, relay)
    assert proxy.bodies(3) == {"named"}
    _, publisher = deployment.publish(relay, respond_with("published"))
    publisher.answers = [backend.address]
    wait_until(lambda: proxy.bodies() == {"published"})
    deployment.stop_member(publisher)
    wait_until(lambda: proxy.bodies(3) == {"named"})


def test_choose_watch_does_not_ask_members(deployment: Deployment, relays: Relays) -> None:
    relay = relays.start()
    member = deployment.member(relay)
    proxy = start_proxy(deployment, relay, "-choose", "watch")
    response, body = proxy.request()
    assert (response.status, body) == (503, NO_BACKEND)
    assert member.requests == 0
    deployment.stop_member(member)
    wait_until(lambda: proxy.request()[1] == b"Cluster web has no members.\n")


def test_choose_ask_ignores_published_addresses(deployment: Deployment, relays: Relays) -> None:
    relay = relays.start()
    backend = deployment.backend(respond_with("named"))
    _, member = deployment.publish(relay, respond_with("published"))
    member.answers = [backend.address]
    assert start_proxy(deployment, relay, "-choose", "ask").bodies(3) == {"named"}


def test_known_backends_stay_while_relay_is_disconnected(
    deployment: Deployment, relays: Relays
) -> None:
    relay = relays.start()
    deployment.publish(relay, respond_with("one"))
    admin = free_port()
    proxy = start_proxy(deployment, relay, "-admin", f"127.0.0.1:{admin}")
    assert proxy.bodies(3) == {"one"}
    relay.process.terminate()
    relay.process.wait(LIMIT)
    assert proxy.bodies() == {"one"}
    assert fetch(admin, "/-/readyz")[0].status == 200
    relay = relays.start(port=relay.port)
    deployment.publish(relay, respond_with("two"))
    wait_until(lambda: proxy.bodies() == {"one", "two"})


def test_published_port_uses_ip_of_node(deployment: Deployment, relays: Relays) -> None:
    near, far = relays.start_pair()
    backend = deployment.backend(respond_with("far"), host=far.address)
    port = backend.address.rpartition(":")[2]
    deployment.member(far, http=f":{port}")
    proxy = start_proxy(deployment, near)
    wait_until(lambda: proxy.body() == "far")


def test_invalid_metadata_is_ignored_with_warning(deployment: Deployment, relays: Relays) -> None:
    relay = relays.start()
    deployment.publish(relay, respond_with("one"))
    deployment.member(relay, http="example.com:80")
    proxy = start_proxy(deployment, relay)
    line = (
        "member ignored member=.* cluster=web reason=\"it publishes http='example.com:80', which is"
    )
    proxy.process.wait_for_line(line, LIMIT)
    assert proxy.bodies() == {"one"}


def test_loopback_address_of_another_node_is_ignored(
    deployment: Deployment, relays: Relays
) -> None:
    near, far = relays.start_pair()
    deployment.publish(near, respond_with("one"))
    deployment.publish(far, respond_with("far"))
    proxy = start_proxy(deployment, near)
    proxy.process.wait_for_line("a loopback or link-local address of another machine", LIMIT)
    assert proxy.bodies() == {"one"}


# Several clusters.


def test_routes_select_clusters(deployment: Deployment, relays: Relays) -> None:
    relay = relays.start()
    for cluster in ("shop", "api", "rest"):
        deployment.publish(relay, respond_with(cluster), cluster)
    routes = ("-route", "shop.example=shop", "-route", "/api=api")
    proxy = start_proxy(deployment, relay, *routes, "-cluster", "rest")
    for host, path, cluster in (
        ("Shop.example:80", "/", "shop"),
        ("other", "/api/x", "api"),
        ("other", "/", "rest"),
    ):
        assert proxy.body(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) == cluster


def test_routes_without_default_cluster(deployment: Deployment, relays: Relays) -> None:
    relay = relays.start()
    deployment.publish(relay, respond_with("api"), "api")
    proxy = deployment.proxy("-port", str(relay.port), "-route", "*/api=api")
    assert proxy.body(b"GET /api HTTP/1.1\r\nHost: example\r\n\r\n") == "api"
