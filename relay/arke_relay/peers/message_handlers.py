"""The messages between relays: check the fields of each one and apply it to the relay's core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arke.wire.chunked_body import Body
from arke.wire.limits import (
    LARGEST_MAX_MESSAGE,
    MAX_HEADERS,
    MAX_ID,
    MAX_METADATA,
    MAX_REASON,
    MAX_TIMEOUT,
    MIN_WINDOW,
    check_map,
    check_name,
    check_tunnel_data,
)
from arke.wire.malformed import Malformed
from arke.wire.messages import Failure, Op, PeerOp, Purpose, TunnelClose
from arke.wire.reassembly import Reassembler
from arke_relay.core.counters import DropCause
from arke_relay.core.directed_request import DirectedRequest, TunnelParameters
from arke_relay.core.endpoints import Message, Peer
from arke_relay.core.message_core import MessageCore
from arke_relay.core.routed_request import RoutedRequest

_MAX_INBOX = LARGEST_MAX_MESSAGE
"""Bytes of partly received bodies of one peer."""

_MAX_CLOCK_DRIFT = 24 * 3600.0
"""Seconds that the deadline of the longest request may seem longer: clocks run at other speeds."""

Handler = Callable[[Peer, Message, float, float], None]
"""(peer, message, offset from the peer's clock to ours, now)."""


class MessageHandlers:
    """One handler for each operation. Invalid fields raise one of `DECODE_ERRORS`."""

    def __init__(
        self,
        core: MessageCore,
        max_message: int,
        on_known_peer: Callable[[str, str, int], None],
        on_synced: Callable[[Peer], None],
        on_draining: Callable[[Peer], None],
    ) -> None:
        self._core = core
        self._router = core.router
        self._tunnels = core.tunnels
        self._max_message = max_message
        self._known_peer = on_known_peer
        self._synced = on_synced
        self._draining = on_draining
        self.table: list[Handler] = [self._unknown] * 64
        """The handlers by operation number."""
        for op, handler in {
            Op.CHUNK: self._on_chunk,
            Op.REPLY: self._on_reply,
            Op.FAULT: self._on_fault,
            Op.REFUSED: self._on_refused,
            Op.FAILED: self._on_failed,
            Op.ACCEPT: self._on_accept,
            Op.DATA: self._on_data,
            Op.CREDIT: self._on_credit,
            Op.END: self._on_end,
            PeerOp.MEMBER_JOINED: self._on_joined,
            PeerOp.MEMBER_LEFT: self._on_left,
            PeerOp.SUBSCRIBED: self._on_subscribed,
            PeerOp.UNSUBSCRIBED: self._on_unsubscribed,
            PeerOp.SYNCED: self._on_synced,
            PeerOp.KNOWN_PEER: self._on_known_peer,
            PeerOp.DRAINING: self._on_draining,
            PeerOp.CLOSE: self._on_close,
            PeerOp.REQUEST: self._on_request,
            PeerOp.REQUEST_MEMBER: self._on_request_member,
            PeerOp.OPEN: self._on_open,
            PeerOp.CANCEL: self._on_cancel,
            PeerOp.BROADCAST: self._on_broadcast,
            PeerOp.PUBLISH: self._on_publish,
        }.items():
            self.table[op] = handler

    # Directory.

    def _on_joined(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        cluster, member = check_name(message[1]), _number(message[2])
        metadata = check_map(message[3], MAX_METADATA)
        if peer.draining:
            return  # a draining peer takes no requests, so new members there do not count
        if self._core.directory.join(cluster, peer, member, metadata):
            self._router.member_joined(cluster, now)
        else:
            self._core.counters.drops[DropCause.ANNOUNCEMENT_LIMIT_EXCEEDED] += 1

    def _on_left(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._core.directory.leave(check_name(message[1]), peer, _number(message[2]))

    def _on_subscribed(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        # Do not close the link: the programs of the peer's node cause the subscriptions.
        if not self._core.directory.subscribe(check_name(message[1]), peer):
            self._core.counters.drops[DropCause.ANNOUNCEMENT_LIMIT_EXCEEDED] += 1

    def _on_unsubscribed(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._core.directory.unsubscribe(check_name(message[1]), peer)

    def _on_synced(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        peer.synced = True
        self._synced(peer)

    def _on_known_peer(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._known_peer(check_name(message[1]), check_name(message[2]), _number(message[3]))

    def _on_draining(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._core.peers.drain(peer, _number(message[1]), now)
        self._draining(peer)

    def _on_close(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        peer.closing = True  # the link is closed after the rest of the batch

    # Requests.

    def _on_request(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, request_id, cluster, body, deadline, number, headers = message
        fields = self._request_fields(
            peer, request_id, cluster, body, deadline, number, headers, offset, now
        )
        if fields is not None:
            self._router.request(RoutedRequest(*fields), now)

    def _on_request_member(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, request_id, cluster, body, deadline, number, member, headers = message
        fields = self._request_fields(
            peer, request_id, cluster, body, deadline, number, headers, offset, now
        )
        if fields is not None:
            self._router.request(
                DirectedRequest(*fields, member=self._member(member), tunnel=None), now
            )

    def _on_open(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, request_id, cluster, body, deadline, number, member, *parameters, headers = message
        purpose, window, max_message = parameters
        fields = self._request_fields(
            peer, request_id, cluster, body, deadline, number, headers, offset, now
        )
        if fields is not None:
            tunnel = TunnelParameters(Purpose(purpose), _window(window), _number(max_message))
            request = DirectedRequest(*fields, member=self._member(member), tunnel=tunnel)
            self._router.request(request, now)

    def _request_fields(
        self,
        peer: Peer,
        request_id: Any,
        cluster: Any,
        body: Any,
        deadline: Any,
        number: Any,
        headers: Any,
        offset: float,
        now: float,
    ) -> tuple[Any, ...] | None:
        """Return the arguments of a RoutedRequest; None if there is no memory for its body."""
        if headers is not None:
            check_map(headers, MAX_HEADERS)
        joined = self._body(peer, body)
        if joined is None:
            peer.sink.put((Op.REFUSED.value, _number(request_id), "no memory for the chunked body"))
            return None
        deadline = _number(deadline) / 1000 + offset
        if deadline - now > MAX_TIMEOUT + _MAX_CLOCK_DRIFT:
            raise Malformed("a deadline beyond the longest request")
        sender = f"{peer.node}/{_number(number)}"
        name = check_name(cluster)
        return peer, _number(request_id), name, joined, deadline, sender, headers

    def _member(self, number: Any) -> str | None:
        return f"{self._core.node.id}/{number}" if _number(number) else None

    def _on_cancel(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._router.cancel(peer, _number(message[1]))

    def _on_reply(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        body = self._body(peer, message[2])
        if body is None:
            text = "this node had no memory for the chunked reply"
            self._router.fault(peer, message[1], "Overloaded", text, now)
        else:
            self._router.reply(peer, message[1], body, now)

    def _on_fault(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._router.fault(peer, message[1], _text(message[2]), _text(message[3]), now)

    def _on_refused(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._router.refused(peer, message[1], _text(message[2])[:MAX_REASON], now)

    def _on_failed(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._router.failed(peer, message[1], Failure(message[2]), _text(message[3]), now)

    # Tunnels.

    def _on_accept(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, request_id, window, largest = message
        self._router.accept(peer, _number(request_id), _window(window), _number(largest))

    def _on_data(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, name, total, data = message
        check_tunnel_data(total, data)
        self._tunnels.data(peer, name, total, data)

    def _on_credit(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._tunnels.grant(peer, message[1], _number(message[2]))

    def _on_end(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, name, ending, kind, text = message
        self._tunnels.end(peer, name, TunnelClose(ending), _text(kind), _text(text))

    # Broadcasts and publications.

    def _on_broadcast(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, cluster, body, number, headers = message
        if headers is not None:
            check_map(headers, MAX_HEADERS)
        joined = self._inbox(peer).take_fanout(body)
        if joined is None:
            self._core.counters.drops[DropCause.BROADCAST_BUFFER_FULL] += 1
        else:
            self._core.broadcasts.peer_broadcast(
                peer, check_name(cluster), joined, _number(number), headers
            )

    def _on_publish(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, topic, body, number, headers = message
        if headers is not None:
            check_map(headers, MAX_HEADERS)
        joined = self._inbox(peer).take_fanout(body)
        if joined is None:
            self._core.counters.drops[DropCause.BROADCAST_BUFFER_FULL] += 1
        else:
            self._core.broadcasts.peer_publish(
                peer, check_name(topic), joined, _number(number), headers
            )

    # Bodies.

    def _on_chunk(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._inbox(peer).add_chunk(message[1], message[2], message[3])

    def _body(self, peer: Peer, body: Any) -> Body | None:
        return body if type(body) is bytes else self._inbox(peer).take_body(body)

    def _inbox(self, peer: Peer) -> Reassembler:
        if peer.inbox is None:
            peer.inbox = Reassembler(self._max_message, _MAX_INBOX)
        return peer.inbox

    def _unknown(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        raise Malformed(f"unknown operation {message[0]!r:.20}")


def _number(number: object) -> int:
    if type(number) is not int or not 0 <= number <= MAX_ID:
        raise Malformed(f"expected an integer from 0 to {MAX_ID}")
    return number


def _window(size: object) -> int:
    window = _number(size)
    if window < MIN_WINDOW:
        raise Malformed(f"a window must be at least {MIN_WINDOW} bytes")
    return window


def _text(text: object) -> str:
    if type(text) is not str:
        raise Malformed("expected text")
    return text
