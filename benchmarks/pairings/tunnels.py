"""Tunnels, through one relay and across the encrypted hop; and what small requests feel of bulk."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.loads import arke, arke_bench, arke_load
from benchmarks.measure import (
    MEGABYTES_PER_SECOND,
    MILLISECONDS,
    RATE,
    TIMES,
    Bar,
    BenchError,
    Figures,
    Measure,
    Pairing,
    Row,
    Run,
)
from benchmarks.processes import running
from benchmarks.relays import two_relays

LARGE = ("--size", "65536")
SMALL = ("--size", "64")
BODY = ("--size", str(16 * 1024 * 1024), "--inflight", "2")
ONE = ("--inflight", "1")
RUN_UP = 1.5  # seconds until the bulk is at its full rate
MORE = 30.0  # seconds that it would go on beside what is measured; it is ended before


def across(pattern: str, *arguments: str) -> Run:
    """Return a run in which everything crosses the hop."""

    def run(seconds: float) -> Figures:
        with two_relays() as (near, far):
            return arke_bench(
                near.port, pattern, seconds, "--member-port", str(far.port), *arguments
            )

    return run


def beside(pattern: str, *arguments: str, both_ways: bool = False) -> Run:
    """Return a run of small requests across the hop, idle and then beside bulk on the same."""

    def run(seconds: float) -> Figures:
        with two_relays() as (near, far), TemporaryDirectory() as folder:
            there = ("--member-port", str(far.port))
            idle = arke_bench(near.port, "request", seconds, *there, *ONE)["p99_us"]
            ways = [(near, far), (far, near)] if both_ways else [(near, far)]
            bulk = [
                arke_load(
                    source.port,
                    pattern,
                    seconds + MORE,
                    "--member-port",
                    str(sink.port),
                    *arguments,
                )
                for source, sink in ways
            ]
            with _all(bulk, Path(folder)) as processes:
                time.sleep(RUN_UP)
                loaded = arke_bench(near.port, "request", seconds, *there, *ONE)["p99_us"]
                if any(process.poll() is not None for process in processes):
                    raise BenchError("the bulk ended before what was measured beside it")
        return {"idle": idle, "loaded": loaded, "times": loaded / idle}

    return run


@contextlib.contextmanager
def _all(commands: Sequence[list[str]], folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(running(command, folder / str(number)))
            for number, command in enumerate(commands)
        ]


def _beside(name: str, what: str, run: Run) -> Measure:
    return Measure(
        name,
        (
            Row("small requests alone, p99", "idle", MILLISECONDS),
            Row(f"beside {what}, p99", "loaded", MILLISECONDS, Bar("≤", 10_000, "figure")),
            Row("times as long", "times", TIMES, Bar("≤", 5, "figure")),
        ),
        arke=run,
    )


PAIRING = Pairing(
    title="Tunnels",
    measures=(
        Measure(
            "tunnel",
            (
                Row(
                    "64 KiB messages, one relay",
                    "octets",
                    MEGABYTES_PER_SECOND,
                    Bar("≥", 500e6, "figure"),
                ),
            ),
            arke=arke("tunnel", *LARGE),
        ),
        Measure(
            "tunnel-hop",
            (
                Row(
                    "64 KiB messages, two relays, encrypted",
                    "octets",
                    MEGABYTES_PER_SECOND,
                    Bar("≥", 150e6, "figure"),
                ),
            ),
            arke=across("tunnel", *LARGE),
        ),
        Measure(
            "tunnel-small",
            (Row("64 B messages, one relay", "rate", RATE, Bar("≥", 200_000, "figure")),),
            arke=arke("tunnel", *SMALL),
        ),
        Measure(
            "tunnel-small-hop",
            (Row("64 B messages, two relays", "rate", RATE, Bar("≥", 100_000, "figure")),),
            arke=across("tunnel", *SMALL),
        ),
        _beside("beside-tunnel", "a tunnel flat out", beside("tunnel", *LARGE)),
        _beside(
            "beside-bodies",
            "16 MiB requests both ways",
            beside("request", *BODY, both_ways=True),
        ),
    ),
)
