"""What a member does with what it is handed: answers soon, late, never; raises, refuses."""

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
    """The handlers of one program that run. `handling` has their deadlines on the relay's clock."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._world = program.world
        self.handling: dict[int, float] = {}

    @property
    def handlers(self) -> dict[int, Callable[..., object]]:
        return {
            Op.DELIVER_REQUEST: self._on_call,
            Op.OFFER: self._on_offer,
            Op.REQUEST_CANCELLED: self._on_stop,
        }

    @property
    def busy(self) -> bool:
        self._forget_expired()
        return bool(self.handling)

    def stop(self) -> None:
        """End what still runs."""
        for call in list(self.handling):
            self._raise(call)

    def unwanted(self) -> list[int]:
        """Handlers that nobody waits for: the relay knows nothing of their calls.

        Where there was no room to say so, and that was counted, they go on until their deadlines.
        """
        self._forget_expired()
        if any(relay.core.counters.drops["cancel_queue_full"] for relay in self._world.all):
            return []
        open_here = self._program.attachment.relay.core.router._assigned
        return [call for call in self.handling if call not in open_here]

    # What the relay says.

    def _on_call(
        self,
        call: int,
        body: object,
        timeout: int,
        stamp: int,
        sender: str,
        headers: object,
    ) -> None:
        self._begin(call, body, timeout, stamp, sender, headers, self._answer)

    def _on_offer(
        self,
        call: int,
        body: object,
        timeout: int,
        stamp: int,
        purpose: int,
        window: int,
        largest: int,
        sender: str,
        headers: object,
    ) -> None:
        def accept(call: int, request: Request) -> None:
            if self.handling.pop(call, None) is not None:
                self._program.tunnels.accept(request, call, window)

        self._begin(call, body, timeout, stamp, sender, headers, accept)

    def _on_stop(self, call: int) -> None:
        if self.handling.pop(call, None) is not None:
            self._world.tally.seen["stopped"] += 1

    # Handling.

    def _begin(
        self,
        call: int,
        body: object,
        timeout: int,
        stamp: int,
        sender: str,
        headers: object,
        answer: Callable[[int, Request], None],
    ) -> None:
        program, world = self._program, self._world
        octets = program.whole(body)
        expires = (stamp + timeout) / 1000
        request = world.requests[octets.split(b" ", 1)[0].decode()]
        if len(octets) != len(request.body):
            text = f"{request.key} has {len(octets)} octets, not {len(request.body)}"
            raise Violation("a request arrives as it was sent", text, request.key)
        if timeout <= 0:
            text = f"{request.key} was handed over with {timeout} ms left"
            raise Violation("expired work is not started", text, request.key)
        if program.attachment.relay.now >= expires:
            world.tally.seen["expired before its turn"] += 1
            return
        what = world.workload.handling()
        if what == "refuse":
            request.refused += 1
            world.tally.seen["refused"] += 1
            program.outbox.put((Op.REFUSED.value, call, "full"))
            return
        world.trace.note(program.key, "begins", request.key, "as", call, "and will", what)
        request.begin(program, sender, headers)
        self.handling[call] = expires
        if what == "answer":
            answer(call, request)
        elif what == "answer late":
            program.after(world.random.uniform(0.001, 0.4), answer, call, request)
        elif what == "raise":
            program.after(world.random.uniform(0.0, 0.05), self._raise, call)

    def _answer(self, call: int, request: Request) -> None:
        if self.handling.pop(call, None) is not None:
            large = self._world.random.random() < 0.06 and not self._world.workload.calm
            size = self._world.random.randint(CHUNK, self._program.largest - 100) if large else 0
            body = f"{request.key} answer ".encode() + bytes(size)
            self._program.outbox.put_body((Op.REPLY.value, call, body), 2)

    def _raise(self, call: int) -> None:
        if self.handling.pop(call, None) is not None:
            self._program.outbox.put((Op.FAULT.value, call, "Planned", "as planned"))

    def _forget_expired(self) -> None:
        now = self._program.attachment.relay.now
        for call in [call for call, expires in self.handling.items() if expires <= now]:
            del self.handling[call]
