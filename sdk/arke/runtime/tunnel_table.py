"""The tunnels of one program: those it opens, and what comes for any of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from arke.errors import ProtocolError, TunnelClosed
from arke.runtime.deadlines import Call
from arke.runtime.relay_connection import Handler, Message, RelayLink
from arke.tunnel import Tunnel
from arke.values import NO_HEADERS
from arke.wire.malformed import Malformed
from arke.wire.messages import Op, TunnelClose

if TYPE_CHECKING:
    from arke.runtime.reconnect import Attachment
    from arke.runtime.resend import Caller

_OPEN = Op.OPEN.value
_ACCEPT = Op.ACCEPT.value
_END = Op.END.value


class Tunnels:
    """By the names that go out for them; those of one link end with it."""

    def __init__(self, attachment: Attachment, caller: Caller) -> None:
        self._attachment = attachment
        self._caller = caller
        self._all: dict[int, Tunnel] = {}

    def __len__(self) -> int:
        return len(self._all)

    def open(
        self,
        cluster: str,
        body: bytes,
        timeout: float,
        member: str | None,
        purpose: int,
        window: int,
        largest: int,
        headers: Mapping[str, str] | None,
    ) -> Call:
        """Ask for a tunnel; the call's future becomes it. Raises what a request does."""
        rest = member, purpose, window, largest, headers
        return self._caller.begin_special(_OPEN, cluster, body, timeout, rest, idempotent=False)

    def accept(
        self,
        link: RelayLink,
        call: int,
        window: int,
        largest: int,
        theirs: int,
        sender: str,
        headers: Mapping[str, str],
    ) -> Tunnel:
        """Take the tunnel that a relay offers. Sizes are octets; `theirs` is what it may carry."""
        link.send((_ACCEPT, call, window, largest))
        return self._made(link, -call, window, largest, theirs, sender, headers)

    # A part of the attachment.

    @property
    def handlers(self) -> Mapping[int, Handler]:
        return {
            Op.ACCEPT: self._on_accept,
            Op.DATA: self._on_data,
            Op.CREDIT: self._on_credit,
            Op.END: self._on_end,
        }

    def attached(self, link: RelayLink) -> None:
        """A tunnel is bound to the link that it was opened on."""

    def relieved(self) -> None:
        """Credit is what tunnels wait for."""

    def detached(self, reason: str, last_accepted: int | None) -> None:
        self._break(reason)

    def closed(self) -> None:
        self._break("the mesh was closed")

    def _break(self, text: str) -> None:
        for tunnel in list(self._all.values()):
            tunnel.break_off(TunnelClosed(text))

    # What the relay says.

    def _on_accept(self, message: Message, link: RelayLink) -> None:
        _, number, window, theirs = message
        if type(window) is not int or type(theirs) is not int:
            raise Malformed("a size is a number of octets")
        call = self._caller.calls.take(number)
        if call is None or call.future.done():
            text = "nobody waits for it any more"
            link.send_part((_END, number, TunnelClose.ABORTED.value, "", text), number)
            return
        if call.message[0] != _OPEN:
            call.future.set_exception(ProtocolError("a request was answered like an opening"))
            return
        # Here and not where the call is awaited: what comes right behind must find it.
        largest = call.message[8]
        tunnel = self._made(link, number, window, largest, theirs, "", NO_HEADERS)
        call.future.set_result(tunnel)

    def _made(
        self,
        link: RelayLink,
        name: int,
        window: int,
        largest: int,
        theirs: int,
        sender: str,
        headers: Mapping[str, str],
    ) -> Tunnel:
        tunnel = Tunnel(link, name, window, largest, theirs, self._forget, sender, headers)
        self._all[name] = tunnel
        return tunnel

    def _forget(self, name: int) -> None:
        self._all.pop(name, None)

    def _on_data(self, message: Message, link: RelayLink) -> None:
        _, name, total, data = message
        tunnel = self._all.get(-name)
        if tunnel is not None:
            tunnel.on_data(total, data)

    def _on_credit(self, message: Message, link: RelayLink) -> None:
        tunnel = self._all.get(-message[1])
        if tunnel is not None:
            tunnel.on_credit(message[2])

    def _on_end(self, message: Message, link: RelayLink) -> None:
        _, name, ending, kind, text = message
        tunnel = self._all.get(-name)
        if tunnel is not None:
            tunnel.on_end(ending, kind, text)
