"""Read the batches of messages that peers send, and apply each message to the relay's core.

The sender of a batch is the node that admission attached to it, never what the batch says. A link
to a peer that breaks the protocol is closed.
"""

from __future__ import annotations

from collections.abc import Callable

from arke.wire.limits import MAX_ID, unpacker
from arke.wire.malformed import DECODE_ERRORS, Malformed, describe_malformed
from arke_relay.core.counters import DropCause
from arke_relay.core.endpoints import Message, Peer
from arke_relay.core.membership import LossReason, Membership
from arke_relay.core.message_core import MessageCore
from arke_relay.peers.message_handlers import MessageHandlers

MAX_FRAME = 128 * 1024
"""Bytes of the largest frame: one chunk, the messages before it, and spare room."""

_NIL = b"\xc0"


class BatchReader:
    """Reads the batches of every peer.

    `on_known_peer` gets the node, address and join port of relays that peers are linked with.
    `on_synced` and `on_draining` get a peer that has sent its whole directory, or is draining.
    """

    def __init__(
        self,
        core: MessageCore,
        membership: Membership,
        max_message: int,
        *,
        on_known_peer: Callable[[str, str, int], None],
        on_synced: Callable[[Peer], None],
        on_draining: Callable[[Peer], None],
    ) -> None:
        self._core = core
        self._membership = membership
        self._unpacker = unpacker(MAX_FRAME + 1)  # shared: a frame holds whole messages
        handlers = MessageHandlers(core, max_message, on_known_peer, on_synced, on_draining)
        self._handlers: list[Callable[[Peer, Message, float, float], None]] = handlers.table

    def receive(self, node: str, frame: bytes, now: float) -> None:
        """Process one frame of an admitted node."""
        messages = self._unpacker
        try:
            messages.feed(frame)
            session, stamp, acknowledged = next(messages)
            if type(session) is not int or type(stamp) is not int or type(acknowledged) is not int:
                raise Malformed("a batch must begin with three integers")
            if session > MAX_ID:
                raise Malformed(f"a session number must be {MAX_ID} at most")
            accepted = self._membership.batch_received(node, session, stamp, acknowledged, now)
            if accepted is None:
                self._core.counters.drops[DropCause.STALE_SESSION] += 1
                self._unpacker = unpacker(MAX_FRAME + 1)
                return
            peer, waited = accepted
            # Deadlines are on the sender's clock. The offset converts them to this relay's clock
            # and includes the time that the batch was in transit.
            offset = now - (stamp + waited) / 1000
            handlers = self._handlers
            for message in messages:
                handlers[message[0]](peer, message, offset, now)
            # Detect a message cut off at the end of the frame: the next frame, perhaps of another
            # peer, must not complete it. One more byte is a message of its own only if none is
            # unfinished.
            messages.feed(_NIL)
            if next(messages, messages) is not None:
                raise Malformed("a batch must not end within a message")
            if peer.closing:
                self._membership.peer_closed(node, now)
        except StopIteration:
            self._close_link(node, "empty batch", now)
        except DECODE_ERRORS as error:
            self._close_link(node, describe_malformed(error), now)
        except BaseException:
            self._unpacker = unpacker(MAX_FRAME + 1)  # discard the rest of this frame
            raise

    def _close_link(self, node: str, error: str, now: float) -> None:
        self._unpacker = unpacker(MAX_FRAME + 1)
        self._membership.end(node, LossReason.PROTOCOL_ERROR, now, detail=error)

    @property
    def receiving(self) -> bool:
        """Whether a body of some peer has arrived only in part."""
        peers = self._core.peers.by_node.values()
        return any(peer.inbox.size for peer in peers if peer.inbox)
