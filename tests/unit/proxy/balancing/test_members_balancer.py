"""MembersBalancer: backends from the metadata of members that join and leave; lingering; tunnels.

"Here" is the proxy's own node, and "there" another one.
"""

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
from arke_proxy.balancing.named_addresses import NamedAddresses
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


class MembersHarness:
    """A MembersBalancer with a simulated clock and a rotation that records departures."""

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
        return [status.address for status in self.rotation.statuses()]


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
    published = parse_metadata(member({"http": ":80"}, address="2001:db8::2"))
    assert published
    assert published.address == BackendAddress("2001:db8::2", 80)


def test_member_without_http_metadata_publishes_nothing() -> None:
    assert parse_metadata(member({"version": "3"})) is None


@pytest.mark.parametrize(
    "metadata",
    [{"http": text} for text in ("", ":", ":0", ":65536", "example.com:80", "224.0.0.1:80", "1:x")]
    + [HTTP | {"weight": text} for text in ("", "0", "-1", "nan", "inf", "1e9", "heavy")],
)
def test_member_with_invalid_metadata_is_ignored_with_warning(metadata: Mapping[str, str]) -> None:
    harness = MembersHarness()
    harness.join(metadata)
    assert not harness.addresses()
    (warning,) = harness.warnings
    assert warning.startswith("member ignored member=there/1 cluster=web reason=it publishes ")


def test_members_join_and_leave() -> None:
    harness = MembersHarness()
    harness.join(HTTP | {"weight": "2.5"})
    harness.join({"http": ":81"}, "there/2")
    assert harness.addresses() == [DIRECT, BackendAddress("192.168.56.102", 81)]
    harness.now += 60
    assert [status.weight for status in harness.members.statuses()] == [2.5, 1.0]
    harness.leave()
    harness.leave()
    assert harness.members.pick_now(()) == BackendAddress("192.168.56.102", 81)
    assert len(harness.members) == 1


def test_repeated_join_keeps_ejection() -> None:
    harness = MembersHarness()
    harness.join(HTTP)
    harness.join({"http": ":81"}, "there/2")
    harness.join({"http": ":82"}, "there/3")
    harness.members.connect_failed(DIRECT)
    harness.join(HTTP)
    assert [status.ejected for status in harness.members.statuses()] == [True, False, False]


def test_member_with_new_address_replaces_old_address() -> None:
    harness = MembersHarness()
    harness.join(HTTP)
    harness.join({"http": ":81"})
    assert harness.addresses() == [BackendAddress("192.168.56.102", 81)]


def test_shared_address_stays_until_last_member_leaves() -> None:
    harness = MembersHarness()
    harness.join(HTTP, "there/1")
    harness.join(HTTP, "there/2")
    harness.leave("there/1")
    assert harness.addresses() == [DIRECT]
    harness.join({"http": ":81"}, "there/3")
    harness.leave("there/2")
    assert harness.addresses() == [BackendAddress("192.168.56.102", 81)]


def test_loopback_address_of_another_machine_is_ignored() -> None:
    harness = MembersHarness()
    harness.join({"http": "127.0.0.1:80"})
    assert not harness.addresses()
    assert "a loopback or link-local address of another machine" in harness.warnings[0]
    harness.join({"http": "127.0.0.1:80"}, "here/1")
    assert harness.addresses() == [BackendAddress("127.0.0.1", 80)]


# Lingering while a relay restarts.


def test_last_members_linger_for_some_seconds() -> None:
    harness = MembersHarness()
    for number in range(1, 4):
        harness.join({"http": f":{number}"}, f"there/{number}")
    harness.leave("there/1")
    harness.now += 2
    harness.leave("there/2")
    assert [address.port for address in harness.addresses()] == [3]
    harness.now += 0.5
    harness.leave("there/3")
    assert {harness.members.pick_now(()).port for _ in range(30)} == {2, 3}
    assert len(harness.members) == 2
    harness.now += 5
    with pytest.raises(NoBackend):
        harness.members.pick_now(())
    assert len(harness.members) == 0


def test_lingering_ends_when_member_joins() -> None:
    harness = MembersHarness()
    harness.join(HTTP, "there/1")
    harness.leave("there/1")
    harness.join({"http": ":81"}, "there/2")
    assert harness.addresses() == [BackendAddress("192.168.56.102", 81)]
    harness.join(HTTP, "there/3")
    harness.leave("there/2")
    assert harness.addresses() == [DIRECT]


def test_member_that_rejoins_keeps_outstanding_requests() -> None:
    harness = MembersHarness()
    harness.join(HTTP, "there/1")
    harness.members.request_started(DIRECT)
    harness.leave("there/1")
    harness.join(HTTP, "there/2")
    assert [status.outstanding for status in harness.members.statuses()] == [1]
    harness.now += 60
    assert harness.members.pick_now(()) == DIRECT


