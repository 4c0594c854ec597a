"""The tunnels of one program: open and accept them, and dispatch messages to them."""

from __future__ import annotations

from collections.abc import Mapping

from arke.errors import ProtocolError, TunnelClosed
from arke.runtime.deadlines import PendingRequest
from arke.runtime.relay_connection import Message, MessageHandler, RelayConnection
from arke.runtime.request_sender import RequestSender
from arke.runtime.tunnel_settings import TunnelSettings
from arke.tunnel import Tunnel
from arke.wire.limits import check_tunnel_data
from arke.wire.malformed import Malformed
from arke.wire.messages import Op, Purpose, TunnelClose

_OPEN = Op.OPEN.value
_ACCEPT = Op.ACCEPT.value
_END = Op.END.value
_MAX_MESSAGE_FIELD = 8  # of OPEN


class TunnelTable:
    """Tunnels by this end's number: the request id, negated at the accepting end.

    They close with the connection they use.
    """

    def __init__(self, requests: RequestSender) -> None:
        self._requests = requests
        self._tunnels: dict[int, Tunnel] = {}

    def __len__(self) -> int:
        return len(self._tunnels)

    def open(
        self,
        cluster: str,
        body: bytes,
        *,
        timeout: float,
        member: str | None,
        purpose: Purpose,
        window: int,
        max_message: int,
        headers: Mapping[str, str] | None,
    ) -> PendingRequest:
        """Request a tunnel: the request's future gets the Tunnel or the error.

        Raises MeshClosed.
        """
        rest = member, purpose.value, window, max_message, headers
        return self._requests.begin_directed(_OPEN, cluster, body, timeout, rest, idempotent=False)

    def accept(
        self, connection: RelayConnection, request_id: int, settings: TunnelSettings
    ) -> Tunnel:
        """Accept the tunnel that the relay offers under `request_id`."""
        message = (_ACCEPT, request_id, settings.window, settings.max_receive)
        connection.send(message)
        return self._add(connection, -request_id, settings)

    # The component interface.

    @property
    def handlers(self) -> Mapping[int, MessageHandler]:
        return {
            Op.ACCEPT: self._on_accept,
            Op.DATA: self._on_data,
            Op.CREDIT: self._on_credit,
            Op.END: self._on_end,
        }

    def on_attached(self, connection: RelayConnection) -> None:
        """Nothing to restore: tunnels close with their connection."""

    def on_writable(self) -> None:
        """Tunnels wait for credit, not for room."""

    def on_detached(self, reason: str, last_accepted: int | None) -> None:
        self._fail_all(reason)

    def on_closed(self) -> None:
        self._fail_all("the mesh was closed")

    def _fail_all(self, reason: str) -> None:
        for tunnel in list(self._tunnels.values()):
            tunnel.fail(TunnelClosed(reason))

    def _on_accept(self, message: Message, connection: RelayConnection) -> None:
        _, request_id, window, max_send = message
        if type(window) is not int or type(max_send) is not int:
            raise Malformed("a size must be a number of bytes")
        request = self._requests.pending.take(request_id)
        if request is None or request.future.done():
            abort = (_END, request_id, TunnelClose.ABORTED.value, "", "the request has ended")
            connection.send_in_flow(abort, request_id)
            return
        if request.message[0] != _OPEN:
            error = ProtocolError("the member accepted a request as if it were a tunnel")
            request.future.set_exception(error)
            return
        # Added here, not where the future is awaited: data may follow in the same read.
        max_receive = request.message[_MAX_MESSAGE_FIELD]
        settings = TunnelSettings(window, max_receive, max_send)
        request.future.set_result(self._add(connection, request_id, settings))

    def _add(self, connection: RelayConnection, number: int, settings: TunnelSettings) -> Tunnel:
        tunnel = Tunnel(connection, number, settings, self._remove)
        self._tunnels[number] = tunnel
        return tunnel

    def _remove(self, number: int) -> None:
        self._tunnels.pop(number, None)

    # The other end uses the negated number.

    def _on_data(self, message: Message, connection: RelayConnection) -> None:
        _, number, total, data = message
        check_tunnel_data(total, data)
        tunnel = self._tunnels.get(-number)
        if tunnel is not None:
            tunnel.on_data(total, data)

    def _on_credit(self, message: Message, connection: RelayConnection) -> None:
        _, number, size = message
        if type(size) is not int or size < 0:
            raise Malformed("a credit must be a number of bytes, at least 0")
        tunnel = self._tunnels.get(-number)
        if tunnel is not None:
            tunnel.on_credit(size)

    def _on_end(self, message: Message, connection: RelayConnection) -> None:
        _, number, close, error_type, text = message
        if type(error_type) is not str or type(text) is not str:
            raise Malformed("the error of a tunnel must be text")
        tunnel = self._tunnels.get(-number)
        if tunnel is not None:
            tunnel.on_end(close, error_type, text)
