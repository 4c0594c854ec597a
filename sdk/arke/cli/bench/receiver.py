"""One receiver process of the benchmark: `python -m arke.cli.bench.receiver`.

It reports the number of received messages and the time on stdout: after joining, after every
`-every` messages, and when its stdin is closed, because the benchmark is over or has died.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
import time
from dataclasses import dataclass

import uvloop

import arke
from arke.cli.session import AttachOptions, run
from arke.program import flags

REPORT = struct.Struct("<QQ")
"""Messages received; time in nanoseconds of the monotonic clock, which all processes share."""


_DRAIN = 0.1  # seconds; a tunnel does not end by itself: its sender waits for the last report


@dataclass(frozen=True, slots=True)
class _ReceiverOptions(AttachOptions):
    pattern: str = flags.argument("PATTERN", help="request, publish, broadcast or tunnel")
    name: str = flags.argument("NAME", help="cluster to join or topic to subscribe to")
    every: int = flags.flag("N", parse=flags.count, required=True, help="messages between reports")


class _MessageCounter:
    """Count messages and report regularly."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._seen = 0
        self._due = every

    def report(self) -> None:
        os.write(1, REPORT.pack(self._seen, time.monotonic_ns()))

    def add(self) -> None:
        self._seen += 1
        if self._seen == self._due:
            self._due += self._every
            self.report()


async def _receive(options: _ReceiverOptions) -> None:
    counter = _MessageCounter(options.every)
    if options.pattern == "publish":
        await _subscribe(options, counter)
    else:
        await _serve(options, counter)


async def _serve(options: _ReceiverOptions, counter: _MessageCounter) -> None:
    service = arke.Service(
        options.name, port=options.port, path=options.path, wait=0.0, drain=_DRAIN
    )

    @service.on_request
    async def echo(request: arke.Request) -> bytes:
        return request.body

    @service.on_broadcast
    async def count_broadcast(_: arke.Broadcast) -> None:
        counter.add()

    @service.on_tunnel
    async def count_messages(tunnel: arke.Tunnel) -> None:
        async for _ in tunnel:
            counter.add()

    async with service:
        counter.report()
        await _wait_for_stdin_close()
    counter.report()


async def _subscribe(options: _ReceiverOptions, counter: _MessageCounter) -> None:
    async def count_events(events: arke.Subscription) -> None:
        async for _ in events:
            counter.add()

    async with options.connect() as mesh, mesh.subscribe(options.name) as events:
        counter.report()
        counting = asyncio.create_task(count_events(events))
        await _wait_for_stdin_close()
        counting.cancel()
    counter.report()


async def _wait_for_stdin_close() -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(0, ended.set)  # readable only at its end: nothing is written to it
    await ended.wait()
    loop.remove_reader(0)


def main() -> None:
    """Receive until stdin is closed."""
    options = flags.Command(
        "arke-bench-receiver", _ReceiverOptions, "Receives for `arke bench`."
    ).parse(sys.argv[1:], None)
    try:
        run(_receive(options), limit=None, loop_factory=uvloop.new_event_loop)
    except arke.ArkeError as error:
        sys.exit(str(error))
    except BrokenPipeError:  # the benchmark has died
        sys.exit(1)


if __name__ == "__main__":
    main()
