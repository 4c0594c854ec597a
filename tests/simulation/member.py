"""A member's handlers: they reply at once, late or never, raise an error, or refuse the request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from arke.wire.limits import CHUNK
from arke.wire.messages import Op
from simulation.requests import Request
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.program import Program


class Member:
    """The running handlers of one program. `handling` has their deadlines on the relay's clock."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._world = program.world
        self.handling: dict[int, float] = {}

    @property
    def handlers(self) -> dict[int, Callable[..., object]]:
        return {
            Op.DELIVER_REQUEST: self._on_request,
            Op.OFFER: self._on_offer,
            Op.REQUEST_CANCELLED: self._on_cancelled,
        }

    @property
    def busy(self) -> bool:
        self._forget_expired()
        return bool(self.handling)

    def stop(self) -> None:
        """End all running handlers with an error."""
        for request_id in list(self.handling):
            self._raise(request_id)

    def abandoned_handlers(self) -> list[int]:
        """Return the handlers whose requests are unknown to the relay.

        Empty if a relay dropped and counted a cancellation: then handlers run to their deadlines.
        """
        self._forget_expired()
        if any(relay.core.counters.drops["cancel_queue_full"] for relay in self._world.all):
            return []
        open_here = self._program.attachment.relay.core.router._assigned
        return [request_id for request_id in self.handling if request_id not in open_here]

    # Messages from the relay.

    def _on_request(
        self,
        request_id: int,
        body: object,
        timeout: int,
        stamp: int,
        sender: str,
        headers: object,
    ) -> None:
        self._begin(request_id, body, timeout, stamp, sender, headers, self._reply)

    def _on_offer(
        self,
        request_id: int,
        body: object,
        timeout: int,
        stamp: int,
        purpose: int,
        window: int,
        largest: int,
        sender: str,
        headers: object,
    ) -> None:
        def accept(request_id: int, request: Request) -> None:
            if self.handling.pop(request_id, None) is not None:
                self._program.tunnels.accept(request, request_id, window)

        self._begin(request_id, body, timeout, stamp, sender, headers, accept)

    def _on_cancelled(self, request_id: int) -> None:
        if self.handling.pop(request_id, None) is not None:
            self._world.coverage.seen["handler cancelled"] += 1

    # Handling.

    def _begin(
        self,
        request_id: int,
        body: object,
        timeout: int,
        stamp: int,
        sender: str,
        headers: object,
        answer: Callable[[int, Request], None],
    ) -> None:
        program, world = self._program, self._world
        data = program.join_body(body)
        expires = (stamp + timeout) / 1000
        request = world.requests[data.split(b" ", 1)[0].decode()]
        if len(data) != len(request.body):
            text = f"{request.key} has {len(data)} bytes, not {len(request.body)}"
            raise Violation("a request arrives as it was sent", text, request.key)
        if timeout <= 0:
            text = f"{request.key} was delivered with {timeout} ms left"
            raise Violation("expired requests are not started", text, request.key)
        if program.attachment.relay.now >= expires:
            world.coverage.seen["expired before its handler started"] += 1
            return
        what = world.workload.handling()
        if what == "refuse":
            request.refusals += 1
            world.coverage.seen["refused"] += 1
            program.outbox.put((Op.REFUSED.value, request_id, "full"))
            return
        world.trace.note(program.key, "starts", request.key, "as", request_id, "and will", what)
        request.on_start(program, sender, headers)
        self.handling[request_id] = expires
        if what == "answer":
            answer(request_id, request)
        elif what == "answer late":
            program.after(world.random.uniform(0.001, 0.4), answer, request_id, request)
        elif what == "raise":
            program.after(world.random.uniform(0.0, 0.05), self._raise, request_id)

    def _reply(self, request_id: int, request: Request) -> None:
        if self.handling.pop(request_id, None) is not None:
            large = self._world.random.random() < 0.06 and not self._world.workload.stopped
            size = self._world.random.randint(CHUNK, self._program.largest - 100) if large else 0
            body = f"{request.key} answer ".encode() + bytes(size)
            self._program.outbox.put_body((Op.REPLY.value, request_id, body), 2)

    def _raise(self, request_id: int) -> None:
        if self.handling.pop(request_id, None) is not None:
            self._program.outbox.put((Op.FAULT.value, request_id, "Planned", "as planned"))

    def _forget_expired(self) -> None:
        now = self._program.attachment.relay.now
        for request_id in [
            request_id for request_id, expires in self.handling.items() if expires <= now
        ]:
            del self.handling[request_id]
