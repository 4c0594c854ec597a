"""The tunnels of an Iris program: opened by it or offered to it."""

from __future__ import annotations

from collections.abc import Callable

from arke.wire.bounds import MAX_NAME, MAX_TUNNELS, WINDOW
from arke.wire.malformed import Malformed
from arke.wire.messages import Ending, Purpose
from arke.wire.pieces import Pieces
from arke_relay.attachments.iris import packets
from arke_relay.attachments.iris.calls import LONGEST
from arke_relay.attachments.iris.fields import binary, name, varint
from arke_relay.attachments.iris.handler import Handler
from arke_relay.attachments.iris.packets import CHUNK_LIMIT, Packet
from arke_relay.attachments.iris.tunnel import Broken, IrisTunnel
from arke_relay.core.exchange import Exchange
from arke_relay.core.parties import Message, Program
from arke_relay.core.special import Opening, SpecialCall

_LARGEST = 64 * 1024 * 1024
"""Octets of the largest message that an Iris program is sent: it joins whatever comes."""


class Tunnels:
    """`put` queues packets for the program, in the order of the tunnel that is given with them."""

    def __init__(
        self,
        program: Program,
        exchange: Exchange,
        put: Callable[[bytes, int | None], None],
    ) -> None:
        self._program = program
        self._router = exchange.router
        self._tunnels = exchange.tunnels
        self._drops = exchange.counters.drops
        self._put = put
        self._by_id: dict[int, IrisTunnel] = {}
        self._by_name: dict[int, IrisTunnel] = {}
        """By the names in what comes for the program, which are its own names negated."""
        self._offers: dict[int, tuple[int, int]] = {}
        """Window and largest message of the tunnels that it was offered, oldest first."""
        self._pieces: Pieces | None = None  # most programs have no tunnel

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
        cluster, at = name(data, at, MAX_NAME)
        timeout, at = varint(data, at)
        if number in self._by_id:
            raise Malformed(f"tunnel {number} is still open")
        if self._router.draining:
            self._put(packets.tunnel_timed_out(number), None)
            return at
        program = self._program
        deadline = now + min(timeout, LONGEST) / 1000
        opening = Opening(Purpose.TUNNEL, WINDOW, _LARGEST)
        facts = (program, 2 * number + 1, cluster, b"", now, deadline, False, program.sender, None)
        self._router.request(SpecialCall(*facts, to=None, opening=opening), now)
        return at

    def _on_confirm(self, data: bytes, at: int, now: float) -> int:
        build, at = varint(data, at)
        number, at = varint(data, at)
        if number in self._by_id or 2 * number + 1 in self._program.calls:
            raise Malformed(f"tunnel {number} is still open")
        offer = self._offers.pop(build, None)
        if offer is None:
            self._drops["of_no_tunnel"] += 1
            self._put(packets.tunnel_close(number, "nobody waits for it any more"), None)
            return at
        window, largest = offer
        self._add(IrisTunnel(number, -build, window, largest))
        self._router.accept(self._program, build, window, _LARGEST)
        return at

    def _on_allowance(self, data: bytes, at: int, now: float) -> int:
        number, at = varint(data, at)
        octets, at = varint(data, at)
        tunnel = self._by_id.get(number)
        if tunnel is None:
            self._drops["of_no_tunnel"] += 1
        else:
            self._grant(tunnel, tunnel.granted(octets))
        return at

    def _on_transfer(self, data: bytes, at: int, now: float) -> int:
        number, at = varint(data, at)
        size, at = varint(data, at)
        chunk, at = binary(data, at, 2 * CHUNK_LIMIT)
        tunnel = self._by_id.get(number)
        if tunnel is None:
            self._drops["of_no_tunnel"] += 1
        elif not chunk:
            self._drops["empty_in_tunnel"] += 1
        else:
            try:
                passed = tunnel.transfer(size, chunk)
            except Broken as error:
                self._drops["beyond_credit"] += 1
                self._break(tunnel, str(error))
                return at
            if passed is not None:
                self._tunnels.data(self._program, tunnel.name, *passed)
        return at

    def _on_close(self, data: bytes, at: int, now: float) -> int:
        number, at = varint(data, at)
        tunnel = self._by_id.pop(number, None)
        if tunnel is None:
            self._drops["of_no_tunnel"] += 1
            return at
        # Whoever closes waits for this.
        self._put(packets.tunnel_close(number, ""), -tunnel.name)
        if tunnel.holding:
            tunnel.closing = True
        else:
            self._end(tunnel)
        return at

    # To the program.

    def offered(self, message: Message) -> bytes | None:
        """A tunnel to take; None when it is none that such a program knows."""
        _, build, _, _, _, purpose, window, largest, _, _ = message
        if purpose != Purpose.TUNNEL:
            return None
        self._offers[build] = window, largest
        if len(self._offers) > MAX_TUNNELS:
            del self._offers[next(iter(self._offers))]
        return packets.tunnel_init(build)

    def accepted(self, message: Message) -> None:
        """The tunnel that the program asked for is there."""
        _, opened, window, largest = message
        tunnel = IrisTunnel(opened >> 1, opened, window, largest)
        self._put(packets.tunnel_confirm(tunnel.id), None)
        self._add(tunnel)

    def arrived(self, message: Message) -> None:
        """Data of the other end."""
        _, name, total, data = message
        tunnel = self._by_name.get(name)
        if tunnel is None or tunnel.closing:
            return
        if total is None:
            if self._pieces is None:
                self._pieces = Pieces()
            messages = self._pieces.open(data)
            if messages is None:
                self._break(tunnel, "what came cannot be understood")
                return
            transfers = [packets.tunnel_transfer(tunnel.id, len(m), m) for m in messages if m]
            tunnel.carry(None, sum(map(len, messages)), len(data))
            if transfers:
                self._put(b"".join(transfers), name)
        else:
            tunnel.carry(total, len(data), len(data))
            self._put(packets.tunnel_transfer(tunnel.id, total, data), name)
        self._grant(tunnel, tunnel.grant())

    def credited(self, message: Message) -> None:
        """The other end takes more."""
        _, name, octets = message
        tunnel = self._by_name.get(name)
        if tunnel is None:
            return
        if not tunnel.closing:
            self._put(packets.tunnel_allowance(tunnel.id, octets), None)
        held = tunnel.allow(octets)
        if held is not None:
            self._tunnels.data(self._program, tunnel.name, *held)
            if tunnel.closing:
                self._end(tunnel)

    def ended(self, message: Message) -> None:
        """The other end sends nothing more, or is gone."""
        _, name, ending, kind, text = message
        tunnel = self._by_name.get(name)
        if tunnel is None or ending == Ending.SENT:
            # An Iris tunnel has no half: it goes on until both have ended.
            return
        if not tunnel.closing:
            reason = (text or kind or "it broke") if ending == Ending.BROKEN else ""
            self._put(packets.tunnel_close(tunnel.id, reason), -tunnel.name)
        self._forget(tunnel)

    def withdrawn(self, message: Message) -> None:
        """Nobody waits for its answer to an offer any more."""
        self._offers.pop(message[1], None)

    # Inside.

    def _break(self, tunnel: IrisTunnel, text: str) -> None:
        self._forget(tunnel)
        self._put(packets.tunnel_close(tunnel.id, text), -tunnel.name)
        self._tunnels.end(self._program, tunnel.name, Ending.BROKEN, "", text)

    def _grant(self, tunnel: IrisTunnel, octets: int) -> None:
        if octets:
            self._tunnels.grant(self._program, tunnel.name, octets)

    def _add(self, tunnel: IrisTunnel) -> None:
        self._by_id[tunnel.id] = self._by_name[-tunnel.name] = tunnel

    def _end(self, tunnel: IrisTunnel) -> None:
        self._forget(tunnel)
        self._tunnels.end(self._program, tunnel.name, Ending.CLOSED, "", "")

    def _forget(self, tunnel: IrisTunnel) -> None:
        self._by_name.pop(-tunnel.name, None)
        if self._by_id.get(tunnel.id) is tunnel:
            del self._by_id[tunnel.id]
