"""NamedAddresses: which addresses that members name the proxy connects to."""

from __future__ import annotations

import pytest

from arke import Member, Node
from arke_proxy.backends.address import parse_address
from arke_proxy.balancing.named_addresses import NamedAddresses

HERE = Node("here", "192.168.56.101", "net")
LOCAL = [
    "127.0.0.1:80",
    "127.1.2.3:80",
    "[::1]:80",
    "[::ffff:127.0.0.1]:80",
    "[0:0:0:0:0:ffff:7f00:1]:80",
    "169.254.169.254:80",
    "[::ffff:a9fe:a9fe]:80",
    "[fe80::1]:80",
    "[fe80::1%2]:80",
]
ROUTABLE = ["192.168.56.102:80", "[::ffff:192.168.56.102]:80", "[2001:db8::1]:80", "203.0.113.9:80"]


def named_by(*members: tuple[str, str]) -> NamedAddresses:
    named = NamedAddresses()
    for id_, address in members:
        named.member_joined(Member(id_, address, {}), HERE)
    return named


@pytest.mark.parametrize("text", LOCAL)
def test_local_address_is_refused_while_a_member_is_on_another_machine(text: str) -> None:
    named = named_by(("here/1", "192.168.56.101"), ("there/1", "192.168.56.102"))
    assert not named.allows(parse_address(text))
    named.member_left(Member("there/1", "192.168.56.102", {}))
    assert named.allows(parse_address(text))


@pytest.mark.parametrize("text", LOCAL)
def test_local_address_is_refused_while_no_member_is_known(text: str) -> None:
    assert not named_by().allows(parse_address(text))


@pytest.mark.parametrize("text", ROUTABLE)
def test_other_addresses_are_allowed(text: str) -> None:
    assert named_by(("there/1", "192.168.56.102")).allows(parse_address(text))
    assert named_by().allows(parse_address(text))


def test_local_address_is_allowed_if_every_node_is_on_this_machine() -> None:
    assert named_by(("a/1", "127.0.0.2"), ("b/1", "127.0.0.3")).allows(parse_address(LOCAL[0]))


def test_link_local_address_of_a_member_node_is_allowed() -> None:
    named = named_by(("there/1", "169.254.7.7"))
    assert named.allows(parse_address("169.254.7.7:80"))
    assert not named.allows(parse_address("169.254.169.254:80"))
