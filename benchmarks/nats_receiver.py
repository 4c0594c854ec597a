"""A receiver for `nats_load`, in its own process: the counterpart of `arke.cli.bench.receiver`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass

import nats
import uvloop
from nats.aio.msg import Msg

from arke.cli.bench.receiver import REPORT
from arke.program import flags

QUEUE_GROUP = "members"


@dataclass(frozen=True, slots=True)
class Options:
    """What to receive and report."""

    pattern: str = flags.argument("PATTERN", help="request, publish or broadcast")
    subject: str = flags.argument("SUBJECT", help="what to subscribe to")
    port: int = flags.flag("N", parse=flags.port, required=True, help="port of nats-server")
    every: int = flags.flag("N", parse=flags.count, required=True, help="messages between reports")


async def receive(options: Options) -> None:
    """Answer requests, or count and report, until stdin ends."""
    seen, due = 0, options.every

    def report() -> None:
        os.write(1, REPORT.pack(seen, time.monotonic_ns()))

    async def answer(message: Msg) -> None:
        await message.respond(message.data)

    async def on_message(_: Msg) -> None:
        nonlocal seen, due
        seen += 1
        if seen == due:
            due += options.every
            report()

    async with await nats.connect(
        f"nats://127.0.0.1:{options.port}", allow_reconnect=False
    ) as client:
        if options.pattern == "request":
            await client.subscribe(options.subject, queue=QUEUE_GROUP, cb=answer)
        else:
            await client.subscribe(options.subject, cb=on_message)
        await client.flush()
        report()
        await stdin_closed()
    report()


async def stdin_closed() -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(0, ended.set)  # the parent closes it and writes nothing
    await ended.wait()
    loop.remove_reader(0)


def main() -> None:
    options = flags.Command("nats_receiver", Options, "Receives for nats_load.").parse(
        sys.argv[1:], None
    )
    uvloop.run(receive(options))


if __name__ == "__main__":
    main()
