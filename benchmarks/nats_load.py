"""Load generator for NATS with nats-py: the counterpart of `arke bench`.

`python -m benchmarks.nats_load request|publish|broadcast --port N …` prints the same JSON.
Publish and broadcast use the measuring code of `arke bench`; `request` shares only its percentiles.
The caller, and the receiver in `nats_receiver`, are written for nats-py.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from array import array
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import nats
import uvloop
from nats.aio.client import Client

from arke.cli.bench import throughput
from arke.cli.bench.receivers import BenchError, Receivers
from arke.cli.bench.result import Result, percentile
from arke.program import flags

SUBJECT = "bench"
WARM_UP = 0.5
TIMEOUT = 5.0

PATTERNS = {
    "request": "one member of a queue group answers; the rate counts replies",
    "publish": "every subscriber receives each message; the rate counts deliveries",
    "broadcast": "like publish: in NATS a broadcast is a message to plain subscribers",
}


@dataclass(frozen=True, slots=True)
class Load:
    """The load on the server."""

    port: int = flags.flag("N", parse=flags.port, default=4222, help="port on 127.0.0.1")
    inflight: int = flags.flag("N", parse=flags.count, default=64, help="concurrent requests")
    size: int = flags.flag("BYTES", parse=flags.count, default=128, help="size of each body")
    seconds: float = flags.flag(
        "TIME", parse=flags.seconds, default="3s", help="length of the measurement"
    )
    members: int = flags.flag("N", parse=flags.count, default=1, help="processes that receive")


async def measure(pattern: str, load: Load) -> Result:
    """Start the receivers, run the load and return the result. Raises BenchError."""
    body = secrets.token_bytes(load.size)
    window = throughput.Window.for_bodies(load.size)
    async with (
        receiving(pattern, load, window.every) as receivers,
        await nats.connect(f"nats://127.0.0.1:{load.port}", allow_reconnect=False) as client,
    ):
        if pattern == "request":
            return await requests(client, body, load)
        return await throughput.measure(
            pattern,
            partial(client.publish, SUBJECT),
            receivers,
            body=body,
            window=window,
            warmup=WARM_UP,
            seconds=load.seconds,
        )


async def requests(client: Client, body: bytes, load: Load) -> Result:
    """Keep `inflight` requests in flight: first as warm-up, then measured."""
    await request_for(client, body, load.inflight, WARM_UP)
    began = time.perf_counter()
    latencies, errors = await request_for(client, body, load.inflight, load.seconds)
    elapsed = time.perf_counter() - began
    return Result(
        pattern="request",
        size=len(body),
        rate=len(latencies) / elapsed,
        p50_us=percentile(latencies, 50),
        p99_us=percentile(latencies, 99),
        received=len(latencies),
        errors=len(errors),
        first_error=errors[0] if errors else "",
    )


async def request_for(
    client: Client, body: bytes, inflight: int, seconds: float
) -> tuple[array[int], list[str]]:
    """Return the latencies of replies in nanoseconds, and the errors."""
    latencies, errors = array("q"), list[str]()
    until = time.perf_counter_ns() + int(seconds * 1e9)
    async with asyncio.TaskGroup() as callers:
        for _ in range(inflight):
            callers.create_task(request_until(client, body, until, latencies, errors))
    return latencies, errors


async def request_until(
    client: Client, body: bytes, until: int, latencies: array[int], errors: list[str]
) -> None:
    request, clock, record_latency = client.request, time.perf_counter_ns, latencies.append
    began = clock()
    while began < until:
        try:
            reply = (await request(SUBJECT, body, timeout=TIMEOUT)).data
        except nats.errors.Error as error:
            errors.append(str(error))
            reply = None
        ended = clock()
        if reply == body:
            record_latency(ended - began)
        elif reply is not None:
            errors.append("a reply differs from the request's body")
        began = ended


@asynccontextmanager
async def receiving(pattern: str, load: Load, report_interval: int) -> AsyncIterator[Receivers]:
    """Run the receivers for the duration of the block; closing their stdin ends them."""
    line = [sys.executable, "-m", "benchmarks.nats_receiver", pattern, SUBJECT]
    line += ["--port", str(load.port), "--every", str(report_interval)]
    processes: list[Process] = []
    try:
        for _ in range(load.members):
            process = await asyncio.create_subprocess_exec(
                *line, stdin=PIPE, stdout=PIPE, stderr=PIPE
            )
            processes.append(process)
        receivers = Receivers(processes)
        await receivers.start()
        yield receivers
        await receivers.finish()
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


def main(argv: Sequence[str]) -> None:
    pattern, argv = flags.choose(
        program="nats_load",
        summary="Measures how fast messages move through a nats-server.",
        commands=PATTERNS,
        argv=argv,
    )
    load = flags.Command(
        f"nats_load {pattern}", Load, f"Measures how fast messages move: {PATTERNS[pattern]}."
    ).parse(argv, None)
    try:
        result = uvloop.run(measure(pattern, load))
    except (BenchError, nats.errors.Error, OSError) as error:
        sys.exit(f"nats_load: {error}")
    print(result.as_json())


if __name__ == "__main__":
    main(sys.argv[1:])
