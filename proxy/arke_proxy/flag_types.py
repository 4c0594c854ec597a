"""Converters for command-line flags of the proxy."""

from __future__ import annotations

import re
from ipaddress import ip_network

from arke_proxy.http.forwarded import ForwardedForm, Network

_SIZE = re.compile(r"([0-9]{1,15})([kmg]?)", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def network(value: str) -> Network:
    """Convert a network or one address: `10.0.0.0/8`, `192.168.56.1`, `fd00::/8`."""
    try:
        return ip_network(value)
    except ValueError as error:
        raise ValueError(f"must be a network such as 10.0.0.0/8: {error}") from None


def size(value: str) -> int:
    """Convert a number of bytes: `65536`, `64k`, `10m`, `2g`."""
    match = _SIZE.fullmatch(value)
    if not match:
        raise ValueError("must be a number of bytes such as 65536, 64k, 10m or 2g")
    return int(match[1]) * _UNITS[match[2].lower()]


def form(value: str) -> ForwardedForm:
    """Convert the form of the headers that describe clients to backends."""
    try:
        return ForwardedForm(value)
    except ValueError:
        raise ValueError("must be x, rfc7239 or both") from None
