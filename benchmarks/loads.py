"""Run the load generators of Arke, NATS and Iris with the same arguments."""

from __future__ import annotations

import json

from benchmarks.measure import BenchError, Figures, Run
from benchmarks.nats_server import nats_server
from benchmarks.processes import module_command, run_to_end
from benchmarks.relays import network

BODY_SIZE = "128"
MARGIN = 30.0  # seconds for the receivers to start and finish


def arke(pattern: str, *arguments: str) -> Run:
    """Return a run of `arke bench PATTERN` on its own relay."""

    def run(seconds: float) -> Figures:
        with network() as relays, relays.relay("127.0.0.2", "-mdns", "off") as relay:
            relay.ready()
            return arke_bench(relay.port, pattern, seconds, *arguments)

    return run


def arke_bench(port: int, pattern: str, seconds: float, *arguments: str) -> Figures:
    """Run `arke bench` on a running relay."""
    return _run_and_parse(arke_bench_command(port, pattern, seconds, *arguments), seconds)


def arke_bench_command(port: int, pattern: str, seconds: float, *arguments: str) -> list[str]:
    """Return the command line of `arke bench`; a later argument overrides an earlier one."""
    line = ("bench", pattern, *_common(port, seconds), *arguments, "--json")
    return module_command("arke.cli.main", *line)


def iris(pattern: str, *arguments: str) -> Run:
    """Return a run of Iris programs on its own Arke relay."""

    def run(seconds: float) -> Figures:
        with network() as relays, relays.relay("127.0.0.2", "-mdns", "off") as relay:
            relay.ready()
            line = (pattern, *_common(relay.port, seconds), *arguments)
            return _run_and_parse(module_command("benchmarks.iris_load", *line), seconds)

    return run


def nats(pattern: str, *arguments: str) -> Run:
    """Return a run of the same load on its own nats-server."""

    def run(seconds: float) -> Figures:
        with nats_server() as port:
            line = (pattern, *_common(port, seconds), *arguments)
            return _run_and_parse(module_command("benchmarks.nats_load", *line), seconds)

    return run


def _common(port: int, seconds: float) -> tuple[str, ...]:
    return ("--port", str(port), "--size", BODY_SIZE, "--seconds", str(seconds))


def _run_and_parse(command: list[str], seconds: float) -> Figures:
    result = json.loads(run_to_end(command, seconds + MARGIN))
    if result["errors"] or result["drops"]:
        raise BenchError(f"{command[2]}: {result}")
    figures = {figure: float(result[figure]) for figure in ("rate", "p50_us", "p99_us", "received")}
    return figures | {"bytes": figures["rate"] * result["size"]}
