"""What a program sends through its tunnels."""

from __future__ import annotations

from arke.wire.malformed import Malformed
from arke.wire.messages import Op, TunnelClose
from arke_relay.attachments.native.fields import Handler, size, text
from arke_relay.core.endpoints import Message, Program
from arke_relay.core.message_core import MessageCore


class NativeTunnels:
    """Data, credit and ends, from one program."""

    def __init__(self, program: Program, core: MessageCore) -> None:
        self._program = program
        self._tunnels = core.tunnels

    @property
    def handlers(self) -> dict[int, Handler]:
        return {Op.DATA: self._on_data, Op.CREDIT: self._on_credit, Op.END: self._on_end}

    def _on_data(self, message: Message, now: float) -> None:
        _, tunnel, total, data = message
        if type(data) is not bytes or not (total is None or (type(total) is int and total >= 0)):
            raise Malformed("a tunnel carries octets")
        self._tunnels.data(self._program, tunnel, total, data)

    def _on_credit(self, message: Message, now: float) -> None:
        _, tunnel, octets = message
        self._tunnels.grant(self._program, tunnel, size(octets))

    def _on_end(self, message: Message, now: float) -> None:
        _, tunnel, ending, kind, why = message
        kind, why = text(kind, "the type of an end"), text(why, "an end")
        self._tunnels.end(self._program, tunnel, TunnelClose(ending), kind, why)
