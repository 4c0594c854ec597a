"""Which cluster a request is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from arke_proxy.balancing.balancer import BackendBalancer
from arke_proxy.balancing.sticky import Sticky


class Route(NamedTuple):
    """A cluster, who chooses among its backends, and how visitors come back to theirs."""

    cluster: str
    balancer: BackendBalancer
    sticky: Sticky | None = None


class Pattern(NamedTuple):
    """The requests of a route: `host` in small letters, b"" for any; `path` b"" or `/a/b`."""

    host: bytes
    path: bytes


class Routes:
    """Finds the route of a request: by its host, then by the longest path it is under.

    A host that no route names, or no route for that path, gets the routes of any host; last comes
    the default. Paths are compared as they were sent, segment by segment: `/api` is a prefix of
    `/api/users` and `/api?q`, not of `/apis`.
    """

    __slots__ = ("_default", "_hosts", "_longest")

    def __init__(
        self, default: Route | None, patterns: Mapping[Pattern, Route] | None = None
    ) -> None:
        self._default = default
        self._hosts: dict[bytes, dict[bytes, Route]] = {}
        self._longest = 0  # of all paths
        for (host, path), route in (patterns or {}).items():
            self._hosts.setdefault(host, {})[path] = route
            self._longest = max(self._longest, len(path))

    def __iter__(self) -> Iterator[Route]:
        """Every route once, for people and metrics."""
        routes = [route for paths in self._hosts.values() for route in paths.values()]
        if self._default:
            routes.append(self._default)
        yield from {id(route): route for route in routes}.values()

    def find(self, host: bytes | None, target: bytes) -> Route | None:
        """Return the route of a request for this host and target; None if nothing serves it."""
        hosts = self._hosts
        if hosts:
            own = hosts.get(_name(host)) if host else None
            if own is not None and (route := self._under(own, target)):
                return route
            anyones = hosts.get(b"")
            if anyones is not None and (route := self._under(anyones, target)):
                return route
        return self._default

    def _under(self, paths: Mapping[bytes, Route], target: bytes) -> Route | None:
        path = _path(target)
        if len(path) > self._longest:
            # One more byte shows whether the longest prefix ends with a segment. What is longer
            # is not looked at: a target of slashes alone costs no more than the longest path.
            path = path[: self._longest + 1]
            if path[-1:] != b"/":
                path = path[: path.rfind(b"/") + 1]
            path = path[:-1]
        while path:
            if route := paths.get(path):
                return route
            path = path[: max(0, path.rfind(b"/"))]
        return paths.get(b"")


def parse_route(text: str) -> tuple[Pattern, str]:
    """Read `host/path=cluster`; host may be empty or `*`, the path may be missing.

    Raises ValueError, with a message that completes "-route text: …".
    """
    where, sign, cluster = text.rpartition("=")
    host, slash, path = where.partition("/")
    if not sign or not cluster:
        raise ValueError("must be HOST/PATH=CLUSTER, such as shop.example/api=api")
    if not where.isascii() or not where.isprintable() or set(where) & set(' ?#"'):
        raise ValueError("a host and a path are printable ASCII, without blanks, ? and #")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("a host stands without its port: every port of it is meant")
    host = "" if host == "*" else host.lower().removesuffix(".")
    return Pattern(host.encode(), f"{slash}{path}".rstrip("/").encode()), cluster


def _name(host: bytes) -> bytes:
    """Return the host of `Host`, without its port, as routes spell it."""
    if host[-1:] != b"]":  # an IPv6 address alone
        name, colon, _ = host.rpartition(b":")
        host = name if colon else host
    return host.lower().removesuffix(b".")


def _path(target: bytes) -> bytes:
    if target[:1] != b"/":
        if b"://" not in target:
            return b""  # `OPTIONS *`
        _, _, target = target.partition(b"://")
        slash = target.find(b"/")
        target = target[slash:] if slash >= 0 else b""
    return target.partition(b"?")[0]
