"""Where a program is to be found, and what it wants to know of others."""

from __future__ import annotations

from arke.wire.bounds import CHUNK, MAX_METADATA, MAX_TOPICS, check_map
from arke.wire.malformed import Malformed
from arke.wire.messages import Failure, Op
from arke_relay.attachments.hub import Hub
from arke_relay.attachments.native.fields import Handler, name
from arke_relay.core.exchange import NotAllowed
from arke_relay.core.parties import Message, Program

_CHANGES = 2.0 * MAX_TOPICS
_CHANGES_PER_SECOND = 1_000.0
"""Registrations, subscriptions and watches of one program: all when it attaches, then some."""


class Registry:
    """Registrations, subscriptions, watches and questions of one program."""

    def __init__(self, program: Program, hub: Hub) -> None:
        self._program = program
        self._hub = hub
        self._changes = _CHANGES
        self._changed = 0.0

    @property
    def handlers(self) -> dict[int, Handler]:
        return {
            Op.REGISTER: self._on_register,
            Op.LEAVE: self._on_leave,
            Op.SUBSCRIBE: self._on_subscribe,
            Op.UNSUBSCRIBE: self._on_unsubscribe,
            Op.WATCH: self._on_watch,
            Op.UNWATCH: self._on_unwatch,
            Op.STATUS: self._on_status,
        }

    def _on_register(self, message: Message, now: float) -> None:
        self._change(now)
        _, cluster, metadata = message
        metadata = {} if metadata is None else check_map(metadata, MAX_METADATA)
        self._hub.registered(self._program, name(cluster), metadata, now)

    def _on_leave(self, message: Message, now: float) -> None:
        self._hub.left(self._program)

    def _on_subscribe(self, message: Message, now: float) -> None:
        self._change(now)
        self._hub.subscribe(self._program, name(message[1]))

    def _on_unsubscribe(self, message: Message, now: float) -> None:
        self._hub.unsubscribe(self._program, name(message[1]))

    def _on_watch(self, message: Message, now: float) -> None:
        self._change(now)
        self._hub.exchange.watch(self._program, name(message[1]))

    def _on_unwatch(self, message: Message, now: float) -> None:
        self._hub.exchange.unwatch(self._program, name(message[1]))

    def _change(self, now: float) -> None:
        """Count what others must be told. Raises NotAllowed when it is too much."""
        allowed = self._changes + (now - self._changed) * _CHANGES_PER_SECOND
        self._changes = min(_CHANGES, allowed) - 1
        self._changed = now
        if self._changes < 0:
            raise NotAllowed("it comes and goes too often")

    def _on_status(self, message: Message, now: float) -> None:
        call = message[1]
        if type(call) is not int:
            raise Malformed("a call is a number")
        document = self._hub.document(now)
        outlet = self._program.outlet
        if len(document) > max(CHUNK, self._hub.max_message):
            why = f"a status of {len(document)} bytes is over the relay's limit (-max-message)"
            outlet.put((Op.FAILED.value, call, Failure.TOO_LARGE.value, why))
        elif not outlet.put_body((Op.REPLY.value, call, document), 2):
            self._hub.exchange.counters.drops["reply_without_room"] += 1
