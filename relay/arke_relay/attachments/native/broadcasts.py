"""Broadcasts and events that a program sends."""

from __future__ import annotations

from typing import Any

from arke.wire.chunked_body import FanoutBody
from arke.wire.limits import MAX_HEADERS, check_map, check_name
from arke.wire.messages import Op
from arke.wire.reassembly import Reassembler
from arke_relay.attachments.native.fields import Handler
from arke_relay.core.counters import DropCause
from arke_relay.core.endpoints import Message, Program
from arke_relay.core.message_core import MessageCore


class NativeBroadcasts:
    """Handlers for one program."""

    def __init__(self, program: Program, inbox: Reassembler, core: MessageCore) -> None:
        self._program = program
        self._inbox = inbox
        self._counters = core.counters
        self._clusters = core.directory.clusters
        self._topics = core.directory.topics
        # Bound methods in a local variable are called fastest, see `_on_broadcast`.
        self._broadcast = core.broadcasts.broadcast
        self._publish = core.broadcasts.publish

    @property
    def handlers(self) -> dict[int, Handler]:
        return {Op.BROADCAST: self._on_broadcast, Op.PUBLISH: self._on_publish}

    def _on_broadcast(self, message: Message, now: float) -> None:
        _, cluster, body, headers = message
        if cluster not in self._clusters:
            check_name(cluster)
        if headers is not None or type(body) is not bytes:
            body = self._check(body, headers)
        if body is not None:
            broadcast = self._broadcast
            broadcast(self._program, cluster, body, headers)

    def _on_publish(self, message: Message, now: float) -> None:
        _, topic, body, headers = message
        if topic not in self._topics:
            check_name(topic)
        if headers is not None or type(body) is not bytes:
            body = self._check(body, headers)
        if body is not None:
            publish = self._publish
            publish(self._program, topic, body, headers)

    def _check(self, body: Any, headers: Any) -> FanoutBody | None:
        """Check the headers and return the body; None: its chunks were dropped."""
        if headers is not None:
            check_map(headers, MAX_HEADERS)
        reassembled = self._inbox.take_fanout(body)
        if reassembled is None:
            self._counters.drops[DropCause.BROADCAST_BUFFER_FULL] += 1
        return reassembled
