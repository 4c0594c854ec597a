"""Requests that a program makes, and outcomes that it returns."""

from __future__ import annotations

from typing import Any

from arke.wire.chunked_body import Body
from arke.wire.limits import MAX_HEADERS, MAX_REASON, MIN_WINDOW, check_map, check_name
from arke.wire.malformed import Malformed
from arke.wire.messages import Failure, Op, Purpose
from arke.wire.reassembly import Reassembler
from arke_relay.attachments.native.fields import Handler, check_request, check_size, check_text
from arke_relay.core.directed_request import DirectedRequest, TunnelParameters
from arke_relay.core.directory import Directory
from arke_relay.core.endpoints import Message, Program
from arke_relay.core.routed_request import RoutedRequest
from arke_relay.core.router import Router


class NativeRequests:
    """Handlers for one program."""

    def __init__(
        self, program: Program, inbox: Reassembler, router: Router, directory: Directory
    ) -> None:
        self._program = program
        self._inbox = inbox
        self._router = router
        self._clusters = directory.clusters
        # Bound methods in a local variable are called fastest, see `_on_request`.
        self._route = router.request
        self._reply = router.reply

    @property
    def handlers(self) -> dict[int, Handler]:
        return {
            Op.REQUEST: self._on_request,
            Op.REQUEST_MEMBER: self._on_request_member,
            Op.OPEN: self._on_open,
            Op.CANCEL: self._on_cancel,
            Op.REPLY: self._on_reply,
            Op.FAULT: self._on_fault,
            Op.REFUSED: self._on_refused,
            Op.ACCEPT: self._on_accept,
        }

    # Requests.

    def _on_request(self, message: Message, now: float) -> None:
        _, request_id, cluster, body, remaining_ms, idempotent, headers = message
        remaining_ms = check_request(request_id, remaining_ms)
        if cluster not in self._clusters:
            check_name(cluster)
        if headers is not None:
            check_map(headers, MAX_HEADERS)
        if type(body) is not bytes:
            body = self._reassembled(request_id, body)
            if body is None:
                return
        program = self._program
        deadline = now + remaining_ms / 1000
        request = RoutedRequest(
            program, request_id, cluster, body, deadline, program.sender, headers
        )
        if idempotent is True:
            request.idempotent = True
        route = self._route
        route(request, now)

    def _on_request_member(self, message: Message, now: float) -> None:
        _, request_id, member, body, remaining_ms, idempotent, headers = message
        check_name(member)
        request = self._directed(
            (request_id, "", body, remaining_ms, headers), member=member, tunnel=None, now=now
        )
        if request is not None:
            request.idempotent = idempotent is True
            self._route(request, now)

    def _on_open(self, message: Message, now: float) -> None:
        (
            _,
            request_id,
            cluster,
            body,
            remaining_ms,
            member,
            purpose,
            window,
            max_message,
            headers,
        ) = message
        tunnel = TunnelParameters(Purpose(purpose), check_size(window), check_size(max_message))
        if tunnel.window < MIN_WINDOW:
            raise Malformed(f"a window must be at least {MIN_WINDOW} bytes")
        check_name(cluster if member is None else member)
        request = self._directed(
            (request_id, cluster, body, remaining_ms, headers),
            member=member,
            tunnel=tunnel,
            now=now,
        )
        if request is not None:
            self._route(request, now)

    def _directed(
        self,
        fields: tuple[Any, ...],
        *,
        member: str | None,
        tunnel: TunnelParameters | None,
        now: float,
    ) -> DirectedRequest | None:
        """Check the common fields and make the request; None if its body was dropped."""
        request_id, cluster, body, remaining_ms, headers = fields
        remaining_ms = check_request(request_id, remaining_ms)
        if headers is not None:
            check_map(headers, MAX_HEADERS)
        if type(body) is not bytes:
            body = self._reassembled(request_id, body)
            if body is None:
                return None
        program = self._program
        deadline = now + remaining_ms / 1000
        return DirectedRequest(
            program,
            request_id,
            cluster,
            body,
            deadline,
            program.sender,
            headers,
            member=member,
            tunnel=tunnel,
        )

    def _reassembled(self, request_id: int, stream: Any) -> Body | None:
        """Return the body of a stream; None: its chunks were dropped, and the request failed."""
        body = self._inbox.take_body(stream)
        if body is None:
            text = "the relay's buffer for large requests is full"
            self._program.sink.put((Op.FAILED.value, request_id, Failure.OVERLOADED.value, text))
        return body

    def _on_cancel(self, message: Message, now: float) -> None:
        self._router.cancel(self._program, message[1])

    # Outcomes.

    def _on_reply(self, message: Message, now: float) -> None:
        _, request_id, body = message
        if type(body) is not bytes:
            body = self._inbox.take_body(body)
            if body is None:
                text = "the relay's buffer for large replies is full"
                self._router.fault(self._program, request_id, "Overloaded", text, now)
                return
        reply = self._reply
        reply(self._program, request_id, body, now)

    def _on_fault(self, message: Message, now: float) -> None:
        _, request_id, kind, text = message
        kind, text = check_text(kind, "an error type"), check_text(text, "an error text")
        self._router.fault(self._program, request_id, kind, text, now)

    def _on_refused(self, message: Message, now: float) -> None:
        _, request_id, reason = message
        reason = check_text(reason, "a reason")[:MAX_REASON]
        self._router.refused(self._program, request_id, reason, now)

    def _on_accept(self, message: Message, now: float) -> None:
        _, request_id, window, max_message = message
        window = max(MIN_WINDOW, check_size(window))
        self._router.accept(self._program, request_id, window, check_size(max_message))
