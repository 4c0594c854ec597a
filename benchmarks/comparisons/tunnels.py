"""Tunnel throughput on one and two relays; latency of small requests during bulk transfers."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.loads import arke, arke_bench, arke_bench_command
from benchmarks.measure import (
    MEGABYTES_PER_SECOND,
    MILLISECONDS,
    RATE,
    TIMES,
    BenchError,
    Comparison,
    Figures,
    Measure,
    Row,
    Run,
    Target,
)
from benchmarks.processes import running
from benchmarks.relays import two_relays

LARGE = ("--size", "65536")
SMALL = ("--size", "64")
BODY = ("--size", str(16 * 1024 * 1024), "--inflight", "2")
ONE = ("--inflight", "1")
RAMP_UP = 1.5  # seconds until the bulk transfer is at its full rate
MORE = 30.0  # extra seconds for the bulk transfer, which is stopped earlier


def two_relay_run(pattern: str, *arguments: str) -> Run:
    """Return a run between two relays."""

    def run(seconds: float) -> Figures:
        with two_relays() as (near, far):
            return arke_bench(
                near.port, pattern, seconds, "--member-port", str(far.port), *arguments
            )

    return run


def latency_under_load(pattern: str, *arguments: str, both_ways: bool = False) -> Run:
    """Return a run of small requests between two relays, alone and then during bulk transfers."""

    def run(seconds: float) -> Figures:
        with two_relays() as (near, far), TemporaryDirectory() as folder:
            there = ("--member-port", str(far.port))
            idle = arke_bench(near.port, "request", seconds, *there, *ONE)["p99_us"]
            ways = [(near, far), (far, near)] if both_ways else [(near, far)]
            bulk = [
                arke_bench_command(
                    source.port,
                    pattern,
                    seconds + MORE,
                    "--member-port",
                    str(sink.port),
                    *arguments,
                )
                for source, sink in ways
            ]
            with running_all(bulk, Path(folder)) as processes:
                time.sleep(RAMP_UP)
                loaded = arke_bench(near.port, "request", seconds, *there, *ONE)["p99_us"]
                if any(process.poll() is not None for process in processes):
                    raise BenchError("the bulk transfer ended before the measurement")
        return {"idle": idle, "loaded": loaded, "times": loaded / idle}

    return run


@contextlib.contextmanager
def running_all(
    commands: Sequence[list[str]], folder: Path
) -> Iterator[list[subprocess.Popen[bytes]]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(running(command, folder / str(number)))
            for number, command in enumerate(commands)
        ]


def _latency_under_load(name: str, what: str, run: Run) -> Measure:
    return Measure(
        name,
        (
            Row("small requests alone, p99", "idle", MILLISECONDS),
            Row(f"during {what}, p99", "loaded", MILLISECONDS, Target("≤", 10_000, "figure")),
            Row("ratio", "times", TIMES, Target("≤", 5, "figure")),
        ),
        arke=run,
    )


COMPARISON = Comparison(
    title="Tunnels",
    measures=(
        Measure(
            "tunnel",
            (
                Row(
                    "64 KiB messages, one relay",
                    "bytes",
                    MEGABYTES_PER_SECOND,
                    Target("≥", 500e6, "figure"),
                ),
            ),
            arke=arke("tunnel", *LARGE),
        ),
        Measure(
            "tunnel-hop",
            (
                Row(
                    "64 KiB messages, two relays, encrypted",
                    "bytes",
                    MEGABYTES_PER_SECOND,
                    Target("≥", 150e6, "figure"),
                ),
            ),
            arke=two_relay_run("tunnel", *LARGE),
        ),
        Measure(
            "tunnel-small",
            (Row("64 B messages, one relay", "rate", RATE, Target("≥", 200_000, "figure")),),
            arke=arke("tunnel", *SMALL),
        ),
        Measure(
            "tunnel-small-hop",
            (Row("64 B messages, two relays", "rate", RATE, Target("≥", 100_000, "figure")),),
            arke=two_relay_run("tunnel", *SMALL),
        ),
        _latency_under_load("beside-tunnel", "a bulk tunnel", latency_under_load("tunnel", *LARGE)),
        _latency_under_load(
            "beside-bodies",
            "16 MiB requests both ways",
            latency_under_load("request", *BODY, both_ways=True),
        ),
    ),
)
