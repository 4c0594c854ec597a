"""Build the routes and the balancer of each cluster, and run what keeps them up to date."""

from __future__ import annotations

import asyncio

import arke
from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.ask_balancer import AskBalancer
from arke_proxy.balancing.balancer import BackendBalancer, Warn
from arke_proxy.balancing.config import BalancingConfig
from arke_proxy.balancing.fallback_balancer import FallbackBalancer
from arke_proxy.balancing.health_checks import (
    MAX_CONCURRENT_CHECKS,
    HealthChecker,
    HealthCheckTarget,
)
from arke_proxy.balancing.health_probe import ProbeDialer, http_probe
from arke_proxy.balancing.members_balancer import MembersBalancer
from arke_proxy.balancing.membership_watch import MembershipWatch
from arke_proxy.balancing.named_addresses import NamedAddresses
from arke_proxy.balancing.rotation import OnDeparture, Rotation
from arke_proxy.balancing.routes import Route, Routes
from arke_proxy.balancing.static_balancer import StaticBalancer
from arke_proxy.balancing.sticky_cookies import StickyCookies

_LIST_TIMEOUT = 1.0  # seconds for the relay to list the members of a cluster


class ClusterBalancers:
    """The routes of a proxy and the balancers behind them, running from `start` to `stop`.

    `mesh` may be None for `-choose static`. Health checks connect with `dialer`.
    """

    def __init__(
        self, config: BalancingConfig, mesh: arke.Mesh | None, dialer: ProbeDialer, warn: Warn
    ) -> None:
        self._config = config
        self._mesh = mesh
        self._dialer = dialer
        self._warn = warn
        self._on_departure: OnDeparture = lambda _: None
        self._watches: list[MembershipWatch] = []
        self._checkers: list[HealthChecker] = []
        self._check_concurrency = asyncio.Semaphore(MAX_CONCURRENT_CHECKS)
        self._balancers: dict[str, BackendBalancer] = {}  # by cluster
        default = self._route(config.cluster or "static") if self._has_default else None
        patterns = {
            pattern: self._route(cluster, pattern.path) for pattern, cluster in config.routes
        }
        self.routes = Routes(default, patterns)

    def on_departure(self, callback: OnDeparture) -> None:
        """Set the callback that closes idle connections to a backend that is removed."""
        self._on_departure = callback

    async def start(self) -> None:
        """Return when the members are known, or the relay takes too long to list them."""
        await asyncio.gather(*(watch.start() for watch in self._watches))
        for checker in self._checkers:
            checker.start()

    async def stop(self) -> None:
        for checker in self._checkers:
            await checker.stop()
        for watch in self._watches:
            await watch.stop()

    async def unready_reason(self) -> str:
        """Return why no request can be answered; "" if at least one cluster has a backend."""
        for cluster, balancer in self._balancers.items():
            in_use = any(status.in_use for status in balancer.statuses())
            if await self._has_members(cluster) if balancer.asks_members() else in_use:
                return ""
        if self._mesh and not self._mesh.attached:
            return "The proxy is not connected to its relay."
        return f"No backends in {self._config.description}."

    async def _has_members(self, cluster: str) -> bool:
        mesh = self._mesh
        if not mesh or not mesh.attached:
            return False
        try:
            async with asyncio.timeout(_LIST_TIMEOUT):
                return bool(await mesh.members(cluster))
        except (TimeoutError, arke.ArkeError):
            return False

    @property
    def _has_default(self) -> bool:
        return self._config.choose == "static" or self._config.cluster is not None

    def _route(self, cluster: str, path: bytes = b"") -> Route:
        balancer = self._balancers.get(cluster)
        if balancer is None:
            balancer = self._balancers[cluster] = self._create_balancer(cluster)
        name, secret = self._config.cookie_name, self._config.cookie_secret
        return Route(
            cluster, balancer, StickyCookies(name, secret, cluster, path) if name else None
        )

    def _create_balancer(self, cluster: str) -> BackendBalancer:
        config = self._config
        if config.choose == "static":
            static = StaticBalancer(config.backends, self._warn)
            self._add_checker(static)
            return static
        mesh = self._mesh
        assert mesh
        named = NamedAddresses()
        ask = AskBalancer(mesh, cluster, config.default_port, named)
        if config.choose == "ask":
            self._watches.append(MembershipWatch(mesh, cluster, named))
            return ask
        rotation = Rotation(cluster, self._warn, on_departure=self._departed)
        members = MembersBalancer(cluster, rotation, config.via, self._warn, lambda: mesh.attached)
        self._watches.append(MembershipWatch(mesh, cluster, named, members))
        self._add_checker(members)
        return members if config.choose == "watch" else FallbackBalancer(members, ask)

    def _departed(self, address: BackendAddress) -> None:
        self._on_departure(address)

    def _add_checker(self, target: HealthCheckTarget) -> None:
        if self._config.check_path:
            probe = http_probe(self._config.check_path, self._dialer)
            self._checkers.append(HealthChecker(target, probe, self._check_concurrency))
