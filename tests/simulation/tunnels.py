"""Tunnel ends of programs: they count credit in both directions, and check every byte."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from arke.wire.limits import CHUNK
from arke.wire.messages import Op, TunnelClose
from simulation.bounds import MAX_BODY, WINDOWS
from simulation.requests import Request
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.program import Program

_PERIOD = 65_521
_BLOCK = Random(0).randbytes(_PERIOD)
_DATA = _BLOCK + _BLOCK[: CHUNK + 1]


class Tunnel:
    """What both ends share. End 0 opened the tunnel, end 1 accepted it."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.ends: list[End | None] = [None, None]
        self.total_sent: list[int | None] = [None, None]
        """Bytes that each end had sent when it closed its sending side; None: still open."""


class End:
    """One end. It sends `unsent` bytes as it gets credit, and closes as `planned_close` says."""

    def __init__(self, program: Program, tunnel: Tunnel, side: int, name: int, window: int) -> None:
        self.program = program
        self.tunnel = tunnel
        self.side = side
        self.name = name
        self.over = False
        self.reads = True
        self.unsent = 0
        """Bytes that it still has to send."""
        self.planned_close: TunnelClose | None = None
        """How it closes after sending; None: it does not close by itself."""
        self._window = window
        self._credit = 0
        self._sent = 0
        self._received = 0
        self._granted = 0
        self._read = 0
        self._close_sent = False
        self._close_received = False
        tunnel.ends[side] = self
        program.tunnels.ends[name] = self
        self._grant(window)

    # Sending.

    def send(self, size: int) -> None:
        self.unsent += size
        self.pump()

    def pump(self) -> None:
        """Send as far as there is credit, then close if planned."""
        outbox, random = self.program.outbox, self.program.world.random
        while self.unsent and self._credit and not (self.over or self._close_sent):
            size = min(self.unsent, self._credit, random.choice((100, 5_000, CHUNK)))
            at = self._offset(self.side, self._sent)
            total = self._sent if self._sent % 3 else None
            outbox.put_in_flow((Op.DATA.value, self.name, total, _DATA[at : at + size]), self)
            self._sent += size
            self.unsent -= size
            self._credit -= size
        if not self.unsent and self.planned_close is not None:
            self.end(self.planned_close)

    def end(self, ending: TunnelClose) -> None:
        """Close the sending side (SEND_CLOSED), both sides (CLOSED), or abort."""
        if self.over or (self._close_sent and ending == TunnelClose.SEND_CLOSED):
            return
        self.program.world.trace.note(self.program.key, "ends", self.tunnel.key, ending.name)
        if ending == TunnelClose.ABORTED:
            self.program.outbox.drop_flow(self)
        elif not self._close_sent:
            self.tunnel.total_sent[self.side] = self._sent
        self._close_sent = True
        message = (Op.END.value, self.name, ending.value, "Planned", "as planned")
        self.program.outbox.put_in_flow(message, self)
        if ending != TunnelClose.SEND_CLOSED or self._close_received:
            self.finish(f"{ending.name} here")

    # Receiving.

    def on_data(self, total: int | None, data: bytes) -> None:
        tunnel, other = self.tunnel, 1 - self.side
        if self._close_received:
            raise Violation("no data follows the end of a tunnel", tunnel.key, tunnel.key)
        at = self._offset(other, self._received)
        expected = self._received if self._received % 3 else None
        if data != _DATA[at : at + len(data)] or total != expected:
            text = f"end {self.side} of {tunnel.key}, at byte {self._received}"
            raise Violation("a tunnel delivers the bytes that were sent", text, tunnel.key)
        self._received += len(data)
        self.program.world.coverage.seen["tunnel bytes"] += len(data)
        if self._received > self._granted:
            text = f"end {self.side} of {tunnel.key}: {self._received} bytes of {self._granted}"
            raise Violation("a tunnel delivers no more than its credit", text, tunnel.key)
        self.read()

    def read(self) -> None:
        """Read what has arrived, and grant credit for it."""
        if self.reads and not self.over:
            unread = self._received - self._read
            if unread >= self._window // 4:
                self._read += unread
                self._grant(unread)

    def on_credit(self, size: int) -> None:
        self._credit += size
        self.pump()

    def on_end(self, ending: int, kind: str, text: str) -> None:
        key = self.tunnel.key
        if ending == TunnelClose.ABORTED:
            self._check_abort(text)
            self.finish(f"ABORTED: {_cause(kind, text)}")
            return
        sent = self.tunnel.total_sent[1 - self.side]
        if self._received != sent or (self._close_received and ending == TunnelClose.SEND_CLOSED):
            text = f"end {self.side} of {key} has {self._received} bytes of {sent}"
            raise Violation("a closed tunnel has delivered all data", text, key)
        self._close_received = True
        self.program.world.coverage.endings[TunnelClose(ending).name] += 1
        if ending == TunnelClose.CLOSED or self._close_sent:
            self.finish(f"{TunnelClose(ending).name} there")

    def finish(self, how: str) -> None:
        if not self.over:
            self.over = True
            self.program.tunnels.ends.pop(self.name, None)
            self.program.world.coverage.endings[how] += 1
            self.program.world.trace.note(self.program.key, "has ended", self.tunnel.key, how)

    # Helpers.

    def _offset(self, side: int, at: int) -> int:
        return (at + 7919 * side + 31 * len(self.tunnel.key)) % _PERIOD

    def _grant(self, size: int) -> None:
        self._granted += size
        self.program.outbox.put((Op.CREDIT.value, self.name, size))

    def _check_abort(self, text: str) -> None:
        faults = self.program.world.faults
        if "granted" in text or ("lost" in text and not faults.may_lose_links):
            raise Violation("tunnels are not aborted without a fault", text, self.tunnel.key)


