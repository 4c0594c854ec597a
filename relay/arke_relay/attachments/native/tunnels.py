"""Tunnel messages that a program sends."""

from __future__ import annotations

from arke.wire.limits import check_tunnel_data
from arke.wire.messages import Op, TunnelClose
from arke_relay.attachments.native.fields import Handler, check_size, check_text
from arke_relay.core.endpoints import Message, Program
from arke_relay.core.tunnels import TunnelRouter


class NativeTunnels:
    """Handlers for one program."""

    def __init__(self, program: Program, tunnels: TunnelRouter) -> None:
        self._program = program
        self._tunnels = tunnels

    @property
    def handlers(self) -> dict[int, Handler]:
        return {Op.DATA: self._on_data, Op.CREDIT: self._on_credit, Op.END: self._on_end}

    def _on_data(self, message: Message, now: float) -> None:
        _, tunnel_id, total, data = message
        check_tunnel_data(total, data)
        self._tunnels.data(self._program, tunnel_id, total, data)

    def _on_credit(self, message: Message, now: float) -> None:
        _, tunnel_id, size = message
        self._tunnels.grant(self._program, tunnel_id, check_size(size))

    def _on_end(self, message: Message, now: float) -> None:
        _, tunnel_id, ending, kind, text = message
        kind, text = check_text(kind, "an error type"), check_text(text, "an error text")
        self._tunnels.end(self._program, tunnel_id, TunnelClose(ending), kind, text)
