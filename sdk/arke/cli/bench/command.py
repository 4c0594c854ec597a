"""`arke bench`: start receivers, measure one pattern and print the result."""

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
from arke.cli.bench import requests, throughput
from arke.cli.bench.receivers import BenchError, Group, receiving
from arke.cli.bench.result import Result
from arke.cli.exit_status import fail
from arke.cli.session import AttachOptions, run
from arke.program import flags
from arke.wire.limits import MAX_MESSAGE

_PATTERNS = {
    "request": "one member replies; the rate counts replies",
    "publish": "every subscriber receives; the rate counts deliveries",
    "broadcast": "every member receives; the rate counts deliveries",
    "tunnel": "one member reads a tunnel; the rate counts its messages",
}
_MEMBERS = {"request": 1, "publish": 1, "broadcast": 4, "tunnel": 1}

_WARMUP = 0.5
_DIRECTORY_TIMEOUT = 10.0  # generous: members are known at other relays within milliseconds
_POLL_INTERVAL = 0.02
_OVERHEAD = 60.0  # for start, last deliveries and stop; each has its own timeout


@dataclass(frozen=True, slots=True)
class _BenchOptions(AttachOptions):
    member_port: int | None = flags.flag(
        "N", parse=flags.port, help="port of another relay, for the receivers to attach to"
    )
    inflight: int = flags.flag(
        "N", parse=flags.at_most(flags.count, 10_000), default=64, help="pending requests at once"
    )
    size: int = flags.flag(
        "BYTES",
        parse=flags.at_most(flags.count, MAX_MESSAGE),
        default=128,
        help="size of each body",
    )
    seconds: float = flags.flag(
        "TIME", parse=flags.at_most(flags.seconds, 300.0), default="3s", help="how long to measure"
    )
    members: int | None = flags.flag(
        "N",
        parse=flags.at_most(flags.count, 64),
        help="number of receiver processes (default: 1; for broadcast: 4)",
    )
    json: bool = flags.switch(help="print the result as JSON")


BENCH = {
    pattern: flags.Command(
        f"arke bench {pattern}", _BenchOptions, f"Measures throughput and latency: {about}."
    )
    for pattern, about in _PATTERNS.items()
}


def bench(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Measure one pattern. The exit status is 1 for any drop or error: the result is invalid."""
    pattern, argv = flags.choose(
        program="arke bench",
        summary="Measures throughput and latency, with receivers that it starts itself.",
        commands=_PATTERNS,
        argv=argv,
    )
    options = BENCH[pattern].parse(argv, environ)
    try:
        run(
            _run(pattern, options),
            limit=options.seconds + _OVERHEAD,
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
            f"the result is invalid: {result.errors} errors, {result.drops} drops"
            + (f"; the first error: {result.first_error}" if result.first_error else "")
        )


async def _measure(mesh: arke.Mesh, pattern: str, options: _BenchOptions) -> Result:
    name = f"bench-{secrets.token_hex(8)}"
    members = options.members or _MEMBERS[pattern]
    # Tunnels have flow control of their own.
    is_tunnel = pattern == "tunnel"
    windows = throughput.Window
    window = (windows.unbounded if is_tunnel else windows.for_bodies)(options.size)
    # Receivers at another relay attach by port; at the same relay, as this process does.
    path = options.path if options.member_port is None else None
    body = secrets.token_bytes(options.size)
    async with receiving(
        Group(pattern, name, members, window.every),
        port=options.member_port or options.port,
        path=path,
    ) as receivers:
        await _wait_until_known(mesh, pattern, name, members)
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
        async with _sender(mesh, pattern, name) as send:
            return await throughput.measure(
                pattern,
                send,
                receivers,
                body=body,
                window=window,
                warmup=_WARMUP,
                seconds=options.seconds,
            )


@asynccontextmanager
async def _sender(
    mesh: arke.Mesh, pattern: str, name: str
) -> AsyncIterator[Callable[[bytes], Awaitable[None]]]:
    """Yield the function that sends one body."""
    if pattern == "tunnel":
        async with mesh.tunnel(name) as tunnel:
            yield tunnel.send
    else:
        yield partial(mesh.publish if pattern == "publish" else mesh.broadcast, name)


async def _wait_until_known(mesh: arke.Mesh, pattern: str, name: str, members: int) -> None:
    """Wait until the relay of this process knows the receivers. Raises BenchError."""
    # Another relay announces only that it has subscribers, not how many.
    kind, enough = ("topics", 1) if pattern == "publish" else ("clusters", members)
    until = time.monotonic() + _DIRECTORY_TIMEOUT
    while time.monotonic() < until:
        listed = (await mesh.status())[kind].get(name)
        if listed and listed["here"] + listed["elsewhere"] >= enough:
            return
        await asyncio.sleep(_POLL_INTERVAL)
    raise BenchError("the relay does not know the receivers: are both relays in one network?")
