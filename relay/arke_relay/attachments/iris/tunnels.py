"""The tunnels of an Iris program: opened by it or offered to it."""

from __future__ import annotations

from collections.abc import Callable

from arke.wire.limits import MAX_TIMEOUT_MS, WINDOW
from arke.wire.malformed import Malformed
from arke.wire.messages import Purpose, TunnelClose
from arke.wire.outbox import Outbox
from arke.wire.tunnel_batch import TunnelBatchDecoder
from arke_relay.attachments.iris import packets
from arke_relay.attachments.iris.fields import binary, name, varint
from arke_relay.attachments.iris.handler import Handler
from arke_relay.attachments.iris.packets import CHUNK_LIMIT, Packet
from arke_relay.attachments.iris.tunnel import LARGEST, Broken, IrisTunnel
from arke_relay.core.directed_request import DirectedRequest, TunnelParameters
from arke_relay.core.endpoints import Message, Program
from arke_relay.core.message_core import MessageCore

_UNREAD = 256 * 1024
"""Octets waiting for the program from which on it is taken for one that does not read: what it has
granted is then kept back, for it all comes through the one connection."""


class IrisTunnels:
    """`outbox` is the program's; `overrun` is called when what it must be told has no room there.

    What the core tells answers whether there was room, as an MessageSink does.
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
        self._by_id: dict[int, IrisTunnel] = {}
        self._by_name: dict[int, IrisTunnel] = {}
        """By the names in what comes for the program, which are its own names negated."""
        self._offers: dict[int, tuple[int, int]] = {}
        """Window and largest message of the tunnels that it was offered."""
        self._kept_back: dict[IrisTunnel, None] = {}
        """Whose other end gets no credit until the program has read."""
        self._pieces: TunnelBatchDecoder | None = None  # most programs have no tunnel

    @property
    def holding(self) -> bool:
        """Something of a tunnel that the program has closed still waits for credit."""
        return any(tunnel.closing for tunnel in self._by_name.values())

    # From the program.

    @property
    def handlers(self) -> dict[int, Handler]:
        return {
            Packet.TUNNEL_INIT: self._on_init,
            Packet.TUNNEL_CONFIRM: self._on_confirm,
            Packet.TUNNEL_ALLOWANCE: self._on_allowance,
            Packet.TUNNEL_TRANSFER: self._on_transfer,
            Packet.TUNNEL_CLOSE: self._on_close,
        }

    def _on_init(self, data: bytes, at: int, now: float) -> int:
        number, at = varint(data, at)
        cluster, at = name(data, at)
        timeout, at = varint(data, at)
        if number in self._by_id:
            raise Malformed(f"tunnel {number} is still open")
        if self._router.draining:
            self._say(packets.tunnel_timed_out(number), None)
            return at
        program = self._program
        deadline = now + min(timeout, MAX_TIMEOUT_MS) / 1000
        opening = TunnelParameters(Purpose.TUNNEL, WINDOW, LARGEST)
        facts = (program, 2 * number + 1, cluster, b"", now, deadline, False, program.sender, None)
        self._router.request(DirectedRequest(*facts, to=None, opening=opening), now)
        return at

    def _on_confirm(self, data: bytes, at: int, now: float) -> int:
        build, at = varint(data, at)
        number, at = varint(data, at)
        if number in self._by_id or 2 * number + 1 in self._program.requests:
            raise Malformed(f"tunnel {number} is still open")
        offer = self._offers.pop(build, None)
        if offer is None:
            self._drops["unknown_tunnel"] += 1
            self._say(packets.tunnel_close(number, "nobody waits for it any more"), None)
            return at
        window, largest = offer
        self._add(IrisTunnel(number, -build, window, largest))
        self._router.accept(self._program, build, window, LARGEST)
        return at

    def _on_allowance(self, data: bytes, at: int, now: float) -> int:
        number, at = varint(data, at)
        octets, at = varint(data, at)
        tunnel = self._by_id.get(number)
        if tunnel is None:
            self._drops["unknown_tunnel"] += 1
        else:
            tunnel.granted(octets)
            self._grant(tunnel)
        return at

    def _on_transfer(self, data: bytes, at: int, now: float) -> int:
        number, at = varint(data, at)
        size, at = varint(data, at)
        chunk, at = binary(data, at, 2 * CHUNK_LIMIT)
        tunnel = self._by_id.get(number)
        if tunnel is None:
            self._drops["unknown_tunnel"] += 1
        elif not chunk:
            self._drops["empty_tunnel_message"] += 1
        else:
            try:
                piece = tunnel.transfer(size, chunk)
            except Broken as error:
                self._break(tunnel, error)
            else:
                self._tunnels.data(self._program, tunnel.name, *piece)
        return at

    def _on_close(self, data: bytes, at: int, now: float) -> int:
        number, at = varint(data, at)
        tunnel = self._by_id.pop(number, None)
        if tunnel is None:
            self._drops["unknown_tunnel"] += 1
            return at
        # Whoever closes waits for this.
        self._say(packets.tunnel_close(number, ""), -tunnel.name)
        if tunnel.holding:
            tunnel.closing = True
        else:
            self._end(tunnel)
        return at

    # To the program.

    def offered(self, message: Message) -> bool:
        """A tunnel to take; False when it is none that such a program knows."""
        _, build, _, _, _, purpose, window, largest, _, _ = message
        if purpose != Purpose.TUNNEL or not self._outbox.put(packets.tunnel_init(build)):
            return False
        self._offers[build] = window, largest
        return True

    def withdrawn(self, message: Message) -> bool:
        """Nobody waits for its answer to an offer any more."""
        self._offers.pop(message[1], None)
        return True

    def accepted(self, message: Message) -> bool:
        """The tunnel that the program asked for is there."""
        _, opened, window, largest = message
        tunnel = IrisTunnel(opened >> 1, opened, window, largest)
        self._add(tunnel)
        return self._put(packets.tunnel_confirm(tunnel.id), None)

    def arrived(self, message: Message) -> bool:
        """Data of the other end."""
        _, name, total, data = message
        tunnel = self._by_name.get(name)
        if tunnel is None or tunnel.closing:
            return True
        try:
            if total is None:
                messages = self._opened(data)
                tunnel.carry(None, sum(map(len, messages)), len(data))
                transfers = [packets.tunnel_transfer(tunnel.id, len(m), m) for m in messages if m]
                packet = b"".join(transfers)
            else:
                tunnel.carry(total, len(data), len(data))
                packet = packets.tunnel_transfer(tunnel.id, total, data)
        except Broken as error:
            self._break(tunnel, error)
            return True
        taken = not packet or self._put(packet, name)
        self._grant(tunnel)
        return taken

    def credited(self, message: Message) -> bool:
        """The other end takes more."""
        _, name, octets = message
        tunnel = self._by_name.get(name)
        if tunnel is None:
            return True
        if not tunnel.closing and not self._outbox.put(packets.tunnel_allowance(tunnel.id, octets)):
            return False
        piece = tunnel.allow(octets)
        if piece is not None:
            self._tunnels.data(self._program, tunnel.name, *piece)
            if tunnel.closing and not tunnel.holding:
                self._end(tunnel)
        return True

    def ended(self, message: Message) -> bool:
        """The other end sends nothing more, or is gone."""
        _, name, ending, kind, text = message
        tunnel = self._by_name.get(name)
        if tunnel is None or ending == TunnelClose.SEND_CLOSED:
            # An Iris tunnel has no half: it goes on until both have ended.
            return True
        self._forget(tunnel)
        if tunnel.closing:
            return True
        reason = (text or kind or "it broke") if ending == TunnelClose.ABORTED else ""
        return self._put(packets.tunnel_close(tunnel.id, reason), name)

    def read(self) -> None:
        """Some of what waited for the program has left: whom that kept back may send on."""
        if self._kept_back and self._outbox.size < _UNREAD:
            kept_back, self._kept_back = self._kept_back, {}
            for tunnel in kept_back:
                self._grant(tunnel)

    # Inside.

    def _opened(self, data: bytes) -> list[bytes]:
        """The small messages that share a piece. Raises Broken."""
        if self._pieces is None:
            self._pieces = TunnelBatchDecoder()
        messages = self._pieces.decode(data)
        if messages is None:
            raise Broken("what came cannot be understood")
        return messages

    def _say(self, packet: bytes, tunnel: int | None) -> None:
        """Tell the program what only this codec knows of."""
        if not self._put(packet, tunnel):
            self._overrun()

    def _grant(self, tunnel: IrisTunnel) -> None:
        if self._outbox.size >= _UNREAD:
            self._kept_back[tunnel] = None
            return
        octets = tunnel.grant()
        if octets:
            self._tunnels.grant(self._program, tunnel.name, octets)

    def _add(self, tunnel: IrisTunnel) -> None:
        self._by_id[tunnel.id] = self._by_name[-tunnel.name] = tunnel

    def _end(self, tunnel: IrisTunnel) -> None:
        self._forget(tunnel)
        self._tunnels.end(self._program, tunnel.name, TunnelClose.CLOSED, "", "")

    def _break(self, tunnel: IrisTunnel, error: Broken) -> None:
        self._drops[error.cause] += 1
        self._forget(tunnel)
        text = str(error)
        if not tunnel.closing:
            self._outbox.drop_flow(-tunnel.name)
            self._say(packets.tunnel_close(tunnel.id, text), -tunnel.name)
        self._tunnels.end(self._program, tunnel.name, TunnelClose.ABORTED, "", text)

    def _forget(self, tunnel: IrisTunnel) -> None:
        self._by_name.pop(-tunnel.name, None)
        self._kept_back.pop(tunnel, None)
        if self._by_id.get(tunnel.id) is tunnel:
            del self._by_id[tunnel.id]
