"""Makes requests over an attachment: sends them, again where that is safe, and ends each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

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
from arke.runtime.deadlines import Call, Calls
from arke.runtime.relay_connection import Handler, Message, RelayLink
from arke.wire.limits import CHUNK
from arke.wire.messages import Failure, Op

if TYPE_CHECKING:
    from arke.runtime.reconnect import Attachment

_FAILURES: dict[int, type[ArkeError]] = {
    Failure.NO_SUCH_CLUSTER: NoSuchCluster,
    Failure.MEMBER_LOST: MemberLost,
    Failure.OVERLOADED: Overloaded,
    Failure.TIMED_OUT: RequestTimeout,
    Failure.TOO_LARGE: MessageTooLarge,
    Failure.NO_SUCH_MEMBER: NoSuchMember,
}

_REQUEST: Final = Op.REQUEST.value
_OPEN: Final = Op.OPEN.value
_STATUS_LIMIT: Final = 5.0


class Caller:
    """The calls of one program."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._loop = attachment.loop
        self._held_back = False  # some call could not be sent yet
        self.calls = Calls(self._loop)

    def begin(
        self,
        cluster: str,
        body: bytes,
        timeout: float,
        idempotent: bool,
        headers: Mapping[str, str] | None,
    ) -> Call:
        """Hand a request to the relay now, or when there is one again and it has room.

        `timeout` is in seconds. Raises MeshClosed, MessageTooLarge.
        """
        link = self._attachment.link
        if link is None:
            self._attachment.check_open()
        elif len(body) > link.max_message:
            raise too_large(body, link)
        call = Call(self._loop.create_future(), time.monotonic() + timeout, idempotent)
        number = self.calls.add(call)
        # In whole milliseconds, and not less than there are.
        left = int(timeout * 1000) + 1
        call.message = (_REQUEST, number, cluster, body, left, idempotent, headers)
        if link is None or link.congested:
            self._held_back = True
        elif timeout > 0:
            send_body = link.send_body
            # A large one is overtaken by small ones: its cancelling must keep behind it.
            order = None if len(body) <= CHUNK else number
            try:
                call.sent = send_body(call.message, 3, order)
            except BaseException:  # what cannot be packed is not open
                self.calls.drop(call)
                raise
            if not call.sent:
                self._held_back = True
        return call

    def begin_special(
        self,
        op: int,
        name: str,
        body: bytes,
        timeout: float,
        rest: tuple[Any, ...],
        *,
        idempotent: bool,
    ) -> Call:
        """The same for what is not a plain request; `rest` are the fields behind the time-out."""
        link = self._attachment.link
        if link is None:
            self._attachment.check_open()
        call = Call(self._loop.create_future(), time.monotonic() + timeout, idempotent)
        call.message = (op, self.calls.add(call), name, body, 0, *rest)
        if link is None or link.congested:
            self._held_back = True
        elif timeout > 0:
            self._send_late(call, link, timeout)
        return call

    def cancel(self, call: Call) -> None:
        """Nobody waits for the outcome any more."""
        self.calls.drop(call)
        link = self._attachment.link
        if call.sent and link:
            link.send_part((Op.CANCEL.value, call.id), call.id)

    async def ask_relay(self, op: int, *fields: Any) -> bytes:
        """What the relay itself knows, as a JSON document. Raises what a request does."""
        call = Call(self._loop.create_future(), time.monotonic() + _STATUS_LIMIT, idempotent=False)
        link = await self._attachment.ready(call.deadline)
        call.message = (op, self.calls.add(call), *fields)
        call.sent, call.again = True, False
        link.send(call.message)
        document: bytes = await call.future
        return document

    # A part of the attachment.

    @property
    def handlers(self) -> Mapping[int, Handler]:
        return {Op.REPLY: self._on_reply, Op.FAULT: self._on_fault, Op.FAILED: self._on_failed}

    def attached(self, link: RelayLink) -> None:
        self._send_held_back()

    def relieved(self) -> None:
        self._send_held_back()

    def detached(self, reason: str, last_accepted: int | None) -> None:
        self.calls.lost(reason, last_accepted)
        self._held_back = True

    def closed(self) -> None:
        self.calls.fail_all(MeshClosed("the mesh was closed"))

    def _send_held_back(self) -> None:
        if not self._held_back:
            return
        self._held_back = False
        for call in self.calls.unsent():
            link = self._attachment.link
            if link is None or link.congested:
                self._held_back = True
                return
            left = call.deadline - time.monotonic()
            if left > 0 and not call.future.done():
                self._send_late(call, link, left)

    def _send_late(self, call: Call, link: RelayLink, left: float) -> None:
        """Send a call that waited, or that goes again: with what is left of its time."""
        op, _, name, body, _, *rest = call.message
        if len(body) > link.max_message:
            self.calls.drop(call)
            call.future.set_exception(too_large(body, link))
            return
        call.message = (op, call.id, name, body, int(left * 1000) + 1, *rest)
        call.sent = link.send_body(call.message, 3, call.id)
        if not call.sent:
            self._held_back = True

    # What the relay says.

    def _on_reply(self, message: Message, link: RelayLink) -> None:
        _, number, body = message
        if type(body) is not bytes:
            body = link.body(message, 2)
            if body is None:
                self._fail(number, RemoteError("Overloaded", "no room to join the answer"))
                return
        call = self.calls.take(number)
        if call is not None:
            future = call.future
            if not future.done():
                if call.message[0] == _OPEN:
                    future.set_exception(ProtocolError("an opening was answered like a request"))
                    return
                future.set_result(body)

    def _on_fault(self, message: Message, link: RelayLink) -> None:
        self._fail(message[1], RemoteError(str(message[2]), str(message[3])))

    def _on_failed(self, message: Message, link: RelayLink) -> None:
        _, number, failure, text = message
        if number in self.calls:  # or this program's own clock was the first to tell
            self._fail(number, _FAILURES.get(failure, ProtocolError)(str(text)))

    def _fail(self, number: int, error: Exception) -> None:
        call = self.calls.take(number)
        if call is not None and not call.future.done():
            call.future.set_exception(error)


def too_large(body: bytes, link: RelayLink) -> MessageTooLarge:
    return MessageTooLarge(f"{len(body)} bytes are over the relay's limit of {link.max_message}")
