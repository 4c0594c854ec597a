from __future__ import annotations

import socket

import ifaddr
import pytest

from arke_relay.discovery.addresses import Address, choose, machine_adapters, source_for
from arke_relay.errors import ConfigurationError


def adapter(name: str, *cidrs: str) -> ifaddr.Adapter:
    entries = []
    for cidr in cidrs:
        ip, _, prefix = cidr.partition("/")
        entry = (ip, 0, 3) if ":" in ip else ip
        entries.append(ifaddr.IP(entry, int(prefix), name))
    return ifaddr.Adapter(name, name, entries, index=3)


LOOPBACK = adapter("lo", "127.0.0.1/8", "::1/128")
NAT = adapter("eth0", "10.0.2.15/24", "fe80::27ff:fe8d:c04d/64")
HOST_ONLY = adapter("eth1", "192.168.56.101/24", "fe80::27ff:fe8d:1/64")
VIRTUALBOX = [LOOPBACK, NAT, HOST_ONLY]
DUAL = [LOOPBACK, adapter("eth0", "192.0.2.2/24", "2001:db8::2/64", "fd00::2/64", "fe80::2/64")]


def ips(spec: str | None, adapters: list[ifaddr.Adapter]) -> list[str]:
    return [address.ip for address in choose(spec, adapters)]


def test_default_is_every_address_except_loopback_with_the_ambiguous_one_last() -> None:
    assert choose(None, VIRTUALBOX) == [
        Address("192.168.56.101", 24, "eth1"),
        Address("10.0.2.15", 24, "eth0"),
    ]


@pytest.mark.parametrize("same", ["10.0.2.15", "172.17.0.1", "192.168.122.1", "169.254.7.7"])
def test_ambiguous_address_is_never_first(same: str) -> None:
    adapters = [adapter("a0", f"{same}/16"), adapter("b0", "10.1.1.1/24", "10.2.1.1/24")]
    assert ips(None, adapters) == ["10.1.1.1", "10.2.1.1", same]


def test_only_address_is_used_even_if_it_is_ambiguous() -> None:
    assert ips(None, [LOOPBACK, NAT]) == ["10.0.2.15"]


def test_ipv6_is_used_by_default_only_without_ipv4() -> None:
    assert ips(None, DUAL) == ["192.0.2.2"]
    alone = adapter("eth0", "2001:db8::2/64", "fe80::2/64")
    assert ips(None, [LOOPBACK, alone]) == ["2001:db8::2"]


@pytest.mark.parametrize(
    ("spec", "adapters", "expected"),
    [
        ("192.168.56.101", VIRTUALBOX, ["192.168.56.101"]),
        ("192.168.56.0/24", VIRTUALBOX, ["192.168.56.101"]),
        ("192.168.56.101/24", VIRTUALBOX, ["192.168.56.101"]),
        ("eth1", VIRTUALBOX, ["192.168.56.101"]),
        ("eth0", VIRTUALBOX, ["10.0.2.15"]),
        ("0.0.0.0/0", VIRTUALBOX, ["192.168.56.101", "10.0.2.15"]),
        ("127.0.0.1", VIRTUALBOX, ["127.0.0.1"]),
        ("127.0.0.0/8", VIRTUALBOX, ["127.0.0.1"]),
        ("lo", VIRTUALBOX, ["127.0.0.1"]),
        ("::1", VIRTUALBOX, ["::1"]),
        ("2001:db8::2", DUAL, ["2001:db8::2"]),
        ("2001:DB8:0::2", DUAL, ["2001:db8::2"]),
        ("2001:db8::/32", DUAL, ["2001:db8::2"]),
        ("::/0", DUAL, ["2001:db8::2", "fd00::2"]),
        ("eth0", DUAL, ["192.0.2.2"]),
    ],
)
def test_bind(spec: str, adapters: list[ifaddr.Adapter], expected: list[str]) -> None:
    assert ips(spec, adapters) == expected


