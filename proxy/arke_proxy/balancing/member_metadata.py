"""What members say of their HTTP servers, in their metadata."""

from __future__ import annotations

import ipaddress
import math
from typing import NamedTuple

import arke
from arke_proxy.backends.address import BackendAddress, parse_address

KEY = "http"
_WEIGHT = "weight"
_LEAST_WEIGHT, _MOST_WEIGHT = 0.01, 1000.0
_EVERYWHERE = ("", "*", "0.0.0.0", "[::]")  # noqa: S104 — hosts that name no one machine


class Published(NamedTuple):
    """Where a member serves HTTP, as its own machine sees it, and its share of the requests."""

    address: BackendAddress
    weight: float


def published(member: arke.Member) -> Published | None:
    """Read `http=IP:PORT` and `weight=N`; None if the member says nothing of HTTP.

    Where the IP is missing, or stands for every address, its node's is meant. Raises ValueError,
    with a message that completes "member … publishes …".
    """
    text = member.metadata.get(KEY)
    if text is None:
        return None
    host, _, port = text.strip().rpartition(":")
    if host in _EVERYWHERE:
        host = f"[{member.address}]" if ":" in member.address else member.address
    try:
        address = parse_address(f"{host}:{port}", 0)
    except ValueError:
        raise ValueError(f"http={text[:60]!r}, which is not IP:PORT") from None
    return Published(address, _weight(member.metadata.get(_WEIGHT, "1")))


def elsewhere(member: arke.Member, address: BackendAddress, node: arke.Node) -> bool:
    """Say whether only the member's own machine can connect to the address: it is loopback there.

    Here the same address would be somebody else: the proxy itself, perhaps. A node that peers reach
    at loopback, as in tests, is on this machine.
    """
    if member.node == node.id or address.host == member.address:
        return False
    return ipaddress.ip_address(address.host).is_loopback


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT:
        raise ValueError(
            f"weight={text[:60]!r}, which is no number from {_LEAST_WEIGHT:g} to {_MOST_WEIGHT:g}"
        )
    return weight
