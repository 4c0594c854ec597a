"""What a program asks of clusters and of members, and how that ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from arke.wire.messages import Op, Purpose
from simulation.bounds import LARGEST, WINDOWS
from simulation.requests import FAILURES, Request
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.program import Program


class Caller:
    """The requests of one program, opening_tunnels of tunnels among them."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._numbers = 0
        self.open: dict[int, Request] = {}
        """By number; what has ended, or was given up, is not here."""
        self._given_up: set[int] = set()

    @property
    def handlers(self) -> dict[int, Callable[..., object]]:
        return {
            Op.REPLY: self._on_reply,
            Op.FAULT: self._on_fault,
            Op.FAILED: self._on_failed,
            Op.ACCEPT: self._on_accept,
            Op.DRAINING: self._on_goodbye,
        }

    # Asking.

    def ask(
        self,
        cluster: str,
        *,
        member: str | None = None,
        timeout: float = 5.0,
        idempotent: bool = False,
        size: int = 0,
        opens: bool = False,
    ) -> Request:
        """Make a request, or open a tunnel. The time-out is in seconds, the size in octets."""
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
            opening = (member, purpose.value, window, LARGEST, headers)
            message = (Op.OPEN.value, number, cluster, body, left, *opening)
        elif member is not None:
            message = (Op.REQUEST_MEMBER.value, number, member, body, left, idempotent, headers)
        else:
            message = (Op.REQUEST.value, number, cluster, body, left, idempotent, headers)
        self.open[number] = request
        program.world.requests[request.key] = request
        program.sent.append(request)
        program.outbox.put_body(message, 3)
        what = "opens a tunnel to" if opens else "asks"
        whom = cluster if member is None else member
        program.world.trace.note(program.key, what, whom, request.key, f"{timeout} s", len(body))
        return request

    def cancel(self, request: Request) -> None:
        """Nobody waits for the outcome any more."""
        if self.open.pop(request.number, None) is not None:
            self._given_up.add(request.number)
            self._program.outbox.put((Op.CANCEL.value, request.number))
            request.ended("cancelled")

    def gone(self, reason: str) -> None:
        """The program is no more, or its relay is not."""
        ended_here = reason in {"closed_by_program", "stalled", "it crashed"}
        outcome = "abandoned" if ended_here else "connection_lost"
        told = reason == "the relay is shutting down" and not self._program.asks
        for request in self.open.values():
            if told and not request.no_room and not self._program.world.faults.may_lose:
                raise Violation("who leaves sees its calls through", request.key, request.key)
            request.ended("no_room" if request.no_room else outcome)
        self.open.clear()

    # What the relay says.

    def _on_reply(self, number: int, body: object) -> None:
        octets = self._program.whole(body)
        request = self._take(number)
        if request is None:
            return
        if not octets.startswith(f"{request.key} answer ".encode()):
            text = f"{request.key} was answered {octets!r:.40}"
            raise Violation("an answer is to its request", text, request.key)
        if not request.begun:
            raise Violation("an answer is a handler's", request.key, request.key)
        request.ended("answered")

    def _on_fault(self, number: int, kind: str, text: str) -> None:
        request = self._take(number)
        if request is not None:
            request.ended("faulted" if kind == "Planned" else "answer_without_room")

    def _on_failed(self, number: int, failure: int, text: str) -> None:
        request = self._take(number)
        if request is not None:
            request.ended(FAILURES[failure])

    def _on_accept(self, number: int, window: int, largest: int) -> None:
        request = self._take(number)
        if request is None:
            self._program.tunnels.decline(number)
            return
        if not request.opens:
            raise Violation("an answer is to its request", "a tunnel", request.key)
        request.ended("opened")
        self._program.tunnels.opened(request, number, window)

    def _on_goodbye(self, last_accepted: int, text: str) -> None:
        """The relay leaves: later requests never started, and would be made elsewhere."""
        self._program.asks = False
        for number in [number for number in self.open if number > last_accepted]:
            self._given_up.add(number)
            self.open.pop(number).ended("never_started")

    def _take(self, number: int) -> Request | None:
        request = self.open.pop(number, None)
        if request is None and number not in self._given_up:
            key = f"{self._program.key}#{number}"
            raise Violation("a request ends once", f"{key} ended again", key)
        return request
