"""Joins that this relay begins: with dial targets, and renewals before an admission expires."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

import zmq

from arke.program.logging import Log
from arke_relay.core.dial_targets import DialTarget, DialTargets
from arke_relay.core.membership import Neighbour
from arke_relay.discovery.addresses import Address, source_for
from arke_relay.errors import JoinRefused
from arke_relay.peers.join_handshake import Admitted, Initiator
from arke_relay.peers.join_sockets import Join
from arke_relay.peers.keys import CurvePair

LOUD = 60.0
"""Seconds between two log lines about the same outsider."""


class Joiner:
    """`clock` is monotonic, `lifetime_clock` also counts while the machine is suspended: seconds.

    `initiate` makes our side of a join with whoever is at an address; `admit` enters its outcome
    and may raise JoinRefused; `joined` is called with it and the address when a join is done.
    `linked` says whether a node is no dial_target any more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        curve: CurvePair,
        join_keys: Sequence[CurvePair],
        bound: Sequence[Address],
        dial_targets: DialTargets,
        clock: Callable[[], float],
        lifetime_clock: Callable[[], float],
        initiate: Callable[[str], Initiator],
        admit: Callable[[Admitted], None],
        joined: Callable[[Admitted, str], None],
        linked: Callable[[str], bool],
        log: Log,
    ) -> None:
        self._loop = loop
        self._context = context
        self._curve = curve
        self._join_keys = join_keys
        self._bound = bound
        self._dial_targets = dial_targets
        self._clock = clock
        self._lifetime_clock = lifetime_clock
        self._initiate = initiate
        self._admit = admit
        self._joined = joined
        self._linked = linked
        self._log = log
        self._joins: set[Join] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewing: set[str] = set()
        self._soon: asyncio.Handle | None = None
        self._closed = False

    def close(self) -> None:
        """End every join, and begin no other."""
        self._closed = True
        for join in list(self._joins):
            join.close()

    def look_soon(self) -> None:
        """There are new dial_targets: dial them without waiting for the beat."""
        if self._soon is None:
            self._soon = self._loop.call_soon(self.dial_due)

    def dial_due(self) -> None:
        """Dial the dial_targets whose time has come."""
        self._soon = None
        if not self._closed:
            for dial_target in self._dial_targets.due(self._linked, self._clock()):
                self._start(self._dial(dial_target))

    def renew(self, neighbour: Neighbour) -> None:
        """Join a peer again, unless that is under way."""
        if neighbour.node not in self._renewing:
            self._renewing.add(neighbour.node)
            self._start(self._renew(neighbour))

    def look(self) -> None:
        """See at once what has arrived on the joins under way."""
        for join in list(self._joins):
            join.look()

    def _start(self, join: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(join)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self, target: DialTarget) -> None:
        now = self._clock()
        try:
            admitted = await self._join(target.address, target.port, target.key_index)
        except JoinRefused as error:
            myself = error.reason.endswith("this is me")
            self._dial_targets.failed(target, self._clock(), myself=myself)
            log = self._log.debug if myself else self._log.limited(target.where, LOUD).info
            log("peer not joined", address=target.where, reason=error.reason)
            return
        except asyncio.CancelledError:
            self._dial_targets.failed(target, now)
            return
        self._dial_targets.succeeded(target, admitted.node, self._clock())
        self._joined(admitted, target.address)

    async def _renew(self, neighbour: Neighbour) -> None:
        try:
            for key_index in range(len(self._join_keys)):
                try:
                    await self._join(neighbour.address, neighbour.join_port, key_index)
                except JoinRefused as error:
                    self._log.limited(("renew", neighbour.node), 1.0).warning(
                        "admission not renewed", node=neighbour.node, reason=error.reason
                    )
                else:
                    self._log.debug("admission renewed", node=neighbour.node)
                    return
        except asyncio.CancelledError:
            return
        finally:
            self._renewing.discard(neighbour.node)

    async def _join(self, address: str, port: int, key_index: int) -> Admitted:
        """One join with whoever is at the address, who is then admitted. Raises JoinRefused."""
        key = self._join_keys[key_index % len(self._join_keys)]
        try:
            join = Join(
                self._loop,
                self._context,
                self._curve,
                key.public,
                self._initiate(address),
                self._lifetime_clock,
                self._admit,
            )
        except zmq.ZMQError as error:
            raise JoinRefused(f"no connection can be made: {error}") from error
        self._joins.add(join)
        try:
            join.connect(address, port, source_for(address, self._bound))
            return await join.done
        except OSError as error:
            raise JoinRefused(f"no connection can be made: {error}") from error
        finally:
            self._joins.discard(join)
            join.close()
