"""`-choose watch`: balance over the addresses that a cluster's members publish."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from enum import Enum

import arke
from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import BackendBalancer, BackendStatus, Outcome, Warn
from arke_proxy.balancing.member_metadata import (
    PublishedBackend,
    is_local_to_another_machine,
    parse_metadata,
)
from arke_proxy.balancing.rotation import Rotation

_TUNNEL_FALLBACK = 60.0  # seconds until the direct connection is tried again
_SAME_DEPARTURE = 1.0  # seconds within which all members of a stopping relay leave
_LINGER = 5.0  # seconds that the last members stay in rotation; a relay restarts in less


class Via(Enum):
    """How the proxy connects to backends."""

    DIRECT = "direct"
    TUNNEL = "tunnel"  # through the mesh: the member's program connects to its HTTP server
    AUTO = "auto"  # directly; through a tunnel if that fails


class _MemberBackend:
    """A member that publishes an address."""

    __slots__ = ("address", "published", "tunnel", "until")

    def __init__(self, published: PublishedBackend, member_id: str, *, direct: bool) -> None:
        self.published = published
        self.tunnel = published.address._replace(via=member_id)
        self.address = published.address if direct else self.tunnel  # the one in the rotation
        self.until = 0.0  # end of its tunnel fallback or of its lingering; or when it left


class MembersBalancer(BackendBalancer):
    """Adds and removes the backends of a rotation as members join and leave.

    Two members may publish the same address, as when one program takes over from another. The
    backend stays until the last of them has left.

    When the last member leaves, the members that left last stay in rotation for some seconds, and
    for as long as the proxy's relay is disconnected. A restart of a relay looks as if its members
    had left, but their HTTP servers still run.
    """

    def __init__(
        self,
        cluster: str,
        rotation: Rotation,
        via: Via,
        warn: Warn,
        attached: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._rotation = rotation
        self._via = via
        self._warn = warn
        self._attached = attached
        self._clock = clock
        self._members: dict[str, _MemberBackend] = {}  # by member id
        self._without_address: set[str] = set()  # ids of members that publish no address
        self._owners: dict[BackendAddress, str] = {}  # direct and tunnel address → member id
        self._users: Counter[BackendAddress] = Counter()  # members per address in the rotation
        self._tunnel_fallbacks: dict[str, _MemberBackend] = {}  # in the order in which they end
        self._left: dict[str, _MemberBackend] = {}  # the last members to leave, oldest first
        self._lingering = False  # `_left` is in the rotation

    def __len__(self) -> int:
        return len(self._members) or (len(self._left) if self._lingering else 0)

    def __contains__(self, address: BackendAddress) -> bool:
        """Whether the backend is in the rotation, or draining."""
        return self._rotation.knows(address)

    # Membership.

    def member_joined(self, member: arke.Member, node: arke.Node) -> None:
        """Add a member, or update what it publishes; `node` is the proxy's own node."""
        try:
            published = parse_metadata(member)
            if published is None:
                self._without_address.add(member.id)
                self._rotation.members_without_address = len(self._without_address)
                return
            needs_tunnel = is_local_to_another_machine(member, published.address, node)
            if needs_tunnel and self._via is Via.DIRECT:
                raise ValueError(
                    f"http={published.address}, a loopback or link-local address of another "
                    "machine; publish an address that the proxy can connect to, or use -via tunnel"
                )
        except ValueError as fault:
            self._warn(
                (self._cluster, member.id),
                "member ignored",
                member=member.id,
                cluster=self._cluster,
                reason=f"it publishes {fault}",
            )
            return
        known = self._members.get(member.id)
        if known and known.published == published:
            return
        self.member_left(member)
        direct = self._via is Via.DIRECT or (self._via is Via.AUTO and not needs_tunnel)
        added = self._members[member.id] = _MemberBackend(published, member.id, direct=direct)
        self._owners[published.address] = self._owners[added.tunnel] = member.id
        self._add_to_rotation(added)
        if self._lingering:
            self._end_lingering()

    def member_left(self, member: arke.Member) -> None:
        known = self._members.pop(member.id, None)
        if known is None:
            self._without_address.discard(member.id)
            self._rotation.members_without_address = len(self._without_address)
            return
        self._tunnel_fallbacks.pop(member.id, None)
        now = self._clock()
        for id_, left in list(self._left.items()):
            if left.until < now - _SAME_DEPARTURE:
                del self._left[id_]
        self._left[member.id] = known
        known.until = now
        self._remove_from_rotation(known)
        for address in (known.published.address, known.tunnel):
            if self._owners.get(address) == member.id:
                del self._owners[address]
        if not self._members:
            self._start_lingering(now)

    # Requests.

    def pick_now(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress:
        if self._tunnel_fallbacks:
            self._end_tunnel_fallbacks()
        if self._lingering:
            self._update_lingering()
        if preferred is not None and (member := self._members.get(self._owners.get(preferred, ""))):
            preferred = member.address  # direct or tunnel, as it is reached now
        return self._rotation.pick_now(tried, preferred)

    async def pick(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress:
        return self.pick_now(tried, preferred)

    def request_started(self, address: BackendAddress) -> None:
        self._rotation.request_started(address)

    def request_ended(self, address: BackendAddress, outcome: Outcome) -> None:
        self._rotation.request_ended(address, outcome)

    def connect_failed(self, address: BackendAddress) -> None:
        """Eject the backend, or fall back to a tunnel."""
        self._rotation.connect_failed(address)
        if not self._can_use_tunnel(address):
            return
        for member_id, member in self._members.items():  # two may publish the same address
            if member.address == address:
                self._change_address(member, member.tunnel)
                member.until = self._clock() + _TUNNEL_FALLBACK
                self._tunnel_fallbacks[member_id] = member
                self._warn(
                    (address, "tunnel"),
                    "cannot connect to backend: using a mesh tunnel",
                    backend=str(address),
                    seconds=_TUNNEL_FALLBACK,
                )

    def statuses(self) -> list[BackendStatus]:
        if self._lingering:
            self._update_lingering()
        return self._rotation.statuses()

    # Active health checks.

    def check_failed(self, address: BackendAddress, fault: str, *, reachable: bool) -> None:
        """Count a failed check; if connecting failed, fall back to a tunnel where possible."""
        if reachable or not self._can_use_tunnel(address):
            self._rotation.check_failed(address, fault, reachable=reachable)
        else:
            self.connect_failed(address)

    def check_passed(self, address: BackendAddress) -> None:
        self._rotation.check_passed(address)

    # Tunnel fallback.

    def _can_use_tunnel(self, address: BackendAddress) -> bool:
        return self._via is Via.AUTO and not address.via

    def _end_tunnel_fallbacks(self) -> None:
        now = self._clock()
        for member_id, member in list(self._tunnel_fallbacks.items()):
            if member.until > now:
                return
            del self._tunnel_fallbacks[member_id]
            self._change_address(member, member.published.address)

    # Lingering.

    def _start_lingering(self, now: float) -> None:
        """Put the members that left last back into the rotation."""
        self._lingering = True
        for member in self._left.values():
            self._add_to_rotation(member)
            if member.address.via:  # its tunnels end with its relay; direct connections may not
                self._rotation.mark_departed(member.address)
            member.until = now + _LINGER

    def _update_lingering(self) -> None:
        now = self._clock()
        for member in self._left.values():
            if not self._attached():
                member.until = now + _LINGER
            elif member.until <= now:
                self._end_lingering()
                return

    def _end_lingering(self) -> None:
        self._lingering = False
        left, self._left = self._left, {}
        for member in left.values():
            self._remove_from_rotation(member)

    # The rotation.

    def _change_address(self, member: _MemberBackend, address: BackendAddress) -> None:
        self._remove_from_rotation(member)
        member.address = address
        self._add_to_rotation(member)

    def _add_to_rotation(self, member: _MemberBackend) -> None:
        self._users[member.address] += 1
        self._rotation.add(member.address, member.published.weight)

    def _remove_from_rotation(self, member: _MemberBackend) -> None:
        self._users[member.address] -= 1
        if not self._users[member.address]:
            del self._users[member.address]
            self._rotation.remove(member.address)
