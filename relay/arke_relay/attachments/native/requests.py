"""What a program asks, and what it answers."""

from __future__ import annotations

from typing import Any

from arke.wire.chunked_body import Body
from arke.wire.limits import MAX_HEADERS, MAX_REASON, MIN_WINDOW, check_map, check_name
from arke.wire.malformed import Malformed
from arke.wire.messages import Failure, Op, Purpose
from arke.wire.reassembly import Reassembler
from arke_relay.attachments.native.fields import Handler, check_call, size, text
from arke_relay.core.directed_request import DirectedRequest, TunnelParameters
from arke_relay.core.endpoints import Message, Program
from arke_relay.core.message_core import MessageCore
from arke_relay.core.routed_request import RoutedRequest


class NativeRequests:
    """Requests and opening_tunnels of one program, and its answers to others'."""

    def __init__(self, program: Program, inbox: Reassembler, core: MessageCore) -> None:
        self._program = program
        self._inbox = inbox
        self._router = core.router
        self._clusters = core.directory.clusters
        # Each is loaded once more before it is called: the interpreter is quicker with that.
        self._request = self._router.request
        self._reply = self._router.reply

    @property
    def handlers(self) -> dict[int, Handler]:
        return {
            Op.REQUEST: self._on_request,
            Op.REQUEST_MEMBER: self._on_ask,
            Op.OPEN: self._on_open,
            Op.CANCEL: self._on_cancel,
            Op.REPLY: self._on_reply,
            Op.FAULT: self._on_fault,
            Op.REFUSED: self._on_refused,
            Op.ACCEPT: self._on_accept,
        }

    # Asked.

    def _on_request(self, message: Message, now: float) -> None:
        _, call, cluster, body, timeout, idempotent, headers = message
        timeout = check_call(call, timeout)
        if cluster not in self._clusters:
            check_name(cluster)
        if headers is not None:
            check_map(headers, MAX_HEADERS)
        if type(body) is not bytes:
            body = self._joined(call, body)
            if body is None:
                return
        program = self._program
        deadline = now + timeout / 1000
        again = idempotent is True
        request = self._request
        request(
            RoutedRequest(
                program, call, cluster, body, now, deadline, again, program.sender, headers
            ),
            now,
        )

    def _on_ask(self, message: Message, now: float) -> None:
        _, call, member, body, timeout, idempotent, headers = message
        check_name(member)
        self._special(call, "", member, body, timeout, idempotent, None, headers, now)

    def _on_open(self, message: Message, now: float) -> None:
        _, call, cluster, body, timeout, member, purpose, window, largest, headers = message
        opening = TunnelParameters(Purpose(purpose), size(window), size(largest))
        if opening.window < MIN_WINDOW:
            raise Malformed(f"a window is {MIN_WINDOW} octets at least")
        check_name(cluster if member is None else member)
        self._special(call, cluster, member, body, timeout, False, opening, headers, now)

    def _special(
        self,
        call: Any,
        cluster: str,
        member: str | None,
        body: Any,
        timeout: Any,
        idempotent: Any,
        opening: TunnelParameters | None,
        headers: Any,
        now: float,
    ) -> None:
        timeout = check_call(call, timeout)
        if headers is not None:
            check_map(headers, MAX_HEADERS)
        if type(body) is not bytes:
            body = self._joined(call, body)
            if body is None:
                return
        program = self._program
        deadline = now + timeout / 1000
        again = idempotent is True
        facts = (program, call, cluster, body, now, deadline, again, program.sender, headers)
        self._request(DirectedRequest(*facts, to=member, opening=opening), now)

    def _joined(self, call: int, body: Any) -> Body | None:
        """The body that a call names; None when it failed for lack of room to join it."""
        joined = self._inbox.take_body(body)
        if joined is None:
            why = "no room to join the request"
            self._program.sink.put((Op.FAILED.value, call, Failure.OVERLOADED.value, why))
        return joined

    def _on_cancel(self, message: Message, now: float) -> None:
        self._router.cancel(self._program, message[1])

    # Answered.

    def _on_reply(self, message: Message, now: float) -> None:
        _, call, body = message
        if type(body) is not bytes:
            body = self._inbox.take_body(body)
            if body is None:
                why = "the relay had no room to join the answer"
                self._router.fault(self._program, call, "Overloaded", why, now)
                return
        reply = self._reply
        reply(self._program, call, body, now)

    def _on_fault(self, message: Message, now: float) -> None:
        _, call, kind, why = message
        kind, why = text(kind, "the type of a fault"), text(why, "a fault")
        self._router.fault(self._program, call, kind, why, now)

    def _on_refused(self, message: Message, now: float) -> None:
        _, call, reason = message
        reason = text(reason, "a refusal's reason")[:MAX_REASON]
        self._router.refused(self._program, call, reason, now)

    def _on_accept(self, message: Message, now: float) -> None:
        _, call, window, largest = message
        window = max(MIN_WINDOW, size(window))
        self._router.accept(self._program, call, window, size(largest))
