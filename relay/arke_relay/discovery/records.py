"""What a relay says of itself in mDNS, and how to read it when anybody may have said it.

One DNS-SD instance per relay (RFC 6763): its name is the node id, its port the join socket's, and
its TXT record has two keys, `v=1` and `h=` the node's tag in hex. Nothing else: not the network's
name, nor the host's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address

from arke_relay.discovery.addresses import is_ambiguous
from arke_relay.peers.keys import TAG_BYTES
from arke_relay.peers.validation import is_node_id

SERVICE = "_arke._tcp.local."
MOST_ADDRESSES = 16

_VERSION = b"1"
_MOST_TEXT = 512  # bytes of TXT; ours has 40
_TAG = re.compile(rb"[0-9a-f]{%d}" % (2 * TAG_BYTES))


class Flaw(StrEnum):
    """Why a record is ignored."""

    NAME = "name"
    TEXT = "text"
    VERSION = "version"
    TAG = "tag"
    PORT = "port"
    ADDRESSES = "addresses"


@dataclass(frozen=True, slots=True)
class Record:
    """An instance as mDNS brought it; nothing in it is checked."""

    name: str
    """The whole name, type and domain included."""
    port: int | None
    text: bytes
    """The TXT record as it was on the wire."""
    addresses: Sequence[str]


@dataclass(frozen=True, slots=True)
class Announcement:
    """A record that makes sense, true or not."""

    node: str
    tag: bytes
    port: int
    addresses: tuple[str, ...]
    """At least one and at most 16, those no other machine is likely to have first."""


def instance(node: str) -> str:
    """Return the whole name of a node's instance."""
    return f"{node}.{SERVICE}"


def is_instance(name: str) -> bool:
    """Whether a name, which may be any, is that of some node's instance."""
    node = _node(name)
    return name.lower() == instance(node) and is_node_id(node)


def text(tag: bytes) -> dict[bytes, bytes]:
    """Return the keys and values of the TXT record."""
    return {b"v": _VERSION, b"h": tag.hex().encode()}


def read(record: Record, *, loopback: bool) -> Announcement | Flaw:
    """Return what a record says, or the first thing wrong with it; it may be hostile.

    Addresses that nobody can be reached at are left out. Loopback is one of them, unless relays
    of this very machine are looked for.
    """
    if not is_instance(record.name):
        return Flaw.NAME
    node = _node(record.name)
    values = _values(record.text)
    if values is None:
        return Flaw.TEXT
    if values.get(b"v") != _VERSION:
        return Flaw.VERSION
    tag = values.get(b"h", b"")
    if not _TAG.fullmatch(tag):
        return Flaw.TAG
    if record.port is None or not 1 <= record.port <= 65535:
        return Flaw.PORT
    addresses = _reachable(record.addresses, loopback)
    if not addresses or len(record.addresses) > MOST_ADDRESSES:
        return Flaw.ADDRESSES
    return Announcement(node, bytes.fromhex(tag.decode()), record.port, addresses)


def _node(name: str) -> str:
    return name[: -len(instance(""))].lower()


def _values(wire: bytes) -> dict[bytes, bytes] | None:
    """Split a TXT record into keys and values (RFC 6763, section 6); None if that cannot be done.

    Keys know no case, and the first of two equal ones counts.
    """
    if len(wire) > _MOST_TEXT:
        return None
    values: dict[bytes, bytes] = {}
    at = 0
    while at < len(wire):
        end = at + 1 + wire[at]
        if end > len(wire):
            return None
        key, _, value = wire[at + 1 : end].partition(b"=")
        values.setdefault(key.lower(), value)
        at = end
    return values


def _reachable(addresses: Sequence[str], loopback: bool) -> tuple[str, ...]:
    found = set()
    for literal in addresses[:MOST_ADDRESSES]:
        try:
            address = ip_address(literal)
        except ValueError:
            continue
        if _is_somewhere(address, loopback):
            found.add(address)
    ordered = sorted(found, key=lambda each: (is_ambiguous(str(each)), each.version, int(each)))
    return tuple(str(each) for each in ordered)


def _is_somewhere(address: IPv4Address | IPv6Address, loopback: bool) -> bool:
    if address.is_loopback:
        return loopback
    if isinstance(address, IPv6Address) and (address.is_link_local or address.ipv4_mapped):
        return False
    return not (address.is_multicast or address.is_unspecified or address.is_reserved)
