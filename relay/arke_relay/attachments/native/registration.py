"""Where a program is to be found, and what it wants to know of others."""

from __future__ import annotations

from arke.wire.limits import CHUNK, MAX_METADATA, check_map, check_name
from arke.wire.malformed import Malformed
from arke.wire.messages import Failure, Op
from arke_relay.attachments.native.fields import Handler
from arke_relay.attachments.program_registry import ProgramRegistry
from arke_relay.attachments.rate_limit import RegistrationRateLimit
from arke_relay.core.endpoints import Message, Program


class Registry:
    """Registrations, subscriptions, watches and questions of one program."""

    def __init__(self, program: Program, registry: ProgramRegistry) -> None:
        self._program = program
        self._registry = registry
        self._changes = RegistrationRateLimit()

    @property
    def handlers(self) -> dict[int, Handler]:
        return {
            Op.REGISTER: self._on_register,
            Op.UNREGISTER: self._on_leave,
            Op.SUBSCRIBE: self._on_subscribe,
            Op.UNSUBSCRIBE: self._on_unsubscribe,
            Op.WATCH: self._on_watch,
            Op.UNWATCH: self._on_unwatch,
            Op.STATUS: self._on_status,
        }

    def _on_register(self, message: Message, now: float) -> None:
        self._changes.count(now)
        _, cluster, metadata = message
        metadata = {} if metadata is None else check_map(metadata, MAX_METADATA)
        self._registry.registered(self._program, check_name(cluster), metadata, now)

    def _on_leave(self, message: Message, now: float) -> None:
        self._registry.left(self._program)

    def _on_subscribe(self, message: Message, now: float) -> None:
        self._changes.count(now)
        self._registry.subscribe(self._program, check_name(message[1]))

    def _on_unsubscribe(self, message: Message, now: float) -> None:
        self._registry.unsubscribe(self._program, check_name(message[1]))

    def _on_watch(self, message: Message, now: float) -> None:
        self._changes.count(now)
        self._registry.core.watch(self._program, check_name(message[1]))

    def _on_unwatch(self, message: Message, now: float) -> None:
        self._registry.core.unwatch(self._program, check_name(message[1]))

    def _on_status(self, message: Message, now: float) -> None:
        call = message[1]
        if type(call) is not int:
            raise Malformed("a call is a number")
        document = self._registry.document(now)
        sink = self._program.sink
        if len(document) > max(CHUNK, self._registry.max_message):
            why = f"a status of {len(document)} bytes is over the relay's limit (-max-message)"
            sink.put((Op.FAILED.value, call, Failure.TOO_LARGE.value, why))
        elif not sink.put_body((Op.REPLY.value, call, document), 2):
            self._registry.core.counters.drops["reply_queue_full"] += 1
