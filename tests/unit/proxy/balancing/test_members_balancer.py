"""Backends from member metadata: joining, leaving, lingering, tunnels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest

from arke import Member, Mesh, Node
from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.ask_balancer import AskBalancer
from arke_proxy.balancing.balancer import Outcome
from arke_proxy.balancing.fallback_balancer import FallbackBalancer
from arke_proxy.balancing.member_metadata import parse_metadata
from arke_proxy.balancing.members_balancer import MembersBalancer, Via
from arke_proxy.balancing.rotation import Rotation
from arke_proxy.errors import NoBackend
from support.recorded_warnings import RecordedWarnings

HERE = Node("here", "192.168.56.101", "net")
HTTP = {"http": "192.168.56.102:8080"}
DIRECT = BackendAddress("192.168.56.102", 8080)
TUNNEL = DIRECT._replace(via="there/1")


def member(
    metadata: Mapping[str, str], id_: str = "there/1", address: str = "192.168.56.102"
) -> Member:
    return Member(id_, address, metadata)


class Bench:
    def __init__(self, via: Via = Via.DIRECT) -> None:
        self.now = 100.0
        self.warnings = RecordedWarnings()
        self.departed: list[BackendAddress] = []
        self.rotation = Rotation(
            "web", self.warnings, lambda: self.now, on_departure=self.departed.append
        )
        self.attached = True
        self.members = MembersBalancer(
            "web", self.rotation, via, self.warnings, lambda: self.attached, lambda: self.now
        )

    def join(self, metadata: Mapping[str, str], id_: str = "there/1") -> None:
        self.members.member_joined(member(metadata, id_), HERE)

    def leave(self, id_: str = "there/1") -> None:
        self.members.member_left(member({}, id_))

    def addresses(self) -> list[BackendAddress]:
        return [one.address for one in self.rotation.statuses()]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.168.56.9:80", BackendAddress("192.168.56.9", 80)),
        ("[2001:db8::1]:80", BackendAddress("2001:db8::1", 80)),
        (":8080", DIRECT),
        ("0.0.0.0:8080", DIRECT),
        ("[::]:8080", DIRECT),
        ("*:8080", DIRECT),
        ("8080", DIRECT),
    ],
)
def test_published_address_is_parsed(text: str, address: BackendAddress) -> None:
    assert parse_metadata(member({"http": text})) == (address, 1.0)


def test_published_port_uses_ipv6_address_of_node() -> None:
    said = parse_metadata(member({"http": ":80"}, address="2001:db8::2"))
    assert said
    assert said.address == BackendAddress("2001:db8::2", 80)


def test_member_without_http_metadata_publishes_nothing() -> None:
    assert parse_metadata(member({"version": "3"})) is None


@pytest.mark.parametrize(
    "metadata",
    [{"http": text} for text in ("", ":", ":0", ":65536", "example.com:80", "224.0.0.1:80", "1:x")]
    + [HTTP | {"weight": text} for text in ("", "0", "-1", "nan", "inf", "1e9", "heavy")],
)
def test_member_with_invalid_metadata_is_ignored_with_warning(metadata: Mapping[str, str]) -> None:
    bench = Bench()
    bench.join(metadata)
    assert not bench.addresses()
    (sentence,) = bench.warnings
    assert sentence.startswith("member ignored member=there/1 cluster=web reason=it publishes ")


def test_members_join_and_leave() -> None:
    bench = Bench()
    bench.join(HTTP | {"weight": "2.5"})
    bench.join({"http": ":81"}, "there/2")
    assert bench.addresses() == [DIRECT, BackendAddress("192.168.56.102", 81)]
    bench.now += 60
    assert [one.weight for one in bench.members.statuses()] == [2.5, 1.0]
    bench.leave()
    bench.leave()
    assert bench.members.pick_now(()) == BackendAddress("192.168.56.102", 81)
    assert len(bench.members) == 1


def test_repeated_join_keeps_health() -> None:
    bench = Bench()
    bench.join(HTTP)
    bench.join({"http": ":81"}, "there/2")
    bench.join({"http": ":82"}, "there/3")
    bench.members.connect_failed(DIRECT)
    bench.join(HTTP)
    assert [one.ejected for one in bench.members.statuses()] == [True, False, False]


def test_member_with_new_address_replaces_old_address() -> None:
    bench = Bench()
    bench.join(HTTP)
    bench.join({"http": ":81"})
    assert bench.addresses() == [BackendAddress("192.168.56.102", 81)]


def test_shared_address_stays_until_last_member_leaves() -> None:
    bench = Bench()
    bench.join(HTTP, "there/1")
    bench.join(HTTP, "there/2")
    bench.leave("there/1")
    assert bench.addresses() == [DIRECT]
    bench.join({"http": ":81"}, "there/3")
    bench.leave("there/2")
    assert bench.addresses() == [BackendAddress("192.168.56.102", 81)]


def test_loopback_address_of_another_machine_is_ignored() -> None:
    bench = Bench()
    bench.join({"http": "127.0.0.1:80"})
    assert not bench.addresses()
    assert "a loopback address of another machine" in bench.warnings[0]
    bench.join({"http": "127.0.0.1:80"}, "here/1")
    assert bench.addresses() == [BackendAddress("127.0.0.1", 80)]


# Lingering while a relay restarts.


def test_last_members_linger() -> None:
    bench = Bench()
    for number in range(1, 4):
        bench.join({"http": f":{number}"}, f"there/{number}")
    bench.leave("there/1")
    bench.now += 2
    bench.leave("there/2")
    assert [one.port for one in bench.addresses()] == [3]
    bench.now += 0.5
    bench.leave("there/3")
    assert {bench.members.pick_now(()).port for _ in range(30)} == {2, 3}
    assert len(bench.members) == 2
    bench.now += 5
    with pytest.raises(NoBackend):
        bench.members.pick_now(())
    assert len(bench.members) == 0


def test_lingering_ends_when_member_joins() -> None:
    bench = Bench()
    bench.join(HTTP, "there/1")
    bench.leave("there/1")
    bench.join({"http": ":81"}, "there/2")
    assert bench.addresses() == [BackendAddress("192.168.56.102", 81)]
    bench.join(HTTP, "there/3")
    bench.leave("there/2")
    assert bench.addresses() == [DIRECT]


def test_member_that_rejoins_keeps_outstanding_requests() -> None:
    bench = Bench()
    bench.join(HTTP, "there/1")
    bench.members.request_started(DIRECT)
    bench.leave("there/1")
    bench.join(HTTP, "there/2")
    assert [one.outstanding for one in bench.members.statuses()] == [1]
    bench.now += 60
    assert bench.members.pick_now(()) == DIRECT


def test_members_linger_while_relay_is_disconnected() -> None:
    bench = Bench()
    bench.join(HTTP)
    bench.leave()
    bench.attached = False
    for _ in range(20):
        bench.now += 3
        assert bench.members.pick_now(()) == DIRECT
    bench.attached = True
    bench.now += 4
    assert bench.members.pick_now(()) == DIRECT
    bench.now += 1
    with pytest.raises(NoBackend):
        bench.members.pick_now(())


# Tunnels.


@pytest.mark.parametrize("via", [Via.DIRECT, Via.TUNNEL])
def test_tunnels_to_lingering_members_are_not_kept(via: Via) -> None:
    bench = Bench(via)
    bench.join(HTTP)
    bench.leave()
    address = bench.members.pick_now(())  # while it lingers
    assert set(bench.departed) == {address}
    bench.departed.clear()
    bench.members.request_started(address)
    bench.members.request_ended(address, Outcome.ANSWERED)
    assert bench.departed == ([address] if address.via else [])


def test_via_tunnel_uses_tunnels_only() -> None:
    bench = Bench(Via.TUNNEL)
    bench.join(HTTP)
    assert bench.members.pick_now(()) == TUNNEL
    bench.members.connect_failed(TUNNEL)
    assert bench.members.pick_now(()) == TUNNEL


def test_via_auto_falls_back_to_tunnel_for_a_minute() -> None:
    bench = Bench(Via.AUTO)
    bench.join(HTTP)
    assert bench.members.pick_now(()) == DIRECT
    bench.members.connect_failed(DIRECT)
    assert bench.members.pick_now(()) == TUNNEL
    bench.now += 59
    assert bench.members.pick_now(()) == TUNNEL
    bench.now += 1
    assert bench.members.pick_now(()) == DIRECT
    bench.members.connect_failed(DIRECT)
    bench.leave()
    bench.now += 60
    bench.join({"http": ":81"})
    assert bench.members.pick_now(()) == BackendAddress("192.168.56.102", 81)


def test_failed_check_connection_falls_back_to_tunnel_first() -> None:
    bench = Bench(Via.AUTO)
    bench.join(HTTP)
    bench.join({"http": ":81"}, "there/2")
    for _ in range(2):
        bench.members.check_failed(DIRECT, "status 500", reachable=True)
    assert [one.ejected for one in bench.members.statuses()] == [True, False]
    bench.members.check_passed(DIRECT)
    bench.members.check_failed(DIRECT, "cannot connect", reachable=False)
    assert TUNNEL in bench.addresses()
    assert DIRECT not in bench.addresses()
    assert not any(one.ejected for one in bench.members.statuses())
    for _ in range(2):
        bench.members.check_failed(TUNNEL, "cannot connect", reachable=False)
    assert [one.address for one in bench.members.statuses() if one.ejected] == [TUNNEL]


def test_loopback_address_of_another_machine_is_reached_by_tunnel() -> None:
    bench = Bench(Via.AUTO)
    bench.join({"http": "127.0.0.1:80"})
    assert bench.members.pick_now(()) == BackendAddress("127.0.0.1", 80, "there/1")
    bench.members.connect_failed(BackendAddress("127.0.0.1", 80, "there/1"))
    bench.now += 100
    assert bench.members.pick_now(()) == BackendAddress("127.0.0.1", 80, "there/1")


def test_sticky_backend_is_found_by_direct_and_tunnel_address() -> None:
    bench = Bench(Via.AUTO)
    bench.join(HTTP)
    for number in range(2, 9):
        bench.join({"http": f":{number}"}, f"there/{number}")
    for address in bench.addresses():
        bench.members.request_ended(address, Outcome.ANSWERED)
    bench.members.connect_failed(DIRECT)
    assert {bench.members.pick_now((), DIRECT) for _ in range(20)} == {TUNNEL}
    bench.now += 60
    assert {bench.members.pick_now((), TUNNEL) for _ in range(20)} == {DIRECT}


def test_request_that_ends_after_its_member_left_is_uncounted() -> None:
    """The request ends after the last member left, while the balancer asks members."""
    bench = Bench()
    either = FallbackBalancer(
        bench.members, AskBalancer(cast("Mesh", None), "web", 80, lambda: bench.now)
    )
    bench.join(HTTP)
    either.request_started(either.pick_now(()) or TUNNEL)
    bench.leave()
    bench.now += 10
    with pytest.raises(NoBackend):
        bench.members.pick_now(())  # lingering has ended
    either.request_ended(DIRECT, Outcome.ANSWERED)
    bench.join(HTTP)
    assert [one.outstanding for one in bench.rotation.statuses()] == [0]
