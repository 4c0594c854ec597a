"""The tunnels of an Iris program: those it opens and those it is offered."""

from __future__ import annotations

from collections.abc import Callable

from arke.wire.limits import MAX_TIMEOUT_MS, WINDOW
from arke.wire.malformed import Malformed
from arke.wire.messages import Op, Purpose, TunnelClose
from arke.wire.outbox import Outbox
from arke.wire.tunnel_batch import TunnelBatchDecoder
from arke_relay.attachments.iris import packets
from arke_relay.attachments.iris.fields import read_binary, read_name, read_varint
from arke_relay.attachments.iris.handler import PacketHandler
from arke_relay.attachments.iris.packets import MAX_TRANSFER, Packet
from arke_relay.attachments.iris.tunnel import (
    MAX_TUNNEL_MESSAGE,
    IrisTunnelEnd,
    TunnelViolation,
)
from arke_relay.core.counters import DropCause
from arke_relay.core.directed_request import DirectedRequest, TunnelParameters
from arke_relay.core.endpoints import Message, Program
from arke_relay.core.message_core import MessageCore

_PAUSE_GRANTS = 256 * 1024
"""Bytes queued for the program from which on its tunnels get no more credit: all of them share one
connection."""


class IrisTunnels:
    """Handlers and encoders for one program.

    `outbox` is the program's. `overrun` is called when a message that must not be lost does not fit
    into it. Encoders return False if the queue is full, as a MessageSink does.
    """

    def __init__(
        self, program: Program, core: MessageCore, outbox: Outbox, overrun: Callable[[], None]
    ) -> None:
        self._program = program
        self._router = core.router
        self._tunnels = core.tunnels
        self._drops = core.counters.drops
        self._outbox = outbox
        self._put = outbox.put_in_flow
        self._overrun = overrun
        self._by_number: dict[int, IrisTunnelEnd] = {}
        """By the program's own numbers."""
        self._by_id: dict[int, IrisTunnelEnd] = {}
        """By the ids in messages to the program, which are its own negated."""
        self._offers: dict[int, tuple[int, int]] = {}
        """Window and largest message of the tunnels that it was offered, by request id."""
        self._grants_paused: dict[IrisTunnelEnd, None] = {}
        self._decoder: TunnelBatchDecoder | None = None  # most programs have no tunnel

    @property
    def holding(self) -> bool:
        """Data of a tunnel that the program has closed still waits for credit."""
        return any(tunnel.closing for tunnel in self._by_id.values())

    # From the program.

    @property
    def handlers(self) -> dict[int, PacketHandler]:
        return {
            Packet.TUNNEL_INIT: self._on_init,
            Packet.TUNNEL_CONFIRM: self._on_confirm,
            Packet.TUNNEL_ALLOWANCE: self._on_allowance,
            Packet.TUNNEL_TRANSFER: self._on_transfer,
            Packet.TUNNEL_CLOSE: self._on_close,
        }

    def _on_init(self, data: bytes, at: int, now: float) -> int:
        number, at = read_varint(data, at)
        cluster, at = read_name(data, at)
        timeout_ms, at = read_varint(data, at)
        if number in self._by_number:
            raise Malformed(f"tunnel {number} is still open")
        if self._router.draining:
            self._send(packets.tunnel_timed_out(number), None)
            return at
        program = self._program
        request = DirectedRequest(
            program,
            2 * number + 1,
            cluster,
            b"",
            now + min(timeout_ms, MAX_TIMEOUT_MS) / 1000,
            program.sender,
            None,
            member=None,
            tunnel=TunnelParameters(Purpose.TUNNEL, WINDOW, MAX_TUNNEL_MESSAGE),
        )
        self._router.request(request, now)
        return at

    def _on_confirm(self, data: bytes, at: int, now: float) -> int:
        request_id, at = read_varint(data, at)
        number, at = read_varint(data, at)
        if number in self._by_number or 2 * number + 1 in self._program.requests:
            raise Malformed(f"tunnel {number} is still open")
        offer = self._offers.pop(request_id, None)
        if offer is None:
            self._drops[DropCause.UNKNOWN_TUNNEL] += 1
            text = "the tunnel request was cancelled or timed out"
            self._send(packets.tunnel_close(number, text), None)
            return at
        window, max_message = offer
        self._add(IrisTunnelEnd(number, -request_id, window, max_message))
        self._router.accept(self._program, request_id, window, MAX_TUNNEL_MESSAGE)
        return at

    def _on_allowance(self, data: bytes, at: int, now: float) -> int:
        number, at = read_varint(data, at)
        size, at = read_varint(data, at)
        tunnel = self._by_number.get(number)
        if tunnel is None:
            self._drops[DropCause.UNKNOWN_TUNNEL] += 1
        else:
            tunnel.allowed(size)
            self._grant(tunnel)
        return at

    def _on_transfer(self, data: bytes, at: int, now: float) -> int:
        number, at = read_varint(data, at)
        size, at = read_varint(data, at)
        chunk, at = read_binary(data, at, 2 * MAX_TRANSFER)
        tunnel = self._by_number.get(number)
        if tunnel is None:
            self._drops[DropCause.UNKNOWN_TUNNEL] += 1
        elif not chunk:
            self._drops[DropCause.EMPTY_TUNNEL_MESSAGE] += 1
        else:
            try:
                forwarded = tunnel.receive(size, chunk)
            except TunnelViolation as error:
                self._abort(tunnel, error)
            else:
                self._tunnels.data(self._program, tunnel.id, *forwarded)
        return at

    def _on_close(self, data: bytes, at: int, now: float) -> int:
        number, at = read_varint(data, at)
        tunnel = self._by_number.pop(number, None)
        if tunnel is None:
            self._drops[DropCause.UNKNOWN_TUNNEL] += 1
            return at
        # The program waits for this reply.
        self._send(packets.tunnel_close(number, ""), -tunnel.id)
        if tunnel.holding:
            tunnel.closing = True
        else:
            self._close(tunnel)
        return at

    # To the program.

    @property
    def encoders(self) -> dict[int, Callable[[Message], bool]]:
        return {
            Op.OFFER: self._send_offer,
            Op.ACCEPT: self._send_confirm,
            Op.DATA: self._send_data,
            Op.CREDIT: self._send_credit,
            Op.END: self._send_end,
            Op.REQUEST_CANCELLED: self._offer_cancelled,
        }

    def _send_offer(self, message: Message) -> bool:
        """Offer a tunnel. False also for a purpose that Iris does not have."""
        _, request_id, _, _, _, purpose, window, max_message, _, _ = message
        if purpose != Purpose.TUNNEL or not self._outbox.put(packets.tunnel_init(request_id)):
            return False
        self._offers[request_id] = window, max_message
        return True

    def _offer_cancelled(self, message: Message) -> bool:
        self._offers.pop(message[1], None)
        return True

    def _send_confirm(self, message: Message) -> bool:
        """A tunnel that the program opened was accepted."""
        _, request_id, window, max_message = message
        tunnel = IrisTunnelEnd(request_id >> 1, request_id, window, max_message)
        self._add(tunnel)
        return self._put(packets.tunnel_confirm(tunnel.number), None)

    def _send_data(self, message: Message) -> bool:
        _, tunnel_id, total, data = message
        tunnel = self._by_id.get(tunnel_id)
        if tunnel is None or tunnel.closing:
            return True
        number = tunnel.number
        try:
            if total is None:
                messages = self._decode(data)
                tunnel.forward(None, sum(map(len, messages)), len(data))
                transfers = [packets.tunnel_transfer(number, len(m), m) for m in messages if m]
                packet = b"".join(transfers)
            else:
                tunnel.forward(total, len(data), len(data))
                packet = packets.tunnel_transfer(number, total, data)
        except TunnelViolation as error:
            self._abort(tunnel, error)
            return True
        queued = not packet or self._put(packet, tunnel_id)
        self._grant(tunnel)
        return queued

    def _send_credit(self, message: Message) -> bool:
        _, tunnel_id, size = message
        tunnel = self._by_id.get(tunnel_id)
        if tunnel is None:
            return True
        if not tunnel.closing:
            packet = packets.tunnel_allowance(tunnel.number, size)
            if not self._outbox.put(packet):
                return False
        forwarded = tunnel.add_credit(size)
        if forwarded is not None:
            self._tunnels.data(self._program, tunnel.id, *forwarded)
            if tunnel.closing and not tunnel.holding:
                self._close(tunnel)
        return True

    def _send_end(self, message: Message) -> bool:
        """The other end has closed or aborted the tunnel."""
        _, tunnel_id, ending, kind, text = message
        tunnel = self._by_id.get(tunnel_id)
        if tunnel is None or ending == TunnelClose.SEND_CLOSED:
            # Iris has no half-close: the tunnel stays open until both ends have closed it.
            return True
        self._remove(tunnel)
        if tunnel.closing:
            return True
        reason = (text or kind or "aborted") if ending == TunnelClose.ABORTED else ""
        return self._put(packets.tunnel_close(tunnel.number, reason), tunnel_id)

    def resume_grants(self) -> None:
        """Grant the credit that was paused, if the program has read enough."""
        if self._grants_paused and self._outbox.size < _PAUSE_GRANTS:
            paused, self._grants_paused = self._grants_paused, {}
            for tunnel in paused:
                self._grant(tunnel)

    # Internal.

    def _decode(self, data: bytes) -> list[bytes]:
        """Split small messages that share one DATA message. Raises TunnelViolation."""
        if self._decoder is None:
            self._decoder = TunnelBatchDecoder()
        messages = self._decoder.decode(data)
        if messages is None:
            raise TunnelViolation("malformed tunnel data")
        return messages

    def _send(self, packet: bytes, tunnel_id: int | None) -> None:
        """Queue a packet that must not be lost."""
        if not self._put(packet, tunnel_id):
            self._overrun()

    def _grant(self, tunnel: IrisTunnelEnd) -> None:
        if self._outbox.size >= _PAUSE_GRANTS:
            self._grants_paused[tunnel] = None
            return
        size = tunnel.take_grant()
        if size:
            self._tunnels.grant(self._program, tunnel.id, size)

    def _add(self, tunnel: IrisTunnelEnd) -> None:
        self._by_number[tunnel.number] = self._by_id[-tunnel.id] = tunnel

    def _close(self, tunnel: IrisTunnelEnd) -> None:
        self._remove(tunnel)
        self._tunnels.end(self._program, tunnel.id, TunnelClose.CLOSED, "", "")

    def _abort(self, tunnel: IrisTunnelEnd, error: TunnelViolation) -> None:
        self._drops[error.cause] += 1
        self._remove(tunnel)
        text = f"protocol error: {error}"
        if not tunnel.closing:
            self._outbox.drop_flow(-tunnel.id)
            self._send(packets.tunnel_close(tunnel.number, text), -tunnel.id)
        self._tunnels.end(self._program, tunnel.id, TunnelClose.ABORTED, "", text)

    def _remove(self, tunnel: IrisTunnelEnd) -> None:
        self._by_id.pop(-tunnel.id, None)
        self._grants_paused.pop(tunnel, None)
        if self._by_number.get(tunnel.number) is tunnel:
            del self._by_number[tunnel.number]
