"""Simulate joins between relays: they are slow, fail, or succeed on one side only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arke.wire.limits import MAX_MESSAGE
from arke_relay.core.dial_targets import DialTarget, DialTargets
from simulation.bounds import JOIN_LIMIT, SMALL_MAX_MESSAGE

if TYPE_CHECKING:
    from simulation.relay import Relay
    from simulation.world import World

_RETRY = 0.2
"""Seconds between two connection attempts of the kernel."""


class _Join:
    """A join that this relay started."""

    def __init__(self, dial_target: DialTarget) -> None:
        self.dial_target = dial_target
        self.ended = False


class Joins:
    """The joins of one relay. `admissions` are the nodes that may send to it."""

    def __init__(self, world: World, relay: Relay) -> None:
        self._world = world
        self._relay = relay
        self.admissions: set[str] = set()
        self.dial_targets = DialTargets(world.random.random)
        self.closed = False
        self.max_message = SMALL_MAX_MESSAGE if world.random.random() < 0.2 else MAX_MESSAGE
        """Bytes of the largest body that this relay announces to accept."""

    def hint(self, place: int, node: str | None = None) -> None:
        """Add a hint: a relay may run at `place`."""
        self.dial_targets.hint((str(place),), 1, node, None, self._relay.now)

    def dial_due(self) -> None:
        relay = self._relay
        if not self.closed:
            for dial_target in self.dial_targets.due(relay.membership.linked, relay.now):
                join = _Join(dial_target)
                self._world.schedule.after(JOIN_LIMIT, relay.do, self._give_up, join)
                self._reach(join)

    def _reach(self, join: _Join) -> None:
        """Deliver the JOIN message to the other node; retry while it cannot be reached."""
        world, here = self._world, self._relay.place
        place = int(join.dial_target.address)
        other = world.nodes[place].relay
        if join.ended:
            return
        if place == here:
            join.ended = True
            self.dial_targets.failed(join.dial_target, self._relay.now, myself=True)
        elif other is None or not world.cables.open(here, place):
            world.schedule.after(_RETRY, self._relay.do, self._reach, join)
        else:
            delay = world.cables.delay(world.cables[here, place])
            world.schedule.after(delay, other.do, other.joins._welcome, self._relay, join)

    def _welcome(self, other: Relay, join: _Join) -> None:
        """Admit a relay that joins. This side does not learn whether its reply arrives."""
        if self.closed:
            return
        self._admit(other)
        back = self._world.cables[self._relay.place, other.place]
        if not back.cuts:
            delay = self._world.cables.delay(back)
            self._world.schedule.after(delay, other.do, other.joins._welcomed, self._relay, join)

    def _welcomed(self, other: Relay, join: _Join) -> None:
        if join.ended or self.closed:
            return
        join.ended = True
        self.dial_targets.succeeded(join.dial_target, other.node, self._relay.now)
        self._admit(other)

    def _give_up(self, join: _Join) -> None:
        if not join.ended:
            join.ended = True
            self.dial_targets.failed(join.dial_target, self._relay.now)

    def _admit(self, other: Relay) -> None:
        now = self._relay.now
        self.admissions.add(other.node)
        self.dial_targets.hint((str(other.place),), 1, other.node, None, now)
        largest = other.joins.max_message
        self._relay.membership.admitted(other.node, b"", str(other.place), 1, 2, largest, now)
