"""A request, or the opening of a tunnel, as everybody in the world knows it; and how it may end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arke.wire.messages import Failure, Op
from arke_relay.core.endpoints import Message
from simulation.bounds import LATE_START, ON_TIME
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

_NEVER_BEGUN = {"no_such_cluster", "overloaded", "no_such_member", "never_started"}
"""Outcomes that say that no handler was started."""

_EARLY = 0.002


class Request:
    """`key` names it everywhere; its body begins with it."""

    __slots__ = (
        "asked",
        "begun",
        "cluster",
        "deadline",
        "headers",
        "idempotent",
        "key",
        "member",
        "no_room",
        "number",
        "opens",
        "outcome",
        "program",
        "refused",
        "size",
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
        self.asked = program.world.schedule.time
        self.headers = {"key": self.key} if number % 8 == 0 else None
        self.deadline: float | None = None
        """Of the relay that took it, in the world's seconds; None: none took it yet."""
        self.begun = 0
        self.refused = 0
        self.no_room = False
        """Its outcome was dropped for lack of room, and counted."""
        self.outcome: str | None = None

    @property
    def body(self) -> bytes:
        return self.key.encode() + b" " + bytes(max(0, self.size - len(self.key) - 1))

    def begin(self, member: Program, sender: str, headers: object) -> None:
        """A handler starts."""
        world = self.program.world
        self.begun += 1
        if self.begun > 1 and not self.idempotent:
            text = f"{self.key} was started {self.begun} times"
            raise Violation("at most one handler", text, self.key)
        if self.deadline is not None and world.schedule.time > self.deadline + LATE_START:
            late = world.schedule.time - self.deadline
            text = f"{self.key} was started {late:.3f} s after its deadline"
            raise Violation("expired work is not started", text, self.key)
        wanted = self.cluster if self.member is None else self.member
        if wanted not in {member.cluster_of_old, member.member_id}:
            text = f"{self.key} for {wanted} came to {member.member_id}"
            raise Violation("a request reaches whom it is for", text, self.key)
        if (sender, headers) != (self.program.member_id, self.headers):
            text = f"{self.key} came from {sender} with {headers}"
            raise Violation("a request arrives as it was sent", text, self.key)

    def check_outcome(self, op: int, message: Message, attachment: Attachment) -> None:
        """The relay of the program says how it ended."""
        world = self.program.world
        now = world.schedule.time
        if self.deadline is None:
            self.deadline = now + self.timeout
        if attachment.later_than(self.deadline):
            text = f"{self.key} ended {now - self.deadline:.3f} s after it"
            raise Violation("a request ends by its deadline", text, self.key)
        if op != Op.FAILED:
            return
        failure = message[2]
        if failure == Failure.TIMED_OUT and now < self.deadline - _EARLY:
            text = f"{self.key} timed out {self.deadline - now:.3f} s early"
            raise Violation("a request has all of its time", text, self.key)
        if failure == Failure.NO_SUCH_CLUSTER:
            programs = attachment.relay.core.programs.by_number.values()
            if any(program.cluster == self.cluster for program in programs):
                text = f"{self.key} found nobody in {self.cluster}, who is at the same node"
                raise Violation("a member that is there is found", text, self.key)
        # Just before the deadline either may be noticed first.
        early = now < self.deadline - ON_TIME
        if failure == Failure.MEMBER_LOST and early and not world.faults.may_lose:
            raise Violation("without a fault no member is lost", str(message), self.key)

    def ended(self, outcome: str) -> None:
        """Its program has heard how it ended, or will never hear it."""
        world = self.program.world
        world.trace.note(self.key, "ended:", outcome)
        world.tally.outcomes[outcome] += 1
        self.outcome = outcome
        if outcome in _NEVER_BEGUN and self.begun:
            text = f"{self.key} ended {outcome} and was begun {self.begun} times"
            raise Violation("what was begun is not said to be not begun", text, self.key)
