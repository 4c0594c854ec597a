"""Measures publishing, broadcasts and tunnels, by what the receivers saw.

The sender keeps a window of messages under way to the slowest receiver, so that nothing has to be
dropped. Receivers report after every few hundred messages only: counting costs next to nothing,
and the time of the report against the time of sending that very message is its latency.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from arke.cli.bench.receivers import BenchError, Receivers
from arke.cli.bench.result import Result, percentile

_WINDOW = 4096
_WINDOW_BYTES = 4 * 1024 * 1024
_BOUNDLESS = 256 * 1024 * 1024
_REPORTS_PER_WINDOW = 8
_BURST = 64
_PATIENCE = 5.0  # without a report for so long, what is missing will not come any more


@dataclass(frozen=True, slots=True)
class Window:
    """How many messages may be under way, how many are sent at once, and when receivers report.

    All are powers of two, so that a report always falls on the end of a burst.
    """

    size: int
    every: int
    burst: int

    @classmethod
    def for_bodies(cls, octets: int) -> Window:
        """Return the window for bodies of so many octets."""
        return cls._of(max(1, min(_WINDOW, _WINDOW_BYTES // octets)))

    @classmethod
    def beyond(cls, octets: int) -> Window:
        """Return one that is no bound for bodies of so many octets: something else is."""
        return cls._of(max(_REPORTS_PER_WINDOW, _BOUNDLESS // octets))

    @classmethod
    def _of(cls, fits: int) -> Window:
        size = 1 << (fits.bit_length() - 1)
        every = max(1, min(size, _WINDOW) // _REPORTS_PER_WINDOW)
        return cls(size, every, min(_BURST, every))


class _Reports:
    """What the receivers reported between two moments, in nanoseconds of the monotonic clock."""

    def __init__(self, members: int, every: int, begin: int, end: int) -> None:
        self._every = every
        self._begin = begin
        self._end = end
        self._first: list[tuple[int, int] | None] = [None] * members
        self._last = [(0, 0)] * members
        self.sent_at = array("q")
        """When the message that makes a report due was sent; the first of them, the second, …"""
        self.latencies = array("q")

    def take(self, receiver: int, seen: int, at: int) -> None:
        if not self._begin <= at <= self._end:
            return
        if self._first[receiver] is None:
            self._first[receiver] = (seen, at)
        self._last[receiver] = (seen, at)
        number, rest = divmod(seen, self._every)
        if not rest and 0 < number <= len(self.sent_at):
            self.latencies.append(at - self.sent_at[number - 1])

    def deliveries(self) -> tuple[int, float]:
        """Return how many there were, and how many a second, all receivers together."""
        received, rate = 0, 0.0
        for first, (seen, at) in zip(self._first, self._last, strict=True):
            if first is None or first[1] == at:
                raise BenchError("a receiver saw too little to measure; give it more -seconds")
            received += seen - first[0]
            rate += (seen - first[0]) * 1e9 / (at - first[1])
        return received, rate


async def measure(
    pattern: str,
    send: Callable[[bytes], Awaitable[None]],
    receivers: Receivers,
    *,
    body: bytes,
    window: Window,
    warmup: float,
    seconds: float,
) -> Result:
    """Send for `warmup` and then `seconds`; return the figures of the latter. Raises BenchError."""
    begin = time.monotonic_ns() + int(warmup * 1e9)
    end = begin + int(seconds * 1e9)
    reports = _Reports(len(receivers.seen), window.every, begin, end)
    receivers.on_report = reports.take
    sent = await _send_until(end, send, receivers, body, window, reports.sent_at)
    while receivers.slowest < sent and await receivers.progress(_PATIENCE):
        pass
    await receivers.finish()
    received, rate = reports.deliveries()
    return Result(
        pattern=pattern,
        size=len(body),
        rate=rate,
        p50_us=percentile(reports.latencies, 50),
        p99_us=percentile(reports.latencies, 99),
        received=received,
        drops=sum(sent - seen for seen in receivers.seen),
    )


async def _send_until(
    end: int,
    send: Callable[[bytes], Awaitable[None]],
    receivers: Receivers,
    body: bytes,
    window: Window,
    sent_at: array[int],
) -> int:
    """Send until the clock says `end`; return how many."""
    clock = time.monotonic_ns
    sent = 0
    while clock() < end or sent % window.every:
        if sent - receivers.slowest > window.size - window.burst:
            if not await receivers.progress(_PATIENCE):
                break
            continue
        for _ in range(window.burst):
            await send(body)
        sent += window.burst
        if not sent % window.every:
            sent_at.append(clock())
        await asyncio.sleep(0)  # the socket is written, and reports are read, between bursts
    return sent
