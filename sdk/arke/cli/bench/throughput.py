"""Measure events, broadcasts and tunnels by the reports of the receivers.

The sender keeps at most one window of messages in transit to the slowest receiver, so that nothing
is dropped. Receivers report only every few hundred messages, which keeps counting cheap. The time
of a report minus the time of sending the message that caused it is the latency.
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
_UNBOUNDED_BYTES = 256 * 1024 * 1024
_REPORTS_PER_WINDOW = 8
_BURST = 64
_REPORT_TIMEOUT = 5.0  # without a report for so long, the missing messages are lost


@dataclass(frozen=True, slots=True)
class Window:
    """How many messages may be in transit, are sent at once, and are in one report.

    All are powers of two, so that a report is always due at the end of a burst.
    """

    size: int
    every: int
    burst: int

    @classmethod
    def for_bodies(cls, body_size: int) -> Window:
        """Return the window for bodies of a size."""
        return cls._of(max(1, min(_WINDOW, _WINDOW_BYTES // body_size)))

    @classmethod
    def unbounded(cls, body_size: int) -> Window:
        """Return a window that never limits the sender: the tunnel does."""
        return cls._of(max(_REPORTS_PER_WINDOW, _UNBOUNDED_BYTES // body_size))

    @classmethod
    def _of(cls, fits: int) -> Window:
        size = 1 << (fits.bit_length() - 1)
        every = max(1, min(size, _WINDOW) // _REPORTS_PER_WINDOW)
        return cls(size, every, min(_BURST, every))


class _Reports:
    """The reports between two times, in nanoseconds of the monotonic clock."""

    def __init__(self, members: int, every: int, begin: int, end: int) -> None:
        self._every = every
        self._begin = begin
        self._end = end
        self._first: list[tuple[int, int] | None] = [None] * members
        self._last = [(0, 0)] * members
        self.sent_at = array("q")
        """For each report, when the message that makes it due was sent."""
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
        """Return the number of deliveries and their rate, over all receivers."""
        received, rate = 0, 0.0
        for first, (seen, at) in zip(self._first, self._last, strict=True):
            if first is None or first[1] == at:
                raise BenchError("too few messages to measure; increase -seconds")
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
    """Send for `warmup`, then for `seconds`; measure the latter. Raises BenchError."""
    begin = time.monotonic_ns() + int(warmup * 1e9)
    end = begin + int(seconds * 1e9)
    reports = _Reports(len(receivers.seen), window.every, begin, end)
    receivers.on_report = reports.take
    sent = await _send_until(end, send, receivers, body, window, reports.sent_at)
    while receivers.slowest < sent and await receivers.wait_for_report(_REPORT_TIMEOUT):
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
    """Send until the time `end`; return the number of messages."""
    clock = time.monotonic_ns
    sent = 0
    while clock() < end or sent % window.every:
        if sent - receivers.slowest > window.size - window.burst:
            if not await receivers.wait_for_report(_REPORT_TIMEOUT):
                break
            continue
        for _ in range(window.burst):
            await send(body)
        sent += window.burst
        if not sent % window.every:
            sent_at.append(clock())
        await asyncio.sleep(0)  # lets the loop write the socket and read reports
    return sent
