"""Honest ends of tunnels: they count credit both ways, and know every octet that must come."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from arke.wire.limits import CHUNK
from arke.wire.messages import Op, TunnelClose
from simulation.bounds import LARGEST, WINDOWS
from simulation.requests import Request
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.program import Program

_PERIOD = 65_521
_BLOCK = Random(0).randbytes(_PERIOD)
_OCTETS = _BLOCK + _BLOCK[: CHUNK + 1]


class Tunnel:
    """What both ends have in common. Ends are 0, who opened it, and 1."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.ends: list[End | None] = [None, None]
        self.sent_all: list[int | None] = [None, None]
        """How many octets an end had sent when it said that it sends nothing more."""


class End:
    """One end. It sends what it wants to in pieces, as it has credit, and ends as `plan` says."""

    def __init__(self, program: Program, tunnel: Tunnel, side: int, name: int, window: int) -> None:
        self.program = program
        self.tunnel = tunnel
        self.side = side
        self.name = name
        self.over = False
        self.reads = True
        self.wants = 0
        """Octets that it still wants to send."""
        self.plan: TunnelClose | None = None
        """How it ends once these are sent; None: not by itself."""
        self._window = window
        self._credit = 0
        self._sent = 0
        self._received = 0
        self._granted = 0
        self._read = 0
        self._said = False
        self._heard = False
        tunnel.ends[side] = self
        program.tunnels.ends[name] = self
        self._grant(window)

    # Sending.

    def send(self, octets: int) -> None:
        self.wants += octets
        self.pump()

    def pump(self) -> None:
        """Send as far as there is credit; then end, if that is the plan."""
        outbox, random = self.program.outbox, self.program.world.random
        while self.wants and self._credit and not (self.over or self._said):
            size = min(self.wants, self._credit, random.choice((100, 5_000, CHUNK)))
            at = self._offset(self.side, self._sent)
            total = self._sent if self._sent % 3 else None
            outbox.put_in_flow((Op.DATA.value, self.name, total, _OCTETS[at : at + size]), self)
            self._sent += size
            self.wants -= size
            self._credit -= size
        if not self.wants and self.plan is not None:
            self.end(self.plan)

    def end(self, ending: TunnelClose) -> None:
        """Send nothing more; with CLOSED read nothing more either; or break it off."""
        if self.over or (self._said and ending == TunnelClose.SEND_CLOSED):
            return
        self.program.world.trace.note(self.program.key, "ends", self.tunnel.key, ending.name)
        if ending == TunnelClose.ABORTED:
            self.program.outbox.drop_flow(self)
        elif not self._said:
            self.tunnel.sent_all[self.side] = self._sent
        self._said = True
        message = (Op.END.value, self.name, ending.value, "Planned", "as planned")
        self.program.outbox.put_in_flow(message, self)
        if ending != TunnelClose.SEND_CLOSED or self._heard:
            self.finish(f"{ending.name} here")

    # Receiving.

    def on_data(self, total: int | None, data: bytes) -> None:
        tunnel, other = self.tunnel, 1 - self.side
        if self._heard:
            raise Violation("nothing follows the end of a tunnel", tunnel.key, tunnel.key)
        at = self._offset(other, self._received)
        expected = self._received if self._received % 3 else None
        if data != _OCTETS[at : at + len(data)] or total != expected:
            text = f"end {self.side} of {tunnel.key}, at octet {self._received}"
            raise Violation("tunnel octets are those that were sent", text, tunnel.key)
        self._received += len(data)
        self.program.world.tally.seen["tunnel octets"] += len(data)
        if self._received > self._granted:
            text = f"end {self.side} of {tunnel.key} got {self._received} of {self._granted}"
            raise Violation("no tunnel carries more than was granted", text, tunnel.key)
        self.read()

    def read(self) -> None:
        """Read what has come, and grant as much again."""
        if self.reads and not self.over:
            unread = self._received - self._read
            if unread >= self._window // 4:
                self._read += unread
                self._grant(unread)

    def on_credit(self, octets: int) -> None:
        self._credit += octets
        self.pump()

    def on_end(self, ending: int, kind: str, text: str) -> None:
        key = self.tunnel.key
        if ending == TunnelClose.ABORTED:
            self._check_break(text)
            self.finish(f"ABORTED: {_cause(kind, text)}")
            return
        sent = self.tunnel.sent_all[1 - self.side]
        if self._received != sent or (self._heard and ending == TunnelClose.SEND_CLOSED):
            says = f"end {self.side} of {key} has {self._received} octets of {sent}"
            raise Violation("an ended tunnel has brought everything", says, key)
        self._heard = True
        self.program.world.tally.endings[TunnelClose(ending).name] += 1
        if ending == TunnelClose.CLOSED or self._said:
            self.finish(f"{TunnelClose(ending).name} there")

    def finish(self, how: str) -> None:
        if not self.over:
            self.over = True
            self.program.tunnels.ends.pop(self.name, None)
            self.program.world.tally.endings[how] += 1
            self.program.world.trace.note(self.program.key, "has ended", self.tunnel.key, how)

    # Inside.

    def _offset(self, side: int, at: int) -> int:
        return (at + 7919 * side + 31 * len(self.tunnel.key)) % _PERIOD

    def _grant(self, octets: int) -> None:
        self._granted += octets
        self.program.outbox.put((Op.CREDIT.value, self.name, octets))

    def _check_break(self, text: str) -> None:
        faults = self.program.world.faults
        if "granted" in text or ("lost" in text and not faults.may_lose_links):
            raise Violation("honest tunnels are not broken off", text, self.tunnel.key)