def test_members_linger_while_relay_is_disconnected() -> None:
    harness = MembersHarness()
    harness.join(HTTP)
    harness.leave()
    harness.attached = False
    for _ in range(20):
        harness.now += 3
        assert harness.members.pick_now(()) == DIRECT
    harness.attached = True
    harness.now += 4
    assert harness.members.pick_now(()) == DIRECT
    harness.now += 1
    with pytest.raises(NoBackend):
        harness.members.pick_now(())


# Tunnels.


@pytest.mark.parametrize("via", [Via.DIRECT, Via.TUNNEL])
def test_idle_tunnels_to_lingering_members_are_closed(via: Via) -> None:
    harness = MembersHarness(via)
    harness.join(HTTP)
    harness.leave()
    address = harness.members.pick_now(())  # the member lingers
    assert set(harness.departed) == {address}
    harness.departed.clear()
    harness.members.request_started(address)
    harness.members.request_ended(address, Outcome.ANSWERED)
    assert harness.departed == ([address] if address.via else [])


def test_via_tunnel_uses_tunnels_only() -> None:
    harness = MembersHarness(Via.TUNNEL)
    harness.join(HTTP)
    assert harness.members.pick_now(()) == TUNNEL
    harness.members.connect_failed(TUNNEL)
    assert harness.members.pick_now(()) == TUNNEL


def test_via_auto_falls_back_to_tunnel_for_a_minute() -> None:
    harness = MembersHarness(Via.AUTO)
    harness.join(HTTP)
    assert harness.members.pick_now(()) == DIRECT
    harness.members.connect_failed(DIRECT)
    assert harness.members.pick_now(()) == TUNNEL
    harness.now += 59
    assert harness.members.pick_now(()) == TUNNEL
    harness.now += 1
    assert harness.members.pick_now(()) == DIRECT
    harness.members.connect_failed(DIRECT)
    harness.leave()
    harness.now += 60
    harness.join({"http": ":81"})
    assert harness.members.pick_now(()) == BackendAddress("192.168.56.102", 81)


def test_unreachable_health_check_falls_back_to_tunnel_before_ejection() -> None:
    harness = MembersHarness(Via.AUTO)
    harness.join(HTTP)
    harness.join({"http": ":81"}, "there/2")
    for _ in range(2):
        harness.members.check_failed(DIRECT, "status 500", reachable=True)
    assert [status.ejected for status in harness.members.statuses()] == [True, False]
    harness.members.check_passed(DIRECT)
    harness.members.check_failed(DIRECT, "cannot connect", reachable=False)
    assert TUNNEL in harness.addresses()
    assert DIRECT not in harness.addresses()
    assert not any(status.ejected for status in harness.members.statuses())
    for _ in range(2):
        harness.members.check_failed(TUNNEL, "cannot connect", reachable=False)
    assert [status.address for status in harness.members.statuses() if status.ejected] == [TUNNEL]


def test_loopback_address_of_another_machine_is_reached_by_tunnel() -> None:
    harness = MembersHarness(Via.AUTO)
    harness.join({"http": "127.0.0.1:80"})
    assert harness.members.pick_now(()) == BackendAddress("127.0.0.1", 80, "there/1")
    harness.members.connect_failed(BackendAddress("127.0.0.1", 80, "there/1"))
    harness.now += 100
    assert harness.members.pick_now(()) == BackendAddress("127.0.0.1", 80, "there/1")


def test_sticky_backend_is_found_by_direct_and_tunnel_address() -> None:
    harness = MembersHarness(Via.AUTO)
    harness.join(HTTP)
    for number in range(2, 9):
        harness.join({"http": f":{number}"}, f"there/{number}")
    for address in harness.addresses():
        harness.members.request_ended(address, Outcome.ANSWERED)
    harness.members.connect_failed(DIRECT)
    assert {harness.members.pick_now((), DIRECT) for _ in range(20)} == {TUNNEL}
    harness.now += 60
    assert {harness.members.pick_now((), TUNNEL) for _ in range(20)} == {DIRECT}


def test_request_that_ends_after_its_member_left_is_uncounted() -> None:
    """By then no member publishes an address, so FallbackBalancer asks members instead."""
    harness = MembersHarness()
    fallback = FallbackBalancer(
        harness.members,
        AskBalancer(cast("Mesh", None), "web", 80, NamedAddresses(), lambda: harness.now),
    )
    harness.join(HTTP)
    fallback.request_started(fallback.pick_now(()) or TUNNEL)
    harness.leave()
    harness.now += 10
    with pytest.raises(NoBackend):
        harness.members.pick_now(())  # lingering has ended
    fallback.request_ended(DIRECT, Outcome.ANSWERED)
    harness.join(HTTP)
    assert [status.outstanding for status in harness.rotation.statuses()] == [0]
