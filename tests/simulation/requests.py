"""A request, or the opening of a tunnel, and the rules for how it may end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arke.wire.messages import Failure, Op
from arke_relay.core.endpoints import Message
from simulation.bounds import DEADLINE_TOLERANCE, START_TOLERANCE
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.attachment import Attachment
    from simulation.program import Program

OUTCOMES = frozenset({Op.REPLY.value, Op.FAULT.value, Op.FAILED.value, Op.ACCEPT.value})

FAILURES = {
    Failure.NO_SUCH_CLUSTER: "no_such_cluster",
    Failure.MEMBER_LOST: "member_lost",
    Failure.OVERLOADED: "overloaded",
    Failure.TIMED_OUT: "timed_out",
    Failure.NO_SUCH_MEMBER: "no_such_member",
}

_NOT_STARTED = {"no_such_cluster", "overloaded", "no_such_member", "never_started"}
"""Outcomes that say that no handler was started."""

_EARLY_TOLERANCE = 0.002
"""Seconds before its deadline at which a request may time out: rounding to milliseconds."""


class Request:
    """`key` identifies the request in the whole world; its body starts with the key."""

    __slots__ = (
        "cluster",
        "deadline",
        "headers",
        "idempotent",
        "key",
        "member",
        "number",
        "opens",
        "outcome",
        "outcome_dropped",
        "program",
        "refusals",
        "sent_at",
        "size",
        "starts",
        "timeout",
    )

    def __init__(
        self,
        program: Program,
        number: int,
        cluster: str,
        member: str | None,
        *,
        timeout: float,
        idempotent: bool,
        size: int,
        opens: bool,
    ) -> None:
        self.program = program
        self.number = number
        self.key = f"{program.key}#{number}"
        self.cluster = cluster
        self.member = member
        self.timeout = timeout
        self.idempotent = idempotent
        self.opens = opens
        self.size = size
        self.sent_at = program.world.schedule.time
        self.headers = {"key": self.key} if number % 8 == 0 else None
        self.deadline: float | None = None
        """When the caller's relay ends it, in the world's seconds; None: not accepted yet."""
        self.starts = 0
        self.refusals = 0
        self.outcome_dropped = False
        """The outbox had no room for its outcome; the relay counted the drop."""
        self.outcome: str | None = None

    @property
    def body(self) -> bytes:
        return self.key.encode() + b" " + bytes(max(0, self.size - len(self.key) - 1))

    def on_start(self, member: Program, sender: str, headers: object) -> None:
        """Check the request when its handler starts."""
        world = self.program.world
        self.starts += 1
        if self.starts > 1 and not self.idempotent:
            text = f"{self.key} was started {self.starts} times"
            raise Violation("a request starts at most one handler", text, self.key)
        if self.deadline is not None and world.schedule.time > self.deadline + START_TOLERANCE:
            late = world.schedule.time - self.deadline
            text = f"{self.key} was started {late:.3f} s after its deadline"
            raise Violation("expired requests are not started", text, self.key)
        wanted = self.cluster if self.member is None else self.member
        if wanted not in {member.last_cluster, member.member_id}:
            text = f"{self.key} for {wanted} arrived at {member.member_id}"
            raise Violation("a request reaches a member of its cluster", text, self.key)
        if (sender, headers) != (self.program.member_id, self.headers):
            text = f"{self.key} arrived from {sender} with {headers}"
            raise Violation("a request arrives as it was sent", text, self.key)

    def check_outcome(self, op: int, message: Message, attachment: Attachment) -> None:
        """Check the outcome that the caller's relay sends."""
        world = self.program.world
        now = world.schedule.time
        if self.deadline is None:
            self.deadline = now + self.timeout
        if attachment.later_than(self.deadline):
            text = f"{self.key} ended {now - self.deadline:.3f} s after its deadline"
            raise Violation("a request ends by its deadline", text, self.key)
        if op != Op.FAILED:
            return
        failure = message[2]
        if failure == Failure.TIMED_OUT and now < self.deadline - _EARLY_TOLERANCE:
            text = f"{self.key} timed out {self.deadline - now:.3f} s early"
            raise Violation("a request does not time out early", text, self.key)
        if failure == Failure.NO_SUCH_CLUSTER:
            programs = attachment.relay.core.programs.by_number.values()
            if any(program.cluster == self.cluster for program in programs):
                text = f"{self.key} found no member of {self.cluster}, but its node has one"
                raise Violation("a member of the same node is found", text, self.key)
        # Just before the deadline the relay may report either reason.
        early = now < self.deadline - DEADLINE_TOLERANCE
        if failure == Failure.MEMBER_LOST and early and not world.faults.may_lose:
            raise Violation("no member is lost without a fault", str(message), self.key)

    def on_end(self, outcome: str) -> None:
        """Record the outcome that the caller received, or that it will receive none."""
        world = self.program.world
        world.trace.note(self.key, "ended:", outcome)
        world.coverage.outcomes[outcome] += 1
        self.outcome = outcome
        if outcome in _NOT_STARTED and self.starts:
            text = f"{self.key} ended {outcome} but was started {self.starts} times"
            raise Violation("a started request never ends as not started", text, self.key)
