"""Honest ends of a tunnel on a `Stage`, of both kinds, that do nothing but count."""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from msgpack import Unpacker

from arke.wire.limits import CHUNK
from arke.wire.messages import MAGIC, Op, Purpose, TunnelClose
from arke.wire.messages import VERSION as NATIVE
from support.iris_packets import CLIENT_MAGIC, VERSION, Decoder, encoded
from support.iris_packets import Op as Iris
from support.stage import Stage, packed, unpacked

CLUSTER = "sink"
NUMBER = 0  # of the tunnel, at an Iris program; and of the call, at a native one
LARGEST = 64 * 1024 * 1024


class End(Protocol):
    """One program with one tunnel."""

    got: list[bytes]
    ended: str | None
    reads: bool
    """It takes what has come, and lets the other end send more."""

    def open(self) -> None: ...

    def send(self, message: bytes) -> None: ...

    def close(self) -> None: ...

    def look(self) -> bool:
        """Do what can be done now. False: nothing could."""


class IrisEnd:
    """As the bindings: a window granted at once, and every message again when it is read."""

    def __init__(self, stage: Stage, who: str, *, serves: bool, allowance: int) -> None:
        self.got: list[bytes] = []
        self.ended: str | None = None
        self.reads = True
        self._stage, self._who, self._first = stage, who, allowance
        self._decoder = Decoder()
        self._queue: deque[tuple[int, bytes]] = deque()
        self._allowance = 0
        self._half = b""
        self._size = 0
        self._number = NUMBER
        stage.attach(who)
        self.say(Iris.INIT, CLIENT_MAGIC, VERSION, CLUSTER if serves else "")

    def say(self, op: Iris, *fields: Any) -> None:
        self._stage.say(self._who, encoded(op, *fields))

    def open(self) -> None:
        self.say(Iris.TUNNEL_INIT, self._number, CLUSTER, 5000)

    def send(self, message: bytes) -> None:
        for at in range(0, len(message), CHUNK):
            self._queue.append((0 if at else len(message), message[at : at + CHUNK]))

    def close(self) -> None:
        self.say(Iris.TUNNEL_CLOSE, self._number)

    def look(self) -> bool:
        did = False
        heard = self._stage.heard(self._who) if self.reads else b""
        self._decoder.feed(heard)
        for packet in self._decoder:
            self._hear(*packet)
            did = True
        while self._queue and self._allowance > 0:
            size, chunk = self._queue.popleft()
            self._allowance -= len(chunk)
            self.say(Iris.TUNNEL_TRANSFER, self._number, size, chunk)
            did = True
        return did

    def _hear(self, op: Iris, *fields: Any) -> None:
        match op, fields:
            case Iris.TUNNEL_INIT, (build, _):
                self.say(Iris.TUNNEL_CONFIRM, build, self._number)
                self.say(Iris.TUNNEL_ALLOWANCE, self._number, self._first)
            case Iris.TUNNEL_CONFIRM, (_, limit):
                assert limit == CHUNK
                self.say(Iris.TUNNEL_ALLOWANCE, self._number, self._first)
            case Iris.TUNNEL_ALLOWANCE, (_, octets):
                self._allowance += octets
            case Iris.TUNNEL_TRANSFER, (_, size, chunk):
                self._size = size or self._size
                self._half = chunk if size else self._half + chunk
                if len(self._half) == self._size:
                    self.got.append(self._half)
                    self.say(Iris.TUNNEL_ALLOWANCE, self._number, self._size)
            case Iris.TUNNEL_CLOSE, (_, reason):
                self.ended = reason


class NativeEnd:
    """As the SDK: a window granted at once, and again by quarters; more while it joins."""

    def __init__(self, stage: Stage, who: str, *, serves: bool, window: int) -> None:
        self.got: list[bytes] = []
        self.ended: str | None = None
        self.reads = True
        self._stage, self._who, self._window = stage, who, window
        self._queue: deque[tuple[int | None, bytes]] = deque()
        self._credit = 0
        self._granted = 0
        self._consumed = 0
        self._half = b""
        self._total = 0
        self._lent = 0
        self._name = 0
        stage.attach(who)
        self.say(Op.HELLO, MAGIC, NATIVE, who)
        if serves:
            self.say(Op.REGISTER, CLUSTER, None)

    def say(self, *fields: Any) -> None:
        self._stage.say(self._who, packed(fields))

    def open(self) -> None:
        purpose = Purpose.TUNNEL.value
        self.say(Op.OPEN, 1, CLUSTER, b"", 5000, None, purpose, self._window, LARGEST, None)

    def send(self, message: bytes) -> None:
        if len(message) <= 4096:
            self._queue.append((None, packed(message)))
            return
        most = min(CHUNK, self._window // 2)
        for at in range(0, len(message), most):
            self._queue.append((0 if at else len(message), message[at : at + most]))

    def close(self) -> None:
        self.say(Op.END, self._name, TunnelClose.CLOSED.value, "", "")

    def look(self) -> bool:
        did = False
        for message in unpacked(self._stage.heard(self._who)) if self.reads else ():
            self._hear(*message)
            did = True
        while self._queue and len(self._queue[0][1]) <= self._credit:
            total, data = self._queue.popleft()
            self._credit -= len(data)
            self.say(Op.DATA, self._name, total, data)
            did = True
        return did

    def _hear(self, op: int, *fields: Any) -> None:
        match op, fields:
            case Op.OFFER, (call, *_):
                window = min(fields[5], self._window)
                self.say(Op.ACCEPT, call, window, LARGEST)
                self._begin(-call, window)
            case Op.ACCEPT, (call, window, _):
                self._begin(call, window)
            case Op.CREDIT, (_, octets):
                self._credit += octets
            case Op.DATA, (_, total, data):
                self._take(total, data)
            case Op.END, (_, _, _, text):
                self.ended = text

    def _begin(self, name: int, window: int) -> None:
        self._name, self._window = name, window
        self._grant(window)

    def _take(self, total: int | None, data: bytes) -> None:
        self._granted -= len(data)
        if total is None:
            messages = Unpacker(use_list=False)
            messages.feed(data)
            self.got += messages
            self._consume(len(data))
            return
        self._total = total or self._total
        self._half = data if total else self._half + data
        missing = self._total - len(self._half)
        if not missing:
            self.got.append(self._half)
            self._consume(self._total - self._lent)
            self._lent = 0
        elif self._granted < min(missing, self._window // 2):
            self._lent += self._window // 2
            self._grant(self._window // 2)

    def _consume(self, octets: int) -> None:
        self._consumed += octets
        if self._consumed >= self._window // 4:
            self._grant(self._consumed)
            self._consumed = 0

    def _grant(self, octets: int) -> None:
        self._granted += octets
        self.say(Op.CREDIT, self._name, octets)


def settle(*ends: End) -> None:
    """Until there is nothing more that either can do."""
    for _ in range(100_000):
        did = [end.look() for end in ends]
        if not any(did):
            return
    raise AssertionError("they go on for ever")
