"""Read the HTTP address and the weight that members publish in their metadata."""

from __future__ import annotations

import math
from typing import NamedTuple

import arke
from arke.program.addresses import depends_on_machine
from arke_proxy.backends.address import BackendAddress, parse_address

KEY = "http"
_WEIGHT = "weight"
_MIN_WEIGHT, _MAX_WEIGHT = 0.01, 1000.0
_ANY_ADDRESS = ("", "*", "0.0.0.0", "[::]")  # noqa: S104 — hosts that mean every address


class PublishedBackend(NamedTuple):
    """Where a member serves HTTP, and its weight in load balancing."""

    address: BackendAddress
    weight: float


def parse_metadata(member: arke.Member) -> PublishedBackend | None:
    """Parse `http=IP:PORT` and `weight=N`; None if the member has no `http`.

    If the IP is missing or means every address, the address of the member's node is used. Raises
    ValueError, with a message that completes "member … publishes …".
    """
    text = member.metadata.get(KEY)
    if text is None:
        return None
    host, _, port = text.strip().rpartition(":")
    if host in _ANY_ADDRESS:
        host = f"[{member.address}]" if ":" in member.address else member.address
    try:
        address = parse_address(f"{host}:{port}")
    except ValueError:
        raise ValueError(f"http={text[:60]!r}, which is not IP:PORT") from None
    return PublishedBackend(address, _parse_weight(member.metadata.get(_WEIGHT, "1")))


def is_local_to_another_machine(
    member: arke.Member, address: BackendAddress, node: arke.Node
) -> bool:
    """Whether only the machine of the member can connect to the address.

    On the proxy's own machine the same address would refer to another program, for example to the
    proxy's `-admin` pages. The address of the member's node is always allowed: its peers use it.
    """
    if member.node == node.id or address.host == member.address:
        return False
    return depends_on_machine(address.host)


def _parse_weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not _MIN_WEIGHT <= weight <= _MAX_WEIGHT:
        raise ValueError(
            f"weight={text[:60]!r}, which is not a number from {_MIN_WEIGHT:g} to {_MAX_WEIGHT:g}"
        )
    return weight
