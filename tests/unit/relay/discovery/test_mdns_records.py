from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke_relay.discovery.records import (
    SERVICE,
    Announcement,
    IgnoreCause,
    Record,
    instance,
    read,
    text,
)

NODE = "0123456789abcdef"
TAG = bytes(range(16))


def wire(values: dict[bytes, bytes]) -> bytes:
    strings = [key + b"=" + value for key, value in values.items()]
    return b"".join(bytes([len(string)]) + string for string in strings)


def record(
    name: str = instance(NODE),
    port: int | None = 55556,
    txt: bytes = wire(text(TAG)),
    addresses: tuple[str, ...] = ("192.168.56.102",),
) -> Record:
    return Record(name, port, txt, addresses)


def test_announcement_is_read_back() -> None:
    assert read(record(), loopback=False) == Announcement(NODE, TAG, 55556, ("192.168.56.102",))


def test_service_name_follows_rfc_6763() -> None:
    application, protocol, domain, root = SERVICE.split(".")
    assert 1 <= len(application.removeprefix("_")) <= 15
    assert (protocol, domain, root) == ("_tcp", "local", "")
    assert all(len(key) + 1 + len(value) <= 255 for key, value in text(TAG).items())


def test_dns_names_and_keys_are_case_insensitive() -> None:
    shouted = record(instance(NODE).upper(), txt=wire({b"V": b"1", b"H": TAG.hex().encode()}))
    assert read(shouted, loopback=False) == read(record(), loopback=False)


def test_unknown_and_repeated_keys_are_ignored() -> None:
    more = b"\x00\x03new" + wire(text(TAG)) + wire({b"v": b"9", b"x": b"\xff"})
    assert read(record(txt=more), loopback=False) == read(record(), loopback=False)


@pytest.mark.parametrize(
    ("bad", "flaw"),
    [
        (record(SERVICE), IgnoreCause.NAME),
        (record(f"{NODE}0.{SERVICE}"), IgnoreCause.NAME),
        (record(f"{NODE[:-1]}.{SERVICE}"), IgnoreCause.NAME),
        (record(f"{NODE[:-1]}g.{SERVICE}"), IgnoreCause.NAME),
        (record(f"{NODE[:-1]}\u0661.{SERVICE}"), IgnoreCause.NAME),
        (record(f"{NODE}._http._tcp.local."), IgnoreCause.NAME),
        (record(f"x.{NODE}.{SERVICE}"), IgnoreCause.NAME),
        (record(""), IgnoreCause.NAME),
        (record("\ufffd" * 500), IgnoreCause.NAME),
        (record(txt=b"\x05v=1"), IgnoreCause.TEXT),
        (record(txt=b"\xff"), IgnoreCause.TEXT),
        (record(txt=wire(text(TAG)) + b"\x00" * 512), IgnoreCause.TEXT),
        (record(txt=b""), IgnoreCause.VERSION),
        (record(txt=b"\x00"), IgnoreCause.VERSION),
        (record(txt=wire({b"v": b"2", b"h": TAG.hex().encode()})), IgnoreCause.VERSION),
        (record(txt=b"\x01v"), IgnoreCause.VERSION),
        (record(txt=wire({b"v": b"1"})), IgnoreCause.TAG),
        (record(txt=wire({b"v": b"1", b"h": TAG.hex().upper().encode()})), IgnoreCause.TAG),
        (record(txt=wire({b"v": b"1", b"h": TAG.hex().encode()[:-2]})), IgnoreCause.TAG),
        (record(txt=wire({b"v": b"1", b"h": TAG.hex().encode()[:-2] + b" \n"})), IgnoreCause.TAG),
        (record(txt=wire({b"v": b"1", b"h": b"\xff" * 32})), IgnoreCause.TAG),
        (record(port=None), IgnoreCause.PORT),
        (record(port=0), IgnoreCause.PORT),
        (record(port=65536), IgnoreCause.PORT),
        (record(addresses=()), IgnoreCause.ADDRESSES),
        (record(addresses=tuple(f"10.0.0.{n}" for n in range(17))), IgnoreCause.ADDRESSES),
        (record(addresses=("not an address",)), IgnoreCause.ADDRESSES),
    ],
)
def test_invalid_record_has_a_cause(bad: Record, flaw: IgnoreCause) -> None:
    assert read(bad, loopback=True) is flaw


@pytest.mark.parametrize(
    "nowhere",
    [
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.251",
        "240.0.0.1",
        "::",
        "ff02::fb",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "127.0.0.1",
        "::1",
    ],
)
def test_unusable_addresses_are_ignored(nowhere: str) -> None:
    assert read(record(addresses=(nowhere,)), loopback=False) is IgnoreCause.ADDRESSES
    some = read(record(addresses=(nowhere, "10.1.1.1")), loopback=False)
    assert isinstance(some, Announcement)
    assert some.addresses == ("10.1.1.1",)


def test_loopback_is_used_between_relays_of_one_machine() -> None:
    near = read(record(addresses=("127.0.0.3",)), loopback=True)
    assert isinstance(near, Announcement)
    assert near.addresses == ("127.0.0.3",)


def test_addresses_are_sorted_with_the_ambiguous_one_last() -> None:
    trap = read(
        record(addresses=("2001:db8::7", "10.0.2.15", "192.168.56.102", "10.0.2.15")),
        loopback=False,
    )
    assert isinstance(trap, Announcement)
    assert trap.addresses == ("192.168.56.102", "2001:db8::7", "10.0.2.15")


some_text = st.one_of(
    st.binary(max_size=600),
    st.dictionaries(
        st.sampled_from([b"v", b"h", b"V", b"x"]) | st.binary(max_size=8),
        st.sampled_from([b"1", b"2", TAG.hex().encode()]) | st.binary(max_size=64),
    ).map(wire),
)
some_name = st.one_of(
    st.text(max_size=300),
    st.text(max_size=20).map(instance),
    st.just(instance(NODE)),
)
some_address = st.one_of(
    st.text(max_size=50),
    st.ip_addresses().map(str),
    st.just("fe80::1%eth0"),
)


@given(
    name=some_name,
    port=st.none() | st.integers(),
    txt=some_text,
    addresses=st.lists(some_address, max_size=40),
    loopback=st.booleans(),
)
def test_hostile_records_give_only_valid_hints(
    name: str, port: int | None, txt: bytes, addresses: list[str], loopback: bool
) -> None:
    found = read(Record(name, port, txt, addresses), loopback=loopback)
    if isinstance(found, IgnoreCause):
        return
    assert len(found.node) == 16
    assert len(found.tag) == 16
    assert 1 <= found.port <= 65535
    assert 1 <= len(found.addresses) <= 16
    for literal in found.addresses:
        address = ip_address(literal)
        assert not address.is_multicast
        assert not address.is_unspecified
        assert loopback or not address.is_loopback


@given(addresses=st.lists(some_address, max_size=16), txt=some_text)
def test_record_without_a_valid_text_is_ignored(addresses: list[str], txt: bytes) -> None:
    right = read(record(addresses=("10.1.1.1", *addresses[:15])), loopback=False)
    assert isinstance(right, Announcement)
    assert "10.1.1.1" in right.addresses
    found = read(record(txt=txt, addresses=("10.1.1.1",)), loopback=False)
    assert isinstance(found, IgnoreCause) or (found.tag == TAG and b"1" in txt)
