"""Start outgoing joins: with dial targets that are due, and with peers before admissions end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Protocol

import zmq

from arke_relay.core.dial_targets import DialTarget, DialTargets
from arke_relay.core.membership import Neighbour
from arke_relay.discovery.addresses import Address, source_for
from arke_relay.environment import RelayEnvironment
from arke_relay.errors import (
    ConnectionFailure,
    JoinFailed,
    JoinRefused,
    PeerUnreachable,
    RefusalCode,
)
from arke_relay.peers.join_handshake import AdmittedPeer, Initiator
from arke_relay.peers.keys import CurvePair
from arke_relay.peers.outgoing_join import OutgoingJoin

LOG_PERIOD = 60.0
"""Seconds between two log lines about the same remote address."""


class OutgoingJoinHandler(Protocol):
    """Decides about outgoing joins."""

    def initiate(self, address: str) -> Initiator:
        """Return the initiator of a new join with the relay at `address`."""

    def admit(self, peer: AdmittedPeer) -> None:
        """Admit the peer after its join, or renew its admission. Raises JoinRefused."""

    def link(self, peer: AdmittedPeer, address: str) -> None:
        """Link with a peer that was dialled and admitted."""

    def is_linked(self, node: str) -> bool:
        """Whether a node needs no dialling because a link to it exists."""


class JoinScheduler:
    """Runs outgoing joins as tasks. `join_keys` has one key for each of the relay's RSA keys."""

    def __init__(
        self,
        environment: RelayEnvironment,
        context: zmq.Context[zmq.Socket[bytes]],
        curve: CurvePair,
        join_keys: Sequence[CurvePair],
        bound: Sequence[Address],
        targets: DialTargets,
        handler: OutgoingJoinHandler,
    ) -> None:
        self._loop = environment.loop
        self._clock = environment.clock
        self._lifetime_clock = environment.lifetime_clock
        self._log = environment.log
        self._context = context
        self._curve = curve
        self._join_keys = join_keys
        self._bound = bound
        self._targets = targets
        self._handler = handler
        self._joins: set[OutgoingJoin] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewing: set[str] = set()
        self._scheduled: asyncio.Handle | None = None
        self._closed = False

    def close(self) -> None:
        """Cancel every join and start no other."""
        self._closed = True
        for join in list(self._joins):
            join.close()

    def dial_soon(self) -> None:
        """Dial new targets without waiting for the next tick."""
        if self._scheduled is None:
            self._scheduled = self._loop.call_soon(self.dial_due)

    def dial_due(self) -> None:
        """Dial the targets that are due."""
        self._scheduled = None
        if not self._closed:
            for target in self._targets.due(self._handler.is_linked, self._clock()):
                self._start(self._dial(target))

    def renew(self, neighbour: Neighbour) -> None:
        """Join a peer again to renew its admission, unless a renewal is in progress."""
        if neighbour.node not in self._renewing:
            self._renewing.add(neighbour.node)
            self._start(self._renew(neighbour))

    def check(self) -> None:
        """Process now what has arrived for the joins in progress."""
        for join in list(self._joins):
            join.check()

    def _start(self, join: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(join)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self, target: DialTarget) -> None:
        now = self._clock()
        try:
            peer = await self._join(target.address, target.port, target.key_index)
        except JoinFailed as error:
            to_self = _is_connected_to_self(error)
            self._targets.failed(target, self._clock(), myself=to_self)
            if to_self:
                self._log.debug("own address skipped", address=target.where)
            else:
                self._log_failure(target.where, error)
            return
        except asyncio.CancelledError:
            self._targets.failed(target, now)
            return
        self._targets.succeeded(target, peer.node, self._clock())
        self._handler.link(peer, target.address)

    def _log_failure(self, address: str, error: JoinFailed) -> None:
        log = self._log.limited(address, LOG_PERIOD)
        if not isinstance(error, JoinRefused):
            log.info("cannot reach peer", address=address, reason=error.reason, error=error)
        elif error.by_peer:
            log.info("refused by peer", address=address, reason=error.reason, error=error)
        else:
            log.info("peer refused", address=address, reason=error.reason, error=error)

    async def _renew(self, neighbour: Neighbour) -> None:
        try:
            for key_index in range(len(self._join_keys)):
                try:
                    await self._join(neighbour.address, neighbour.join_port, key_index)
                except JoinFailed as error:
                    self._log.limited(("renew", neighbour.node), 1.0).warning(
                        "admission not renewed",
                        node=neighbour.node,
                        reason=error.reason,
                        error=error,
                    )
                else:
                    self._log.debug("admission renewed", node=neighbour.node)
                    return
        except asyncio.CancelledError:
            return
        finally:
            self._renewing.discard(neighbour.node)

    async def _join(self, address: str, port: int, key_index: int) -> AdmittedPeer:
        """Join the relay at an address once, and admit it. Raises JoinFailed."""
        key = self._join_keys[key_index % len(self._join_keys)]
        try:
            join = OutgoingJoin(
                self._loop,
                self._context,
                self._curve,
                key.public,
                self._handler.initiate(address),
                self._lifetime_clock,
                self._handler.admit,
            )
        except zmq.ZMQError as error:
            raise PeerUnreachable(ConnectionFailure.SOCKET_ERROR, str(error)) from error
        self._joins.add(join)
        try:
            join.connect(address, port, source_for(address, self._bound))
            return await join.done
        except OSError as error:
            raise PeerUnreachable(ConnectionFailure.SOCKET_ERROR, str(error)) from error
        finally:
            self._joins.discard(join)
            join.close()


def _is_connected_to_self(error: JoinFailed) -> bool:
    return isinstance(error, JoinRefused) and error.code is RefusalCode.CONNECTED_TO_SELF
