"""What the text of a flag may be, and what it becomes.

A converter takes the text and returns the value, or raises `ValueError` with a message that
completes the sentence "-flag text: …". Any callable of that shape can be one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from arke.wire.limits import MAX_NAME

_SECONDS_PER_UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 365 * 86400.0  # timers and the wire have limits; nobody means a century
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhd])?")
_ON_OFF = dict.fromkeys(("on", "yes", "true", "1"), True) | dict.fromkeys(
    ("off", "no", "false", "0"), False
)


class HostPort(NamedTuple):
    """A host and a port; an empty host means every address of this machine."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def text(value: str) -> str:
    """Take any text that is not blank."""
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def name(value: str) -> str:
    """Take what can name a cluster, a topic or a network."""
    try:
        octets = len(value.encode())
    except UnicodeEncodeError:  # the shell passed what is not UTF-8
        octets = 0
    if not 0 < octets <= MAX_NAME:
        raise ValueError(f"must be 1 to {MAX_NAME} octets of UTF-8 text")
    return value


def count(value: str) -> int:
    """Take a whole number of at least 1."""
    return _whole(value, 1, 2**31 - 1, "must be a whole number of at least 1")


def port(value: str) -> int:
    """Take a port somebody can connect to."""
    return _whole(value, 1, 65535, "must be a port, 1 to 65535")


def any_port(value: str) -> int:
    """Take a port to listen on; 0 leaves the choice to the system."""
    return _whole(value, 0, 65535, "must be a port, 1 to 65535, or 0 for any")


def on_off(value: str) -> bool:
    """Take `on` or `off`, or what people write instead in an environment."""
    try:
        return _ON_OFF[value.lower()]
    except KeyError:
        raise ValueError("must be on or off") from None


def seconds(value: str) -> float:
    """Take a positive time, as seconds: `0.5`, `250ms`, `5s`, `10m`, `24h`, `7d`."""
    match = _DURATION.fullmatch(value)
    duration = float(match[1]) * _SECONDS_PER_UNIT[match[2] or "s"] if match else 0.0
    if not 0.0 < duration <= _LONGEST:
        raise ValueError("must be a time such as 250ms, 5s, 10m or 24h, at most 365d")
    return duration


def host_port(value: str) -> HostPort:
    """Take where to connect: `node7:55556`, `192.168.56.101:55556`, `[fe80::1]:55556`."""
    host, number = _split_host(value)
    if not host:
        raise ValueError("must be HOST:PORT")
    return HostPort(host, port(number))


def listen_address(value: str) -> HostPort:
    """Take where to listen: `:8080` on every address, `127.0.0.1:0` on any port of one."""
    host, number = _split_host(value)
    return HostPort(host, any_port(number))


def choice(*words: str) -> Callable[[str], str]:
    """Make a converter that takes exactly these words."""

    def choose(value: str) -> str:
        if value not in words:
            raise ValueError(f"must be {', '.join(words[:-1])} or {words[-1]}")
        return value

    return choose


def _whole(value: str, lowest: int, highest: int, otherwise: str) -> int:
    # int() alone would take "1_000", " 7 " and the digits of every script.
    digits = value.isascii() and value.isdigit() and len(value) <= len(str(highest))
    if not digits or not lowest <= int(value) <= highest:
        raise ValueError(otherwise)
    return int(value)


def _split_host(value: str) -> tuple[str, str]:
    host, colon, number = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or re.search(r"[\s/\[\]]", host) or (":" in host) is not bracketed:
        raise ValueError("must be HOST:PORT, with an IPv6 host in brackets")
    return host, number
