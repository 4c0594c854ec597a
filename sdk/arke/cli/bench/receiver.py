"""One receiver of the benchmark, a process of its own: `python -m arke.cli.bench.receiver`.

It reports on stdout, after joining and then after every so many messages, how many it has seen
and when, and a last time when its stdin ends: then the benchmark is over, or has died.
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
from arke.cli.session import Attached, run
from arke.program import flags

REPORT = struct.Struct("<QQ")
"""Messages seen; the time in nanoseconds of the monotonic clock, which all processes share."""


@dataclass(frozen=True, slots=True)
class _ReceiverOptions(Attached):
    pattern: str = flags.argument("PATTERN", help="request, publish, broadcast or tunnel")
    name: str = flags.argument("NAME", help="cluster to join or topic to subscribe to")
    every: int = flags.flag("N", parse=flags.count, required=True, help="messages between reports")


class _Tally:
    """Counts messages; reports every so many."""

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
    tally = _Tally(options.every)
    if options.pattern == "publish":
        await _subscribe(options, tally)
    else:
        await _serve(options, tally)


async def _serve(options: _ReceiverOptions, tally: _Tally) -> None:
    service = arke.Service(options.name, port=options.port, path=options.path, wait=0.0)

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        return request.body

    @service.on_broadcast
    async def hear(_: arke.Broadcast) -> None:
        tally.add()

    @service.on_tunnel
    async def read(tunnel: arke.Tunnel) -> None:
        async for _ in tunnel:
            tally.add()

    async with service:
        tally.report()
        await _stdin_ends()
    tally.report()


async def _subscribe(options: _ReceiverOptions, tally: _Tally) -> None:
    async def listen(events: arke.Subscription) -> None:
        async for _ in events:
            tally.add()

    async with options.connect() as mesh, mesh.subscribe(options.name) as events:
        tally.report()
        listening = asyncio.create_task(listen(events))
        await _stdin_ends()
        listening.cancel()
    tally.report()


async def _stdin_ends() -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(0, ended.set)  # nothing is ever written to it
    await ended.wait()
    loop.remove_reader(0)


def main() -> None:
    """Receive until stdin ends."""
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
