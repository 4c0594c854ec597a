"""Routes: find the cluster for a request by its host and path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from arke_proxy.balancing.balancer import BackendBalancer
from arke_proxy.balancing.sticky_cookies import StickyCookies


class Route(NamedTuple):
    """A cluster, its balancer, and its sticky cookies; None without -sticky."""

    cluster: str
    balancer: BackendBalancer
    sticky: StickyCookies | None = None


class Pattern(NamedTuple):
    """Which requests a route takes: `host` in lower case, or b"" for any; `path` b"" or `/a/b`."""

    host: bytes
    path: bytes


class Routes:
    """Finds the route of a request: by its host, then by the longest matching path prefix.

    A request that matches no route of its own host gets a route for any host, then the default
    route. Paths are compared as sent, segment by segment: `/api` matches `/api/users` and `/api?q`,
    but not `/apis`.
    """

    __slots__ = ("_default", "_hosts", "_longest_path")

    def __init__(
        self, default: Route | None, patterns: Mapping[Pattern, Route] | None = None
    ) -> None:
        self._default = default
        self._hosts: dict[bytes, dict[bytes, Route]] = {}
        self._longest_path = 0
        for (host, path), route in (patterns or {}).items():
            self._hosts.setdefault(host, {})[path] = route
            self._longest_path = max(self._longest_path, len(path))

    def __iter__(self) -> Iterator[Route]:
        """Yield each route once."""
        routes = [route for paths in self._hosts.values() for route in paths.values()]
        if self._default:
            routes.append(self._default)
        yield from {id(route): route for route in routes}.values()

    def find(self, host: bytes | None, target: bytes) -> Route | None:
        """Return the route for this `Host` field and request target; None if none matches."""
        hosts = self._hosts
        if hosts:
            own = hosts.get(_host_name(host)) if host else None
            if own is not None and (route := self._longest_match(own, target)):
                return route
            any_host = hosts.get(b"")
            if any_host is not None and (route := self._longest_match(any_host, target)):
                return route
        return self._default

    def _longest_match(self, paths: Mapping[bytes, Route], target: bytes) -> Route | None:
        path = _target_path(target)
        if len(path) > self._longest_path:
            # One more byte shows whether the longest prefix ends with a segment. The rest is not
            # searched: a target of slashes alone costs no more than the longest path.
            path = path[: self._longest_path + 1]
            if path[-1:] != b"/":
                path = path[: path.rfind(b"/") + 1]
            path = path[:-1]
        while path:
            if route := paths.get(path):
                return route
            path = path[: max(0, path.rfind(b"/"))]
        return paths.get(b"")


def parse_route(text: str) -> tuple[Pattern, str]:
    """Parse `host/path=cluster`; the host may be empty or `*`, and the path may be missing.

    Raises ValueError, with a message that completes "-route text: …".
    """
    where, sign, cluster = text.rpartition("=")
    host, slash, path = where.partition("/")
    if not sign or not cluster:
        raise ValueError("must be HOST/PATH=CLUSTER, such as shop.example/api=api")
    if not where.isascii() or not where.isprintable() or set(where) & set(' ?#"'):
        raise ValueError("must be printable ASCII without spaces, quotes, ? and #")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError("must have a host without a port, because a route applies to every port")
    host = "" if host == "*" else host.lower().removesuffix(".")
    return Pattern(host.encode(), f"{slash}{path}".rstrip("/").encode()), cluster


def _host_name(host: bytes) -> bytes:
    """Return a `Host` field without its port, normalised as in `Pattern`."""
    if host[-1:] != b"]":  # an IPv6 address without a port
        name, colon, _ = host.rpartition(b":")
        host = name if colon else host
    return host.lower().removesuffix(b".")


def _target_path(target: bytes) -> bytes:
    if target[:1] != b"/":
        if b"://" not in target:
            return b""  # `OPTIONS *`
        _, _, target = target.partition(b"://")
        slash = target.find(b"/")
        target = target[slash:] if slash >= 0 else b""
    return target.partition(b"?")[0]
