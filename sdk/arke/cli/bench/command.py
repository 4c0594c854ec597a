"""`arke bench`: starts receivers, measures, and prints what they saw."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import uvloop

import arke
from arke.cli import stdout as output
from arke.cli.bench import requests
from arke.cli.bench import throughput as casts
from arke.cli.bench.receivers import BenchError, Group, receiving
from arke.cli.bench.result import Result
from arke.cli.exit_status import fail
from arke.cli.session import Attached, run
from arke.program import flags
from arke.wire.limits import MAX_MESSAGE

_PATTERNS = {
    "request": "one member answers; the rate counts replies",
    "publish": "every subscriber hears; the rate counts deliveries",
    "broadcast": "every member hears; the rate counts deliveries",
    "tunnel": "one member reads a tunnel; the rate counts its messages",
}
_MEMBERS = {"request": 1, "publish": 1, "broadcast": 4, "tunnel": 1}

_WARMUP = 0.5
_DIRECTORY = 10.0  # generous: another relay hears of a member within milliseconds
_LOOK = 0.02
_SLACK = 60.0  # for starting, waiting for stragglers and ending, each bounded by itself


@dataclass(frozen=True, slots=True)
class _BenchOptions(Attached):
    member_port: int | None = flags.flag(
        "N", parse=flags.port, help="port of another relay, for the receivers to attach to"
    )
    inflight: int = flags.flag(
        "N", parse=flags.at_most(flags.count, 10_000), default=64, help="requests under way at once"
    )
    size: int = flags.flag(
        "BYTES", parse=flags.at_most(flags.count, MAX_MESSAGE), default=128, help="of each body"
    )
    seconds: float = flags.flag(
        "TIME", parse=flags.at_most(flags.seconds, 300.0), default="3s", help="how long to measure"
    )
    members: int | None = flags.flag(
        "N",
        parse=flags.at_most(flags.count, 64),
        help="receivers, each in a process of its own (default: 1; of a broadcast: 4)",
    )
    json: bool = flags.switch(help="print the figures as JSON")


BENCH = {
    pattern: flags.Command(
        f"arke bench {pattern}", _BenchOptions, f"Measures how fast messages move: {about}."
    )
    for pattern, about in _PATTERNS.items()
}


def bench(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Measure one pattern; a drop or an error makes the figures worthless, and the status 1."""
    pattern, argv = flags.choose(
        program="arke bench",
        summary="Measures how fast messages move, with receivers it starts itself.",
        commands=_PATTERNS,
        argv=argv,
    )
    options = BENCH[pattern].parse(argv, environ)
    try:
        run(
            _run(pattern, options),
            limit=options.seconds + _SLACK,
            loop_factory=uvloop.new_event_loop,
        )
    except BenchError as error:
        fail(str(error))


async def _run(pattern: str, options: _BenchOptions) -> None:
    async with options.connect() as mesh:
        result = await _measure(mesh, pattern, options)
    line = result.as_json() if options.json else result.as_line()
    await output.write(line.encode() + b"\n")
    if not result.clean:
        raise BenchError(
            f"these figures say nothing: {result.errors} errors, {result.drops} drops"
            + (f"; the first: {result.first_error}" if result.first_error else "")
        )


async def _measure(mesh: arke.Mesh, pattern: str, options: _BenchOptions) -> Result:
    name = f"bench-{secrets.token_hex(8)}"
    members = options.members or _MEMBERS[pattern]
    # A tunnel has a window of its own.
    bounded = pattern != "tunnel"
    windows = casts.Window
    window = (windows.for_bodies if bounded else windows.beyond)(options.size)
    # To a relay of its own the receivers go by port; to ours, the way that we go.
    path = options.path if options.member_port is None else None
    body = secrets.token_bytes(options.size)
    async with receiving(
        Group(pattern, name, members, window.every),
        port=options.member_port or options.port,
        path=path,
    ) as receivers:
        await _known(mesh, pattern, name, members)
        if pattern == "request":
            result = await requests.measure(
                mesh,
                name,
                body=body,
                inflight=options.inflight,
                warmup=_WARMUP,
                seconds=options.seconds,
            )
            await receivers.check()
            return result
        async with sending(mesh, pattern, name) as send:
            return await casts.measure(
                pattern,
                send,
                receivers,
                body=body,
                window=window,
                warmup=_WARMUP,
                seconds=options.seconds,
            )


@asynccontextmanager
async def sending(
    mesh: arke.Mesh, pattern: str, name: str
) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """How one body is sent."""
    if pattern == "tunnel":
        async with mesh.tunnel(name) as tunnel:
            yield tunnel.send
    else:
        yield partial(mesh.publish if pattern == "publish" else mesh.broadcast, name)


async def _known(mesh: arke.Mesh, pattern: str, name: str, members: int) -> None:
    """Wait until our relay has heard of the receivers. Raises BenchError."""
    # Another relay tells only that somebody there subscribes; all of them do by now.
    kind, enough = ("topics", 1) if pattern == "publish" else ("clusters", members)
    until = time.monotonic() + _DIRECTORY
    while time.monotonic() < until:
        listed = (await mesh.status())[kind].get(name)
        if listed and listed["here"] + listed["elsewhere"] >= enough:
            return
        await asyncio.sleep(_LOOK)
    raise BenchError("the relay does not hear of the receivers: are both relays of one network?")
