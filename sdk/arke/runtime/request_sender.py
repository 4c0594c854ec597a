"""Send requests to the relay and end each with its reply, an error or its deadline."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from arke.errors import (
    ArkeError,
    MemberLost,
    MeshClosed,
    MessageTooLarge,
    NoSuchCluster,
    NoSuchMember,
    Overloaded,
    ProtocolError,
    RemoteError,
    RequestTimeout,
)
from arke.runtime.arguments import too_large
from arke.runtime.deadlines import PendingRequest, PendingRequests
from arke.runtime.reconnect import Attachment
from arke.runtime.relay_connection import Message, MessageHandler, RelayConnection
from arke.runtime.resend import Resender
from arke.wire.limits import CHUNK
from arke.wire.messages import Failure, Op

_ERRORS: dict[int, type[ArkeError]] = {
    Failure.NO_SUCH_CLUSTER: NoSuchCluster,
    Failure.MEMBER_LOST: MemberLost,
    Failure.OVERLOADED: Overloaded,
    Failure.TIMED_OUT: RequestTimeout,
    Failure.TOO_LARGE: MessageTooLarge,
    Failure.NO_SUCH_MEMBER: NoSuchMember,
}

_REQUEST: Final = Op.REQUEST.value
_OPEN: Final = Op.OPEN.value


class RequestSender:
    """The outgoing requests of one program: a component of the attachment."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._loop = attachment.loop
        self.pending = PendingRequests(self._loop)
        self._resender = Resender(attachment, self.pending)

    def begin(
        self,
        cluster: str,
        body: bytes,
        timeout: float,
        idempotent: bool,
        headers: Mapping[str, str] | None,
    ) -> PendingRequest:
        """Send a request now, or as soon as there is a connection with room.

        `timeout` is in seconds. Raises MeshClosed, MessageTooLarge.
        """
        connection = self._attachment.connection
        if connection is None:
            self._attachment.check_open()
        elif len(body) > connection.max_message:
            raise too_large(body, connection.max_message)
        deadline = time.monotonic() + timeout
        request = PendingRequest(self._loop.create_future(), deadline, idempotent)
        request_id = self.pending.add(request)
        # Rounded up: a request with time left must not be sent with 0 ms.
        remaining_ms = int(timeout * 1000) + 1
        request.message = (_REQUEST, request_id, cluster, body, remaining_ms, idempotent, headers)
        if connection is None or connection.congested:
            self._resender.needed = True
        elif timeout > 0:
            send_body = connection.send_body
            # Small messages pass a large body; the key keeps its CANCEL behind it.
            key = None if len(body) <= CHUNK else request_id
            try:
                request.sent = send_body(request.message, 3, key)
            except BaseException:  # a message that cannot be packed is not pending
                self.pending.drop(request)
                raise
            if not request.sent:
                self._resender.needed = True
        return request

    def begin_directed(
        self,
        op: int,
        name: str,
        body: bytes,
        timeout: float,
        rest: tuple[Any, ...],
        *,
        idempotent: bool,
    ) -> PendingRequest:
        """Send a request to one member or open a tunnel; `rest` are the fields after the time."""
        connection = self._attachment.connection
        if connection is None:
            self._attachment.check_open()
        deadline = time.monotonic() + timeout
        request = PendingRequest(self._loop.create_future(), deadline, idempotent)
        request.message = (op, self.pending.add(request), name, body, 0, *rest)
        if connection is None or connection.congested:
            self._resender.needed = True
        elif timeout > 0:
            self._resender.send(request, connection, timeout)
        return request

    def cancel(self, request: PendingRequest) -> None:
        """Drop a request whose caller stopped waiting, and tell the relay."""
        self.pending.drop(request)
        connection = self._attachment.connection
        if request.sent and connection:
            request_id = request.request_id
            connection.send_in_flow((Op.CANCEL.value, request_id), request_id)

    async def request_relay(self, op: int, deadline: float) -> bytes:
        """Request a JSON document from the relay itself. Raises what a request raises."""
        request = PendingRequest(self._loop.create_future(), deadline, idempotent=False)
        connection = await self._attachment.wait_writable(deadline)
        request.message = (op, self.pending.add(request))
        request.sent, request.resendable = True, False
        connection.send(request.message)
        document: bytes = await request.future
        return document

    # The component interface.

    @property
    def handlers(self) -> Mapping[int, MessageHandler]:
        return {Op.REPLY: self._on_reply, Op.FAULT: self._on_fault, Op.FAILED: self._on_failed}

    def on_attached(self, connection: RelayConnection) -> None:
        self._resender.send_unsent()

    def on_writable(self) -> None:
        self._resender.send_unsent()

    def on_detached(self, reason: str, last_accepted: int | None) -> None:
        self._resender.on_detached(reason, last_accepted)

    def on_closed(self) -> None:
        self.pending.fail_all(MeshClosed("the mesh was closed"))

    def _on_reply(self, message: Message, connection: RelayConnection) -> None:
        _, request_id, body = message
        if type(body) is not bytes:
            body = connection.body(message, 2)
            if body is None:
                text = "this program has no room to reassemble the reply"
                self._fail(request_id, RemoteError("Overloaded", text))
                return
        request = self.pending.take(request_id)
        if request is not None:
            future = request.future
            if not future.done():
                if request.message[0] == _OPEN:
                    future.set_exception(ProtocolError("the member replied to a tunnel offer"))
                    return
                future.set_result(body)

    def _on_fault(self, message: Message, connection: RelayConnection) -> None:
        self._fail(message[1], RemoteError(str(message[2]), str(message[3])))

    def _on_failed(self, message: Message, connection: RelayConnection) -> None:
        _, request_id, failure, text = message
        if request_id in self.pending:  # otherwise the deadline here passed first
            self._fail(request_id, _ERRORS.get(failure, ProtocolError)(str(text)))

    def _fail(self, request_id: int, error: Exception) -> None:
        request = self.pending.take(request_id)
        if request is not None and not request.future.done():
            request.future.set_exception(error)
