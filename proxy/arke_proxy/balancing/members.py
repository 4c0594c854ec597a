"""The members of a cluster that publish an address, and how each of them is reached."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from enum import Enum

import arke
from arke_proxy.backends.address import BackendAddress
from arke_proxy.balancing.balancer import BackendBalancer, BackendStatus, Outcome
from arke_proxy.balancing.member_metadata import Published, elsewhere, published
from arke_proxy.balancing.rotation import Rotation, Warn

_DETOUR = 60.0  # seconds until the direct way is tried again
_TOGETHER = 1.0  # seconds between the first and the last member of a relay that stops
_LINGER = 5.0  # seconds that the last ones stay; a relay restarts in less


class Via(Enum):
    """How the proxy reaches backends."""

    DIRECT = "direct"
    TUNNEL = "tunnel"  # of the mesh: the member's program makes the last connection
    AUTO = "auto"  # directly, and through a tunnel where that fails


class _Place:
    __slots__ = ("address", "said", "through", "until")

    def __init__(self, said: Published, member_id: str, *, direct: bool) -> None:
        self.said = said
        self.through = said.address._replace(via=member_id)
        self.address = said.address if direct else self.through  # as it is in the rotation
        self.until = 0.0  # the end of a detour, or of lingering; or when its member left


class MembersBalancer(BackendBalancer):
    """Keeps a rotation of what members publish, and chooses from it.

    Two members may publish one address, as while one program takes over from another: it stays
    until the last of them has left. When nobody is left at all, those who left last stay for some
    seconds, and while the proxy's own relay is away: to the mesh, the restart of a relay looks as
    if its members had gone, and their HTTP servers have not.
    """

    def __init__(
        self,
        cluster: str,
        rotation: Rotation,
        via: Via,
        say: Warn,
        attached: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._rotation = rotation
        self._via = via
        self._say = say
        self._attached = attached
        self._clock = clock
        self._places: dict[str, _Place] = {}  # by member id
        self._silent: set[str] = set()  # ids of members that publish nothing
        self._owners: dict[BackendAddress, str] = {}  # every way to a member, used or not
        self._users: Counter[BackendAddress] = (
            Counter()
        )  # members behind an address of the rotation
        self._on_detour: dict[str, _Place] = {}  # the first to come back first
        self._gone: dict[str, _Place] = {}  # with the last one; the first to leave first
        self._lingering = False  # they are in the rotation

    def __len__(self) -> int:
        return len(self._places) or (len(self._gone) if self._lingering else 0)

    def __contains__(self, address: BackendAddress) -> bool:
        """Say whether it is one of theirs, or was and is still at work."""
        return self._rotation.knows(address)

    # From the mesh.

    def joined(self, member: arke.Member, node: arke.Node) -> None:
        """Learn of a member; `node` is the proxy's own. Knowing it already is no harm."""
        try:
            said = published(member)
            if said is None:
                self._silent.add(member.id)
                self._rotation.silent = len(self._silent)
                return
            far = elsewhere(member, said.address, node)
            if far and self._via is Via.DIRECT:
                raise ValueError(
                    f"http={said.address}, which only its own machine can connect to; "
                    "publish another, or use -via tunnel"
                )
        except ValueError as fault:
            self._say(
                (self._cluster, member.id),
                f"member {member.id} of cluster {self._cluster} is left out: it publishes {fault}",
            )
            return
        known = self._places.get(member.id)
        if known and known.said == said:
            return
        self.left(member)
        direct = self._via is Via.DIRECT or (self._via is Via.AUTO and not far)
        place = self._places[member.id] = _Place(said, member.id, direct=direct)
        self._owners[said.address] = self._owners[place.through] = member.id
        self._enter(place)
        if self._lingering:
            self._let_go()

    def left(self, member: arke.Member) -> None:
        place = self._places.pop(member.id, None)
        if place is None:
            self._silent.discard(member.id)
            self._rotation.silent = len(self._silent)
            return
        self._on_detour.pop(member.id, None)
        now = self._clock()
        for id_, gone in list(self._gone.items()):
            if gone.until < now - _TOGETHER:
                del self._gone[id_]
        self._gone[member.id] = place
        place.until = now
        self._leave(place)
        for address in (place.said.address, place.through):
            if self._owners.get(address) == member.id:
                del self._owners[address]
        if not self._places:
            self._lingering = True
            for gone in self._gone.values():
                self._enter(gone)
                if gone.address.via:  # the others' servers may go on without a relay
                    self._rotation.depart(gone.address)
                gone.until = now + _LINGER

    # For the exchange.

    def pick_now(
        self, tried: Collection[BackendAddress], preferred: BackendAddress | None = None
    ) -> BackendAddress:
        if self._on_detour:
            self._come_back()
        if self._lingering:
            self._linger()
        if preferred is not None and (place := self._places.get(self._owners.get(preferred, ""))):
            preferred = place.address  # whichever way it is reached now
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
        """Take it out, or take the other way to it."""
        self._rotation.connect_failed(address)
        if not self._has_detour(address):
            return
        for member_id, place in self._places.items():  # two may publish one address
            if place.address == address:
                self._move(place, place.through)
                place.until = self._clock() + _DETOUR
                self._on_detour[member_id] = place
                sentence = f"backend {address} is reached through a tunnel for a minute"
                self._say((address, "detour"), sentence)

    def statuses(self) -> list[BackendStatus]:
        if self._lingering:
            self._linger()
        return self._rotation.statuses()

    # From checks.

    def check_failed(self, address: BackendAddress, fault: str, *, reachable: bool) -> None:
        """Learn that a check failed; where there is another way, it is taken before that counts."""
        if reachable or not self._has_detour(address):
            self._rotation.check_failed(address, fault, reachable=reachable)
        else:
            self.connect_failed(address)

    def check_passed(self, address: BackendAddress) -> None:
        self._rotation.check_passed(address)

    # Within.

    def _has_detour(self, address: BackendAddress) -> bool:
        return self._via is Via.AUTO and not address.via

    def _come_back(self) -> None:
        now = self._clock()
        for member_id, place in list(self._on_detour.items()):
            if place.until > now:
                return
            del self._on_detour[member_id]
            self._move(place, place.said.address)

    def _linger(self) -> None:
        now = self._clock()
        for gone in self._gone.values():
            if not self._attached():
                gone.until = now + _LINGER
            elif gone.until <= now:
                self._let_go()
                return

    def _let_go(self) -> None:
        self._lingering = False
        gone, self._gone = self._gone, {}
        for place in gone.values():
            self._leave(place)

    def _move(self, place: _Place, address: BackendAddress) -> None:
        self._leave(place)
        place.address = address
        self._enter(place)

    def _enter(self, place: _Place) -> None:
        self._users[place.address] += 1
        self._rotation.add(place.address, place.said.weight)

    def _leave(self, place: _Place) -> None:
        self._users[place.address] -= 1
        if not self._users[place.address]:
            del self._users[place.address]
            self._rotation.remove(place.address)
