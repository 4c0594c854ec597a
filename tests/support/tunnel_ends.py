"""Tunnel ends of Iris and native programs at an in-process relay."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from msgpack import Unpacker

from arke.wire.limits import CHUNK
from arke.wire.messages import MAGIC, Op, Purpose, TunnelClose
from arke.wire.messages import VERSION as NATIVE
from support.in_process_relay import InProcessRelay, unpacked
from support.iris_packets import CLIENT_MAGIC, VERSION, Decoder, encoded
from support.iris_packets import Op as Iris
from support.raw_program import packed

CLUSTER = "sink"
NUMBER = 0  # id of the tunnel at an Iris program
LARGEST = 64 * 1024 * 1024


class TunnelEnd(Protocol):
    """One program with one tunnel."""

    received: list[bytes]
    end_reason: str | None
    reading: bool
    """Whether the program reads; reading grants more credit to the other end."""

    def open(self) -> None: ...

    def send(self, message: bytes) -> None: ...

    def close(self) -> None: ...

    def step(self) -> bool:
        """Receive and send as much as possible now. Return False if there was no progress."""


class IrisEnd:
    """An end as in the Iris bindings: it grants a window, and then each message that was read."""

    def __init__(self, relay: InProcessRelay, name: str, *, serves: bool, allowance: int) -> None:
        self.received: list[bytes] = []
        self.end_reason: str | None = None
        self.reading = True
        self._relay, self._program, self._initial_allowance = relay, name, allowance
        self._decoder = Decoder()
        self._queue: deque[tuple[int, bytes]] = deque()
        self._allowance = 0
        self._partial = b""
        self._size = 0
        self._number = NUMBER
        relay.attach(name)
        self._send(Iris.INIT, CLIENT_MAGIC, VERSION, CLUSTER if serves else "")

    def _send(self, op: Iris, *fields: Any) -> None:
        self._relay.send(self._program, encoded(op, *fields))

    def open(self) -> None:
        self._send(Iris.TUNNEL_INIT, self._number, CLUSTER, 5000)

    def send(self, message: bytes) -> None:
        for at in range(0, len(message), CHUNK):
            self._queue.append((0 if at else len(message), message[at : at + CHUNK]))

    def close(self) -> None:
        self._send(Iris.TUNNEL_CLOSE, self._number)

    def step(self) -> bool:
        progressed = False
        received = self._relay.received(self._program) if self.reading else b""
        self._decoder.feed(received)
        for packet in self._decoder:
            self._on_packet(*packet)
            progressed = True
        while self._queue and self._allowance > 0:
            size, chunk = self._queue.popleft()
            self._allowance -= len(chunk)
            self._send(Iris.TUNNEL_TRANSFER, self._number, size, chunk)
            progressed = True
        return progressed

    def _on_packet(self, op: Iris, *fields: Any) -> None:
        match op, fields:
            case Iris.TUNNEL_INIT, (build, _):
                self._send(Iris.TUNNEL_CONFIRM, build, self._number)
                self._send(Iris.TUNNEL_ALLOWANCE, self._number, self._initial_allowance)
            case Iris.TUNNEL_CONFIRM, (_, limit):
                assert limit == CHUNK
                self._send(Iris.TUNNEL_ALLOWANCE, self._number, self._initial_allowance)
            case Iris.TUNNEL_ALLOWANCE, (_, size):
                self._allowance += size
            case Iris.TUNNEL_TRANSFER, (_, size, chunk):
                self._size = size or self._size
                self._partial = chunk if size else self._partial + chunk
                if len(self._partial) == self._size:
                    self.received.append(self._partial)
                    self._send(Iris.TUNNEL_ALLOWANCE, self._number, self._size)
            case Iris.TUNNEL_CLOSE, (_, reason):
                self.end_reason = reason


class NativeEnd:
    """An end as in the SDK: it grants a window, then quarters, and more for large messages."""

    def __init__(self, relay: InProcessRelay, name: str, *, serves: bool, window: int) -> None:
        self.received: list[bytes] = []
        self.end_reason: str | None = None
        self.reading = True
        self._relay, self._program, self._window = relay, name, window
        self._queue: deque[tuple[int | None, bytes]] = deque()
        self._credit = 0
        self._granted = 0
        self._consumed = 0
        self._partial = b""
        self._total = 0
        self._granted_early = 0
        self._tunnel_id = 0
        relay.attach(name)
        self._send(Op.HELLO, MAGIC, NATIVE, name)
        if serves:
            self._send(Op.REGISTER, CLUSTER, None)

    def _send(self, *fields: Any) -> None:
        self._relay.send(self._program, packed(fields))

    def open(self) -> None:
        purpose = Purpose.TUNNEL.value
        self._send(Op.OPEN, 1, CLUSTER, b"", 5000, None, purpose, self._window, LARGEST, None)

    def send(self, message: bytes) -> None:
        if len(message) <= 4096:
            self._queue.append((None, packed(message)))
            return
        chunk_limit = min(CHUNK, self._window // 2)
        for at in range(0, len(message), chunk_limit):
            self._queue.append((0 if at else len(message), message[at : at + chunk_limit]))

    def close(self) -> None:
        self._send(Op.END, self._tunnel_id, TunnelClose.CLOSED.value, "", "")

    def step(self) -> bool:
        progressed = False
        for message in unpacked(self._relay.received(self._program)) if self.reading else ():
            self._on_message(*message)
            progressed = True
        while self._queue and len(self._queue[0][1]) <= self._credit:
            total, data = self._queue.popleft()
            self._credit -= len(data)
            self._send(Op.DATA, self._tunnel_id, total, data)
            progressed = True
        return progressed

    def _on_message(self, op: int, *fields: Any) -> None:
        match op, fields:
            case Op.OFFER, (request_id, *_):
                window = min(fields[5], self._window)
                self._send(Op.ACCEPT, request_id, window, LARGEST)
                self._start(-request_id, window)
            case Op.ACCEPT, (request_id, window, _):
                self._start(request_id, window)
            case Op.CREDIT, (_, size):
                self._credit += size
            case Op.DATA, (_, total, data):
                self._on_data(total, data)
            case Op.END, (_, _, _, text):
                self.end_reason = text

    def _start(self, tunnel_id: int, window: int) -> None:
        self._tunnel_id, self._window = tunnel_id, window
        self._grant(window)

    def _on_data(self, total: int | None, data: bytes) -> None:
        self._granted -= len(data)
        if total is None:
            messages = Unpacker(use_list=False)
            messages.feed(data)
            self.received += messages
            self._consume(len(data))
            return
        self._total = total or self._total
        self._partial = data if total else self._partial + data
        missing = self._total - len(self._partial)
        if not missing:
            self.received.append(self._partial)
            self._consume(self._total - self._granted_early)
            self._granted_early = 0
        elif self._granted < min(missing, self._window // 2):
            self._granted_early += self._window // 2
            self._grant(self._window // 2)

    def _consume(self, size: int) -> None:
        self._consumed += size
        if self._consumed >= self._window // 4:
            self._grant(self._consumed)
            self._consumed = 0

    def _grant(self, size: int) -> None:
        self._granted += size
        self._send(Op.CREDIT, self._tunnel_id, size)


def run_to_completion(*ends: TunnelEnd) -> None:
    """Run all ends until no end makes progress."""
    for _ in range(100_000):
        progressed = [end.step() for end in ends]
        if not any(progressed):
            return
    raise AssertionError("the ends never become idle")
