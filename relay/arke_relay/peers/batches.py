"""Batches of messages between relays: what another relay says, as calls on the core.

Who says it is what admission attached to the frame. A relay that breaks the protocol is cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from arke.wire.chunked_body import Body
from arke.wire.limits import (
    MAX_HEADERS,
    MAX_ID,
    MAX_METADATA,
    MAX_REASON,
    MAX_TIMEOUT,
    MIN_WINDOW,
    check_map,
    check_name,
    unpacker,
)
from arke.wire.malformed import DECODE_ERRORS, Malformed, describe_malformed
from arke.wire.messages import Failure, Op, PeerOp, Purpose, TunnelClose
from arke.wire.reassembly import Reassembler
from arke_relay.core.directed_request import DirectedRequest, TunnelParameters
from arke_relay.core.endpoints import Message, Peer
from arke_relay.core.membership import Membership
from arke_relay.core.message_core import MessageCore
from arke_relay.core.routed_request import RoutedRequest

FRAME = 128 * 1024
"""Largest frame: one chunk, what may go ahead of it, and room to spare."""

_INBOX = 256 * 1024 * 1024
"""Octets of half-received bodies of one peer: as many as the largest body allowed anywhere."""

_DRIFT = 24 * 3600.0
"""Seconds: what two clocks may make of a week."""

_NIL = b"\xc0"


class Batches:
    """Reads every peer's batches. `known` is told whom peers know: node, address, join port."""

    def __init__(
        self,
        core: MessageCore,
        membership: Membership,
        max_message: int,
        known: Callable[[str, str, int], None],
        synced: Callable[[Peer], None],
        drained: Callable[[Peer], None],
    ) -> None:
        self._core = core
        self._router = core.router
        self._tunnels = core.tunnels
        self._membership = membership
        self._max_message = max_message
        self._known = known
        self._synced = synced
        self._drained = drained
        self._unpacker = unpacker(FRAME + 1)  # one for all: a frame holds whole messages
        self._handlers: list[Callable[[Peer, Message, float, float], None]] = [self._unknown] * 64
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
            PeerOp.KNOWN_PEER: self._on_known,
            PeerOp.DRAINING: self._on_draining,
            PeerOp.CLOSE: self._on_farewell,
            PeerOp.REQUEST: self._on_call,
            PeerOp.REQUEST_MEMBER: self._on_ask,
            PeerOp.OPEN: self._on_open,
            PeerOp.CANCEL: self._on_drop_call,
            PeerOp.BROADCAST: self._on_told,
            PeerOp.PUBLISH: self._on_event,
        }.items():
            self._handlers[op] = handler

    def receive(self, node: str, frame: bytes, now: float) -> None:
        """Handle one frame of an admitted node."""
        messages = self._unpacker
        try:
            messages.feed(frame)
            session, stamp, hearing = next(messages)
            if type(session) is not int or type(stamp) is not int or type(hearing) is not int:
                raise Malformed("a batch begins with three numbers")
            if session > MAX_ID:
                raise Malformed(f"a session over {MAX_ID}")
            heard = self._membership.heard(node, session, stamp, hearing, now)
            if heard is None:
                self._core.counters.drops["stale_session"] += 1
                self._unpacker = unpacker(FRAME + 1)
                return
            peer, waited = heard
            # A call's expiry is on the sender's clock: what passed since the stamp counts too.
            offset = now - (stamp + waited) / 1000
            handlers = self._handlers
            for message in messages:
                handlers[message[0]](peer, message, offset, now)
            # One octet more is a message of its own, unless the frame left one unfinished: then
            # it must not be finished by the next frame, which may be another peer's.
            messages.feed(_NIL)
            if next(messages, messages) is not None:
                raise Malformed("a batch ends in the middle of a message")
            if peer.gone:
                self._membership.depart(node, now)
        except StopIteration:
            self._broken(node, "an empty batch", now)
        except DECODE_ERRORS as error:
            self._broken(node, describe_malformed(error), now)
        except BaseException:
            self._unpacker = unpacker(FRAME + 1)  # the next frame begins anew
            raise

    def _broken(self, node: str, reason: str, now: float) -> None:
        self._unpacker = unpacker(FRAME + 1)
        self._membership.end(node, f"not understood: {reason}", now)

    @property
    def receiving(self) -> bool:
        peers = self._core.peers.values()
        return any(peer.inbox.size for peer in peers if peer.inbox)

    # Directory.

    def _on_joined(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        cluster, member = check_name(message[1]), _number(message[2])
        metadata = check_map(message[3], MAX_METADATA)
        if peer.draining:
            return  # it takes nothing new, whoever comes to it now
        if self._core.directory.join(cluster, peer, member, metadata):
            self._router.arrived(cluster, now)
        else:
            self._core.counters.drops["announcement_limit_exceeded"] += 1

    def _on_left(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._core.directory.leave(check_name(message[1]), peer, _number(message[2]))

    def _on_subscribed(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        # Not the end of the link: programs of the peer's node must not be able to cut it off.
        if not self._core.directory.subscribe(check_name(message[1]), peer):
            self._core.counters.drops["announcement_limit_exceeded"] += 1

    def _on_unsubscribed(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._core.directory.unsubscribe(check_name(message[1]), peer)

    def _on_synced(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        peer.synced = True
        self._synced(peer)

    def _on_known(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._known(check_name(message[1]), check_name(message[2]), _number(message[3]))

    def _on_draining(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._core.drain_peer(peer, _number(message[1]), now)
        self._drained(peer)

    def _on_farewell(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        peer.gone = True  # what else stands in this batch is still handled

    # Requests.

    def _on_call(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, call, cluster, body, expiry, number, headers = message
        facts = self._facts(peer, call, cluster, body, expiry, number, headers, offset, now)
        if facts is not None:
            self._router.request(RoutedRequest(*facts), now)

    def _on_ask(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, call, cluster, body, expiry, number, member, headers = message
        facts = self._facts(peer, call, cluster, body, expiry, number, headers, offset, now)
        if facts is not None:
            self._router.request(
                DirectedRequest(*facts, to=self._member(member), opening=None), now
            )

    def _on_open(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, call, cluster, body, expiry, number, member, purpose, window, largest, headers = message
        facts = self._facts(peer, call, cluster, body, expiry, number, headers, offset, now)
        if facts is not None:
            opening = TunnelParameters(Purpose(purpose), _window(window), _number(largest))
            to = self._member(member)
            self._router.request(DirectedRequest(*facts, to=to, opening=opening), now)

    def _facts(
        self,
        peer: Peer,
        call: Any,
        cluster: Any,
        body: Any,
        expiry: Any,
        number: Any,
        headers: Any,
        offset: float,
        now: float,
    ) -> tuple[Any, ...] | None:
        """Return the arguments of a RoutedRequest; None if its body found no room."""
        if headers is not None:
            check_map(headers, MAX_HEADERS)
        joined = self._body(peer, body)
        if joined is None:
            peer.sink.put((Op.REFUSED.value, _number(call), "no room to join the request"))
            return None
        deadline = _number(expiry) / 1000 + offset
        if deadline - now > MAX_TIMEOUT + _DRIFT:
            raise Malformed("a request that waits for longer than any program may")
        sender = f"{peer.node}/{_number(number)}"
        name = check_name(cluster)
        return peer, _number(call), name, joined, now, deadline, False, sender, headers

    def _member(self, number: Any) -> str | None:
        return f"{self._core.node}/{number}" if _number(number) else None

    def _on_drop_call(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._router.cancel(peer, _number(message[1]))

    def _on_reply(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        body = self._body(peer, message[2])
        if body is None:
            text = "this node had no room to join the answer"
            self._router.fault(peer, message[1], "Overloaded", text, now)
        else:
            self._router.reply(peer, message[1], body, now)

    def _on_fault(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._router.fault(peer, message[1], _text(message[2]), _text(message[3]), now)

    def _on_refused(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._router.refused(peer, message[1], _text(message[2])[:MAX_REASON], now)

    def _on_failed(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._router.failed(peer, message[1], Failure(message[2]), _text(message[3]), now)

    # TunnelRouter.

    def _on_accept(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, call, window, largest = message
        self._router.accept(peer, _number(call), _window(window), _number(largest))

    def _on_data(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, name, total, data = message
        if type(data) is not bytes or not (total is None or (type(total) is int and total >= 0)):
            raise Malformed("a tunnel carries octets")
        self._tunnels.data(peer, name, total, data)

    def _on_credit(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        self._tunnels.grant(peer, message[1], _number(message[2]))

    def _on_end(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, name, ending, kind, text = message
        self._tunnels.end(peer, name, TunnelClose(ending), _text(kind), _text(text))

    # Broadcasts.

    def _on_told(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, cluster, body, number, headers = message
        if headers is not None:
            check_map(headers, MAX_HEADERS)
        joined = self._inbox(peer).take_fanout(body)
        if joined is None:
            self._core.counters.drops["broadcast_buffer_full"] += 1
        else:
            self._core.broadcasts.peer_broadcast(
                peer, check_name(cluster), joined, _number(number), headers
            )

    def _on_event(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        _, topic, body, number, headers = message
        if headers is not None:
            check_map(headers, MAX_HEADERS)
        joined = self._inbox(peer).take_fanout(body)
        if joined is None:
            self._core.counters.drops["broadcast_buffer_full"] += 1
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
            peer.inbox = Reassembler(self._max_message, _INBOX)
        return peer.inbox

    def _unknown(self, peer: Peer, message: Message, offset: float, now: float) -> None:
        raise Malformed(f"unknown operation {message[0]!r:.20}")


def _number(number: object) -> int:
    if type(number) is not int or not 0 <= number <= MAX_ID:
        raise Malformed("a number was expected")
    return number


def _window(octets: object) -> int:
    window = _number(octets)
    if window < MIN_WINDOW:
        raise Malformed(f"a window is {MIN_WINDOW} octets at least")
    return window


def _text(text: object) -> str:
    if type(text) is not str:
        raise Malformed("text was expected")
    return text