def test_interface_includes_addresses_with_its_label() -> None:
    adapters = [adapter("eth0", "10.1.0.1/16"), adapter("eth0:1", "10.2.0.1/16"), HOST_ONLY]
    assert ips("eth0", adapters) == ["10.1.0.1", "10.2.0.1"]
    assert ips("eth0:1", adapters) == ["10.2.0.1"]


def test_every_loopback_address_can_be_bound() -> None:
    assert choose("127.0.0.2", VIRTUALBOX) == [Address("127.0.0.2", 8, "lo")]


def test_duplicate_address_is_listed_once() -> None:
    assert ips(None, [adapter("a0", "10.1.0.1/16"), adapter("b0", "10.1.0.1/16")]) == ["10.1.0.1"]


@pytest.mark.parametrize(
    "spec", ["10.9.9.9", "10.9.0.0/16", "eth7", "0.0.0.0", "fe80::27ff:fe8d:1", "eth", "", "1.2.3"]
)
def test_unknown_bind_address_is_an_error_that_lists_the_addresses(spec: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        choose(spec, VIRTUALBOX)
    text = str(failure.value)
    assert text.startswith("-bind ")
    assert "192.168.56.101 (eth1)" in text
    assert "\n" not in text


def test_error_for_a_newline_in_the_flag_is_one_line() -> None:
    with pytest.raises(ConfigurationError) as failure:
        choose("a\nb", VIRTUALBOX)
    assert "\n" not in str(failure.value)


def test_address_list_in_an_error_is_short() -> None:
    adapters = [adapter(f"veth{n}", f"10.0.{n}.1/24") for n in range(200)]
    with pytest.raises(ConfigurationError, match="and 188 more"):
        choose("eth7", adapters)


def test_error_without_a_network_names_the_fix() -> None:
    with pytest.raises(ConfigurationError, match=r"-bind 127\.0\.0\.1"):
        choose(None, [LOOPBACK])
    with pytest.raises(ConfigurationError, match="available: none"):
        choose("eth0", [])


def test_this_machine_has_loopback() -> None:
    assert ips("127.0.0.1", machine_adapters()) == ["127.0.0.1"]


# Source addresses of connections.

BOUND = [
    Address("192.168.56.101", 24, "eth1"),
    Address("10.1.0.1", 8, "eth2"),
    Address("10.1.2.1", 24, "eth3"),
    Address("2001:db8::2", 64, "eth1"),
]


@pytest.mark.parametrize(
    ("destination", "kernel", "source"),
    [
        ("192.168.56.102", "192.168.56.101", None),
        ("192.168.56.102", "10.0.2.15", "192.168.56.101"),
        ("10.1.2.9", "10.0.2.15", "10.1.2.1"),
        ("10.7.7.7", "10.0.2.15", "10.1.0.1"),
        ("203.0.113.9", "10.0.2.15", "192.168.56.101"),
        ("203.0.113.9", None, "192.168.56.101"),
        ("2001:db8::9", "2001:db8::2", None),
        ("2001:db8:7::9", "fd00::1", "2001:db8::2"),
    ],
)
def test_source(destination: str, kernel: str | None, source: str | None) -> None:
    assert source_for(destination, BOUND, lambda _: kernel) == source


def test_source_for_an_unused_address_family_is_left_to_the_kernel() -> None:
    assert source_for("2001:db8::9", BOUND[:1], lambda _: "2001:db8::2") is None


def test_destination_must_be_an_ip_address() -> None:
    with pytest.raises(ValueError, match="example"):
        source_for("example.org", BOUND)


def test_each_relay_of_one_machine_uses_its_own_source_address() -> None:
    third = choose("127.0.0.3", machine_adapters())
    assert source_for("127.0.0.2", third) == "127.0.0.3"
    assert source_for("127.0.0.2", choose("127.0.0.1", machine_adapters())) is None


def test_peer_sees_the_chosen_source_address() -> None:
    source = source_for("127.0.0.2", choose("127.0.0.3", machine_adapters()))
    assert source is not None
    with socket.create_server(("127.0.0.2", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.2", port), 5, (source, 0))
        with client, server.accept()[0] as accepted:
            assert accepted.getpeername()[0] == "127.0.0.3"
