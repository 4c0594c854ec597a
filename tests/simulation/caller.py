"""A program's outgoing requests, and their outcomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from arke.wire.messages import Op, Purpose
from simulation.bounds import MAX_BODY, WINDOWS
from simulation.requests import FAILURES, Request
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.program import Program


class Caller:
    """The requests of one program, including those that open tunnels."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._numbers = 0
        self.open: dict[int, Request] = {}
        """Unfinished requests by number."""
        self._ended_early: set[int] = set()
        """Cancelled here, or not accepted by a draining relay: a late outcome is ignored."""

    @property
    def handlers(self) -> dict[int, Callable[..., object]]:
        return {
            Op.REPLY: self._on_reply,
            Op.FAULT: self._on_fault,
            Op.FAILED: self._on_failed,
            Op.ACCEPT: self._on_accept,
            Op.DRAINING: self._on_draining,
        }

    def send_request(
        self,
        cluster: str,
        *,
        member: str | None = None,
        timeout: float = 5.0,
        idempotent: bool = False,
        size: int = 0,
        opens: bool = False,
    ) -> Request:
        """Make a request, or open a tunnel. `timeout` is in seconds, `size` in bytes."""
        self._numbers += 1
        program, number = self._program, self._numbers
        request = Request(
            program,
            number,
            cluster,
            member,
            timeout=timeout,
            idempotent=idempotent,
            size=size,
            opens=opens,
        )
        left, headers, body = int(timeout * 1000), request.headers, request.body
        if opens:
            random = program.world.random
            purpose, window = random.choice(list(Purpose)), random.choice(WINDOWS)
            opening = (member, purpose.value, window, MAX_BODY, headers)
            message = (Op.OPEN.value, number, cluster, body, left, *opening)
        elif member is not None:
            message = (Op.REQUEST_MEMBER.value, number, member, body, left, idempotent, headers)
        else:
            message = (Op.REQUEST.value, number, cluster, body, left, idempotent, headers)
        self.open[number] = request
        program.world.requests[request.key] = request
        program.sent.append(request)
        program.outbox.put_body(message, 3)
        action = "opens a tunnel to" if opens else "sends a request to"
        target = cluster if member is None else member
        trace = program.world.trace
        trace.note(program.key, action, target, request.key, f"{timeout} s", len(body))
        return request

    def cancel(self, request: Request) -> None:
        """Cancel the request; a late outcome is ignored."""
        if self.open.pop(request.number, None) is not None:
            self._ended_early.add(request.number)
            self._program.outbox.put((Op.CANCEL.value, request.number))
            request.on_end("cancelled")

    def on_detached(self, reason: str) -> None:
        """End all requests: the program is detached."""
        by_program = reason in {"closed_by_program", "stalled", "program_crashed"}
        outcome = "abandoned" if by_program else "connection_lost"
        drained = reason == "the relay is shutting down" and not self._program.may_send
        for request in self.open.values():
            if drained and not request.outcome_dropped and not self._program.world.faults.may_lose:
                raise Violation("a draining relay finishes requests", request.key, request.key)
            request.on_end("no_room" if request.outcome_dropped else outcome)
        self.open.clear()

    # Messages from the relay.

    def _on_reply(self, number: int, body: object) -> None:
        data = self._program.join_body(body)
        request = self._take(number)
        if request is None:
            return
        if not data.startswith(f"{request.key} answer ".encode()):
            text = f"{request.key} got the reply {data!r:.40}"
            raise Violation("a reply belongs to its request", text, request.key)
        if not request.starts:
            raise Violation("a reply comes from a handler", request.key, request.key)
        request.on_end("answered")

    def _on_fault(self, number: int, kind: str, text: str) -> None:
        request = self._take(number)
        if request is not None:
            request.on_end("faulted" if kind == "Planned" else "answer_without_room")

    def _on_failed(self, number: int, failure: int, text: str) -> None:
        request = self._take(number)
        if request is not None:
            request.on_end(FAILURES[failure])

    def _on_accept(self, number: int, window: int, largest: int) -> None:
        request = self._take(number)
        if request is None:
            self._program.tunnels.decline(number)
            return
        if not request.opens:
            raise Violation("a reply belongs to its request", "a tunnel", request.key)
        request.on_end("opened")
        self._program.tunnels.opened(request, number, window)

    def _on_draining(self, last_accepted: int, text: str) -> None:
        """The relay drains: requests after the last accepted one were never started."""
        self._program.may_send = False
        for number in [number for number in self.open if number > last_accepted]:
            self._ended_early.add(number)
            self.open.pop(number).on_end("never_started")

    def _take(self, number: int) -> Request | None:
        request = self.open.pop(number, None)
        if request is None and number not in self._ended_early:
            key = f"{self._program.key}#{number}"
            raise Violation("a request ends once", f"{key} ended again", key)
        return request