class Tunnels:
    """The ends at one program, by the names that go out for them."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.ends: dict[int, End] = {}

    @property
    def handlers(self) -> dict[int, Callable[..., object]]:
        return {Op.DATA: self._on_data, Op.CREDIT: self._on_credit, Op.END: self._on_end}

    def opened(self, request: Request, number: int, window: int) -> None:
        tunnel = self._program.world.tunnels[request.key]
        self._planned(End(self._program, tunnel, 0, number, window))

    def accept(self, request: Request, call: int, window: int) -> None:
        tunnel = self._program.world.tunnels[request.key] = Tunnel(request.key)
        window = min(window, self._program.world.random.choice(WINDOWS))
        self._program.outbox.put((Op.ACCEPT.value, call, window, LARGEST))
        self._planned(End(self._program, tunnel, 1, -call, window))

    def decline(self, number: int) -> None:
        """Nobody waits for the tunnel any more."""
        message = (
            Op.END.value,
            number,
            TunnelClose.ABORTED.value,
            "",
            "the request was cancelled or timed out",
        )
        self._program.outbox.put_in_flow(message, number)

    def gone(self, reason: str) -> None:
        for end in list(self.ends.values()):
            end.finish(f"program gone: {'closed' if reason == 'closed_by_program' else 'killed'}")

    def _planned(self, end: End) -> None:
        self._program.world.workload.plan_tunnel(end)

    def _on_data(self, name: int, total: int | None, data: bytes) -> None:
        end = self.ends.get(-name)
        if end is not None:
            end.on_data(total, data)

    def _on_credit(self, name: int, octets: int) -> None:
        end = self.ends.get(-name)
        if end is not None:
            end.on_credit(octets)

    def _on_end(self, name: int, ending: int, kind: str, text: str) -> None:
        end = self.ends.get(-name)
        if end is not None:
            end.on_end(ending, kind, text)


def _cause(kind: str, text: str) -> str:
    if kind == "Planned":
        return "by the other end"
    for words, cause in _CAUSES.items():
        if words in text:
            return cause
    return text


_CAUSES = {
    "program at the other end disconnected": "program gone",
    "the connection to node": "node lost",
    "the link to node": "link began anew",
    "nobody waits": "nobody waits",
    "no room to pass credit": "no room for credit",
}
