"""Registrations, subscriptions, watches and status requests of a program."""

from __future__ import annotations

from arke.wire.limits import CHUNK, MAX_METADATA, check_map, check_name
from arke.wire.malformed import Malformed
from arke.wire.messages import Failure, Op
from arke_relay.attachments.context import AttachmentContext
from arke_relay.attachments.native.fields import Handler
from arke_relay.attachments.rate_limit import RegistrationRateLimit
from arke_relay.core.counters import DropCause
from arke_relay.core.endpoints import Message, Program


class NativeRegistration:
    """Handlers for one program."""

    def __init__(self, program: Program, context: AttachmentContext) -> None:
        self._program = program
        self._registry = context.registry
        self._programs = context.core.programs
        self._counters = context.core.counters
        self._status_document = context.status_document
        self._max_message = context.max_message
        self._rate_limit = RegistrationRateLimit()

    @property
    def handlers(self) -> dict[int, Handler]:
        return {
            Op.REGISTER: self._on_register,
            Op.UNREGISTER: self._on_unregister,
            Op.SUBSCRIBE: self._on_subscribe,
            Op.UNSUBSCRIBE: self._on_unsubscribe,
            Op.WATCH: self._on_watch,
            Op.UNWATCH: self._on_unwatch,
            Op.STATUS: self._on_status,
        }

    def _on_register(self, message: Message, now: float) -> None:
        self._rate_limit.count(now)
        _, cluster, metadata = message
        metadata = {} if metadata is None else check_map(metadata, MAX_METADATA)
        self._registry.register(self._program, check_name(cluster), metadata, now)

    def _on_unregister(self, message: Message, now: float) -> None:
        self._registry.unregister(self._program)

    def _on_subscribe(self, message: Message, now: float) -> None:
        self._rate_limit.count(now)
        self._registry.subscribe(self._program, check_name(message[1]))

    def _on_unsubscribe(self, message: Message, now: float) -> None:
        self._registry.unsubscribe(self._program, check_name(message[1]))

    def _on_watch(self, message: Message, now: float) -> None:
        self._rate_limit.count(now)
        self._programs.watch(self._program, check_name(message[1]))

    def _on_unwatch(self, message: Message, now: float) -> None:
        self._programs.unwatch(self._program, check_name(message[1]))

    def _on_status(self, message: Message, now: float) -> None:
        request_id = message[1]
        if type(request_id) is not int:
            raise Malformed("a request id must be a number")
        document = self._status_document(now)
        sink = self._program.sink
        if len(document) > max(CHUNK, self._max_message):
            text = f"a status of {len(document)} bytes exceeds the relay's -max-message"
            sink.put((Op.FAILED.value, request_id, Failure.TOO_LARGE.value, text))
        elif not sink.put_body((Op.REPLY.value, request_id, document), 2):
            self._counters.drops[DropCause.REPLY_QUEUE_FULL] += 1
