"""The load-balancing configuration, as the command-line flags set it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.members_balancer import Via
from arke_proxy.balancing.routes import Pattern


@dataclass(frozen=True, slots=True)
class BalancingConfig:
    """Where backends come from, and how the proxy connects to them and checks them."""

    choose: str  # auto, ask, watch or static
    cluster: str | None  # of the default route
    routes: Sequence[tuple[Pattern, str]]
    backends: Sequence[BackendAddress]  # for `-choose static`
    default_port: int  # when a member answers with an IP alone
    via: Via
    check_path: str | None
    cookie_name: str | None
    cookie_secret: bytes

    def conflict(self) -> str | None:
        """Return an error message if flags are missing or contradict each other."""
        if self.choose == "static":
            if self.routes or not self.backends:
                return "-choose static needs -backend IP:PORT, and takes no -route"
            if self.cluster or self.via is not Via.DIRECT:
                return "-choose static uses no mesh: give neither -cluster (ARKE_CLUSTER) nor -via"
            return None
        if self.backends:
            return "-backend needs -choose static"
        if not self.cluster and not self.routes:
            return "give -cluster NAME, or set ARKE_CLUSTER; or give -route HOST/PATH=CLUSTER"
        if len({pattern for pattern, _ in self.routes}) < len(self.routes):
            return "two -route flags have the same host and path"
        if self.cookie_name and any(b";" in pattern.path for pattern, _ in self.routes):
            return (
                "with -sticky, the path of a -route becomes a cookie's path: remove the ; from it"
            )
        if self.choose == "ask" and (self.check_path or self.via is not Via.DIRECT):
            return "-check and -via need addresses that members publish; remove -choose ask"
        return None

    @property
    def description(self) -> str:
        """What requests are forwarded to, for the log."""
        if self.choose == "static":
            return ", ".join(map(str, self.backends))
        names = dict.fromkeys(cluster for _, cluster in self.routes)
        if self.cluster:
            names[self.cluster] = None
        words = ", ".join(f'"{name}"' for name in names)
        return f"cluster {words}" if len(names) == 1 else f"clusters {words}"
