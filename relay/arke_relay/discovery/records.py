"""The mDNS record of a relay: how it is written, and how records of unknown origin are validated.

Each relay announces one DNS-SD instance (RFC 6763). The instance name is the node id and the port
is that of the join socket. The TXT record has two keys: `v=1`, and `h=` with the node's tag in hex.
It contains neither the network's name nor the host's.
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
MAX_ADDRESSES = 16

_VERSION = b"1"
_MAX_TEXT = 512  # bytes of TXT; ours has 40
_TAG = re.compile(rb"[0-9a-f]{%d}" % (2 * TAG_BYTES))


class IgnoreCause(StrEnum):
    """Why a record is not used as a hint. The values are labels of a metric."""

    NAME = "name"
    TEXT = "text"
    VERSION = "version"
    TAG = "tag"
    PORT = "port"
    ADDRESSES = "addresses"
    ANOTHER_NETWORK = "another_network"  # or a relay with another RSA key
    OWN_ADDRESS = "own_address"  # every address in it is this relay's own
    OFF_LINK = "off_link"  # no address in it is in a subnet of this relay
    TOO_MANY_QUERIES = "too_many_queries"


@dataclass(frozen=True, slots=True)
class Record:
    """An instance as mDNS delivered it. None of it has been checked."""

    name: str
    """The full name, with type and domain."""
    port: int | None
    text: bytes
    """The TXT record as sent on the wire."""
    addresses: Sequence[str]


@dataclass(frozen=True, slots=True)
class Announcement:
    """A well-formed record. Its content may be false."""

    node: str
    tag: bytes
    port: int
    addresses: tuple[str, ...]
    """1 to 16 addresses; ambiguous ones, which other machines may have too, are last."""


def instance(node: str) -> str:
    """Return the full name of a node's instance."""
    return f"{node}.{SERVICE}"


def is_instance(name: str) -> bool:
    """Return whether a name is the full name of a node's instance."""
    node = _node(name)
    return name.lower() == instance(node) and is_node_id(node)


def text(tag: bytes) -> dict[bytes, bytes]:
    """Return the keys and values of the TXT record."""
    return {b"v": _VERSION, b"h": tag.hex().encode()}


def read(record: Record, *, loopback: bool) -> Announcement | IgnoreCause:
    """Validate a record, which may be hostile. Return its content or the first fault.

    Unreachable addresses are left out. Loopback addresses count as unreachable, unless `loopback`
    asks for relays on this machine.
    """
    if not is_instance(record.name):
        return IgnoreCause.NAME
    node = _node(record.name)
    values = _values(record.text)
    if values is None:
        return IgnoreCause.TEXT
    if values.get(b"v") != _VERSION:
        return IgnoreCause.VERSION
    tag = values.get(b"h", b"")
    if not _TAG.fullmatch(tag):
        return IgnoreCause.TAG
    if record.port is None or not 1 <= record.port <= 65535:
        return IgnoreCause.PORT
    addresses = _reachable(record.addresses, loopback)
    if not addresses or len(record.addresses) > MAX_ADDRESSES:
        return IgnoreCause.ADDRESSES
    return Announcement(node, bytes.fromhex(tag.decode()), record.port, addresses)


def _node(name: str) -> str:
    return name[: -len(instance(""))].lower()


def _values(wire: bytes) -> dict[bytes, bytes] | None:
    """Split a TXT record into keys and values (RFC 6763, section 6). Return None if malformed.

    Keys are case-insensitive, and the first of two equal keys counts.
    """
    if len(wire) > _MAX_TEXT:
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
    for literal in addresses[:MAX_ADDRESSES]:
        try:
            address = ip_address(literal)
        except ValueError:
            continue
        if _is_reachable(address, loopback):
            found.add(address)
    ordered = sorted(found, key=lambda each: (is_ambiguous(str(each)), each.version, int(each)))
    return tuple(str(each) for each in ordered)


def _is_reachable(address: IPv4Address | IPv6Address, loopback: bool) -> bool:
    if address.is_loopback:
        return loopback
    if isinstance(address, IPv6Address) and (address.is_link_local or address.ipv4_mapped):
        return False
    return not (address.is_multicast or address.is_unspecified or address.is_reserved)
