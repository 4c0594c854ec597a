"""What the flags about backends may say."""

from __future__ import annotations

import re

from arke.program import flags
from arke_proxy.backends.address import BackendAddress, parse_address
from arke_proxy.balancing.members import Via
from arke_proxy.balancing.routes import Pattern, parse_route

_PATH = re.compile(r"/[!$-~]*")  # printable ASCII without blanks, quotes and #


def backend(text: str) -> BackendAddress:
    """Take `IP:PORT`."""
    try:
        return parse_address(text, 0)
    except ValueError:
        raise ValueError("must be IP:PORT") from None


def route(text: str) -> tuple[Pattern, str]:
    """Take `host/path=cluster`."""
    pattern, cluster = parse_route(text)
    return pattern, flags.name(cluster)


def path(text: str) -> str:
    """Take a path to GET."""
    if not _PATH.fullmatch(text):
        raise ValueError("must be a path, such as /healthz")
    return text


def via(text: str) -> Via:
    """Take how to reach backends."""
    return Via(flags.choice(*(way.value for way in Via))(text))
