"""Both ends of one tunnel, connected by a wire that counts the credit."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Any

from arke.runtime.tunnel_settings import TunnelSettings
from arke.tunnel import Tunnel
from arke.wire.limits import CHUNK, MIN_WINDOW
from arke.wire.messages import Op

MIB = 1024 * 1024


class Link:
    """The sink of one tunnel end. While `held` is set, the wire delivers nothing."""

    def __init__(self, wire: Wire, number: int) -> None:
        self._wire = wire
        self._number = number

    def send(self, message: tuple[Any, ...]) -> bool:
        self._wire.send(self._number, message)
        return True

    def send_in_flow(self, message: tuple[Any, ...], tunnel: Hashable) -> None:
        self._wire.send(self._number, message)

    def drop_flow(self, tunnel: Hashable) -> None:
        self._wire.drop(self._number)


class Wire:
    """Deliver messages in order, one loop iteration later, and check the credit of both ends."""

    def __init__(
        self, window: int = MIN_WINDOW, largest: int = 4 * MIB, theirs: int | None = None
    ) -> None:
        self.window = window
        self.queues: list[list[tuple[Any, ...]]] = [[], []]
        self.credit = [0, 0]
        self.most_held = 0
        self.sizes: list[int] = []
        self.removed: list[int] = []
        self._scheduled = False
        self.ends: list[Tunnel] = []
        for number, name in ((0, 7), (1, -7)):
            link: Any = Link(self, number)
            removed = self.removed.append
            settings = TunnelSettings(window, largest, theirs or largest)
            self.ends.append(Tunnel(link, name, settings, removed))

    def send(self, number: int, message: tuple[Any, ...]) -> None:
        op, name, *fields = message
        assert name == (7, -7)[number]
        if op == Op.DATA:
            self.credit[number] -= len(fields[1])
            self.sizes.append(len(fields[1]))
            assert 0 < len(fields[1]) <= CHUNK
            assert self.credit[number] >= 0, "the end sent more than its credit"
        self.queues[number].append(message)
        held = sum(len(m[3]) for m in self.queues[number] if m[0] == Op.DATA)
        self.most_held = max(self.most_held, held)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._deliver)

    def drop(self, number: int) -> None:
        self.queues[number] = [m for m in self.queues[number] if m[0] != Op.DATA]

    def _deliver(self) -> None:
        self._scheduled = False
        for number in (0, 1):
            messages, self.queues[number] = self.queues[number], []
            other = self.ends[1 - number]
            for op, _, *fields in messages:
                if op == Op.DATA:
                    other.on_data(*fields)
                elif op == Op.CREDIT:
                    self.credit[1 - number] += fields[0]
                    assert self.credit[1 - number] <= self.window, (
                        "the end granted more than its window"
                    )
                    other.on_credit(*fields)
                else:
                    assert op == Op.END
                    other.on_end(*fields)