class Tunnels:
    """The tunnel ends of one program, by the ids that it sends."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self.ends: dict[int, End] = {}

    @property
    def handlers(self) -> dict[int, Callable[..., object]]:
        return {Op.DATA: self._on_data, Op.CREDIT: self._on_credit, Op.END: self._on_end}

    def opened(self, request: Request, number: int, window: int) -> None:
        tunnel = self._program.world.tunnels[request.key]
        self._start(End(self._program, tunnel, 0, number, window))

    def accept(self, request: Request, request_id: int, window: int) -> None:
        tunnel = self._program.world.tunnels[request.key] = Tunnel(request.key)
        window = min(window, self._program.world.random.choice(WINDOWS))
        self._program.outbox.put((Op.ACCEPT.value, request_id, window, MAX_BODY))
        self._start(End(self._program, tunnel, 1, -request_id, window))

    def decline(self, number: int) -> None:
        """Abort a tunnel that was accepted after its request ended."""
        message = (
            Op.END.value,
            number,
            TunnelClose.ABORTED.value,
            "",
            "the request was cancelled or timed out",
        )
        self._program.outbox.put_in_flow(message, number)

    def on_detached(self, reason: str) -> None:
        for end in list(self.ends.values()):
            end.finish(
                f"program detached: {'closed' if reason == 'closed_by_program' else 'killed'}"
            )

    def _start(self, end: End) -> None:
        self._program.world.workload.plan_tunnel(end)

    def _on_data(self, name: int, total: int | None, data: bytes) -> None:
        end = self.ends.get(-name)
        if end is not None:
            end.on_data(total, data)

    def _on_credit(self, name: int, size: int) -> None:
        end = self.ends.get(-name)
        if end is not None:
            end.on_credit(size)

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
    "program at the other end disconnected": "program detached",
    "the connection to node": "node lost",
    "the link to node": "link reset",
    "the request was cancelled or timed out": "request ended",
    "the tunnel request was cancelled or timed out": "request ended",
    "the queue for credit messages is full": "credit queue full",
}
