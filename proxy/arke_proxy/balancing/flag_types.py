"""Converters for the command-line flags about backends and routes."""

from __future__ import annotations

import re

from arke.program import flags
from arke_proxy.backends.address import BackendAddress, parse_address
from arke_proxy.balancing.members_balancer import Via
from arke_proxy.balancing.routes import Pattern, parse_route

_PATH = re.compile(r"/[!$-~]*")  # printable ASCII without spaces, quotes and #


def backend(text: str) -> BackendAddress:
    """Convert `IP:PORT`."""
    try:
        return parse_address(text)
    except ValueError:
        raise ValueError("must be IP:PORT") from None


def route(text: str) -> tuple[Pattern, str]:
    """Convert `host/path=cluster`."""
    pattern, cluster = parse_route(text)
    return pattern, flags.name(cluster)


def path(text: str) -> str:
    """Convert the path of a health check."""
    if not _PATH.fullmatch(text):
        raise ValueError("must be a path, such as /healthz")
    return text


def via(text: str) -> Via:
    """Convert the way to connect to backends."""
    return Via(flags.choice(*(way.value for way in Via))(text))
