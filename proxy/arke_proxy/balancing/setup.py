"""Routes and choosers, built as the flags say, and what keeps them up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import arke
from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.ask import AskBalancer
from arke_proxy.balancing.balancer import BackendBalancer
from arke_proxy.balancing.fallback import FallbackBalancer
from arke_proxy.balancing.health_checks import AT_ONCE, HealthChecker, HealthCheckTarget
from arke_proxy.balancing.health_probe import ProbeDialer, http_probe
from arke_proxy.balancing.members import MembersBalancer, Via
from arke_proxy.balancing.rotation import Departed, Rotation, Warn
from arke_proxy.balancing.routes import Pattern, Route, Routes
from arke_proxy.balancing.static import StaticBalancer
from arke_proxy.balancing.sticky import LEAST_KEY, Sticky
from arke_proxy.balancing.watch import MembershipWatch

_LISTING = 1.0  # seconds that the relay may take to name members


@dataclass(frozen=True, slots=True)
class BalancingConfig:
    """How backends are chosen."""

    way: str  # auto, ask, watch or static
    cluster: str | None  # of what no route names
    routes: Sequence[tuple[Pattern, str]]
    backends: Sequence[BackendAddress]  # for static
    default_port: int  # of answers that are an IP alone
    via: Via
    check: str | None  # the path
    cookie: str | None  # the name
    secret: bytes  # that cookies are sealed with

    def fault(self) -> str | None:
        """Say which flags do not go together."""
        if self.way == "static":
            if self.routes or not self.backends:
                return "-choose static needs -backend IP:PORT, and has no -route"
            if self.cluster or self.via is not Via.DIRECT:
                return "-cluster and -via are of the mesh; leave them out with -choose static"
            return None
        if self.backends:
            return "-backend goes with -choose static"
        if not self.cluster and not self.routes:
            return "give -cluster NAME, or set ARKE_CLUSTER; or give -route HOST/PATH=CLUSTER"
        if len({pattern for pattern, _ in self.routes}) < len(self.routes):
            return "two of -route are for the same host and path"
        if self.cookie and any(b";" in pattern.path for pattern, _ in self.routes):
            return "-sticky makes the path of a -route that of its cookie; choose one without ;"
        if self.way == "ask" and (self.check or self.via is not Via.DIRECT):
            return "-check and -via go with addresses that members publish: not with -choose ask"
        return None

    @property
    def described(self) -> str:
        """Complete the sentence "forwarding to …"."""
        if self.way == "static":
            return ", ".join(map(str, self.backends))
        names = dict.fromkeys(cluster for _, cluster in self.routes)
        if self.cluster:
            names[self.cluster] = None
        words = ", ".join(f'"{name}"' for name in names)
        return f"cluster {words}" if len(names) == 1 else f"clusters {words}"


class ClusterBalancers:
    """The routes of a proxy, alive from `start` to `stop`.

    `mesh` may be None for static. `dials` is how checks get to backends.
    """

    def __init__(
        self, choice: BalancingConfig, mesh: arke.Mesh | None, dials: ProbeDialer, say: Warn
    ) -> None:
        self._choice = choice
        self._mesh = mesh
        self._dials = dials
        self._say = say
        self._hear_departed: Departed = lambda _: None
        self._watches: list[MembershipWatch] = []
        self._checks: list[HealthChecker] = []
        self._few = asyncio.Semaphore(AT_ONCE)
        self._balancers: dict[str, BackendBalancer] = {}
        default = self._route(choice.cluster or "static") if self._has_default else None
        patterns = {
            pattern: self._route(cluster, pattern.path) for pattern, cluster in choice.routes
        }
        self.routes = Routes(default, patterns)

    def on_departed(self, departed: Departed) -> None:
        """Say who is to know of backends that nothing should be kept for any more."""
        self._hear_departed = departed

    async def start(self) -> None:
        """Return once the members are known, or the relay takes too long to name them."""
        await asyncio.gather(*(watch.start() for watch in self._watches))
        for checks in self._checks:
            checks.start()

    async def stop(self) -> None:
        for checks in self._checks:
            await checks.stop()
        for watch in self._watches:
            await watch.stop()

    async def fault(self) -> str:
        """Say why no request can be answered now; "" while any of the clusters has a backend."""
        for cluster, balancer in self._balancers.items():
            known = any(one.used for one in balancer.statuses())
            if await self._serves(cluster) if balancer.asks_members() else known:
                return ""
        if self._mesh and not self._mesh.attached:
            return "The relay of this machine is away."
        return f"Nobody serves {self._choice.described}."

    async def _serves(self, cluster: str) -> bool:
        """Say whether there is somebody to ask."""
        mesh = self._mesh
        if not mesh or not mesh.attached:
            return False
        try:
            async with asyncio.timeout(_LISTING):
                return bool(await mesh.members(cluster))
        except (TimeoutError, arke.ArkeError):
            return False

    @property
    def _has_default(self) -> bool:
        return self._choice.way == "static" or self._choice.cluster is not None

    def _route(self, cluster: str, path: bytes = b"") -> Route:
        balancer = self._balancers.get(cluster)
        if balancer is None:
            balancer = self._balancers[cluster] = self._balancer(cluster)
        choice = self._choice
        sticky = choice.cookie and Sticky(choice.cookie, choice.secret, cluster, path)
        return Route(cluster, balancer, sticky or None)

    def _balancer(self, cluster: str) -> BackendBalancer:
        choice = self._choice
        if choice.way == "static":
            known = StaticBalancer(choice.backends, self._say)
            self._check(known)
            return known
        mesh = self._mesh
        assert mesh
        ask = AskBalancer(mesh, cluster, choice.default_port)
        if choice.way == "ask":
            return ask
        rotation = Rotation(cluster, self._say, departed=self._departed)
        members = MembersBalancer(cluster, rotation, choice.via, self._say, lambda: mesh.attached)
        self._watches.append(MembershipWatch(mesh, cluster, members))
        self._check(members)
        return members if choice.way == "watch" else FallbackBalancer(members, ask)

    def _departed(self, address: BackendAddress) -> None:
        self._hear_departed(address)

    def _check(self, checked: HealthCheckTarget) -> None:
        if self._choice.check:
            probe = http_probe(self._choice.check, self._dials)
            self._checks.append(HealthChecker(checked, probe, self._few))


def read_key(file: Path) -> bytes:
    """Read the key of sticky cookies that several proxies share.

    Raises OSError; ValueError with a message that completes "-sticky-key FILE: …".
    """
    if file.stat().st_mode & 0o077:
        raise ValueError(f"others may read it; chmod 600 {file}")
    secret = file.read_bytes().strip()
    if len(secret) < LEAST_KEY:
        raise ValueError(
            f"holds less than {LEAST_KEY} bytes; `head -c 32 /dev/urandom | base64` makes 32"
        )
    return secret
