"""Mdns: which addresses of a valid record become hints."""

from __future__ import annotations

import pytest

from arke.program.logging import Log
from arke_relay.discovery.addresses import Address
from arke_relay.discovery.hints import Hint
from arke_relay.discovery.mdns import Mdns
from arke_relay.discovery.records import IgnoreCause, Record, instance, text

TAG = bytes(range(16))
NAME = instance("fedcba9876543210")
ON_LINK = ["192.168.56.102", "2001:db8:7::1"]
OFF_LINK = ["203.0.113.9", "192.168.57.1", "8.8.8.8", "2001:db8:8::1"]


def hints_of(log: Log, addresses: list[str], bound: list[Address]) -> tuple[list[Hint], Mdns]:
    """Give a record with these addresses to a relay, and return its hints."""
    hints: list[Hint] = []
    mdns = Mdns(bound, "0123456789abcdef", 55556, TAG, lambda *_: 0, hints.append, log)
    txt = b"".join(
        bytes((len(key) + 1 + len(value),)) + key + b"=" + value for key, value in text(TAG).items()
    )
    mdns._evaluate(NAME, Record(NAME, 55556, txt, addresses))
    return hints, mdns


BOUND = [Address("192.168.56.101", 24, "eth1"), Address("2001:db8:7::9", 64, "eth1")]


def test_addresses_outside_the_subnets_of_the_relay_are_left_out(log: Log) -> None:
    """mDNS reaches hosts on the link only; another address would be a third party's."""
    hints, _ = hints_of(log, [*OFF_LINK, *ON_LINK], BOUND)
    assert [set(hint.addresses) for hint in hints] == [set(ON_LINK)]


@pytest.mark.parametrize("address", OFF_LINK)
def test_record_without_an_address_on_the_link_is_ignored(log: Log, address: str) -> None:
    hints, mdns = hints_of(log, [address], BOUND)
    assert not hints
    assert mdns.counts[IgnoreCause.OFF_LINK] == 1


def test_subnet_of_a_single_address_excludes_nothing(log: Log) -> None:
    hints, _ = hints_of(log, ["10.9.8.7"], [Address("10.0.0.5", 32, "ppp0")])
    assert [hint.addresses for hint in hints] == [("10.9.8.7",)]
