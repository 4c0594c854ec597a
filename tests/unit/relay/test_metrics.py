from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from arke.program.logging import Log
from arke_relay.errors import ConfigurationError
from arke_relay.metrics.exposition import OTHER
from arke_relay.metrics.names import METRICS, Distribution, MetricKind, Snapshot
from arke_relay.metrics.server import MetricsServer
from support.raw_http_request import send_raw_request

LIMIT = 20.0  # seconds; generous, every wait ends with its event

SNAPSHOT: Snapshot = {
    "arke_build_info": {("0.1.0", "3.11.7"): 1},
    "arke_requests_total": {("ok",): 1_000_000, ("timeout",): 2},
    "arke_request_seconds": {(): Distribution((0.001, 0.25), (5, 3, 1), 1.5)},
    "arke_retries_total": {(): 3},
    "arke_queue_bytes": {("program",): 4096, ("peer",): 0},
    "arke_programs": {(): 7},
    "arke_members": {("web", "here"): 1, ("web", "elsewhere"): 2},
}


class Relay:
    """The source of the metrics."""

    def __init__(self) -> None:
        self.snapshot: Snapshot = SNAPSHOT
        self.why: str | None = None


@pytest.fixture
def relay() -> Relay:
    return Relay()


@pytest.fixture
async def address(relay: Relay, log: Log) -> AsyncIterator[tuple[str, int]]:
    server = MetricsServer(lambda: relay.snapshot, lambda: relay.why, log)
    yield await server.start("127.0.0.1", 0)
    async with asyncio.timeout(LIMIT):
        await server.stop()


async def ask(address: tuple[str, int], line: str) -> tuple[int, dict[str, str], str]:
    """Return status, headers and body of the reply to a request with this first line."""
    reply = await send_raw_request(address, f"{line} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head, _, body = reply.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


async def scraped(address: tuple[str, int]) -> dict[tuple[str, frozenset[str]], float]:
    """Return every sample as Prometheus would read it, by its name and its label values."""
    status, headers, body = await ask(address, "GET /metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


async def test_scrape_returns_the_metrics(address: tuple[str, int]) -> None:
    samples = await scraped(address)
    shown = {name: value for name, value in samples.items() if name[0].startswith("arke_")}
    assert shown == {
        ("arke_build_info", frozenset({"0.1.0", "3.11.7"})): 1,
        ("arke_requests_total", frozenset({"ok"})): 1_000_000,
        ("arke_requests_total", frozenset({"timeout"})): 2,
        ("arke_request_seconds_bucket", frozenset({"0.001"})): 5,
        ("arke_request_seconds_bucket", frozenset({"0.25"})): 8,
        ("arke_request_seconds_bucket", frozenset({"+Inf"})): 9,
        ("arke_request_seconds_count", frozenset()): 9,
        ("arke_request_seconds_sum", frozenset()): 1.5,
        ("arke_retries_total", frozenset()): 3,
        ("arke_queue_bytes", frozenset({"program"})): 4096,
        ("arke_queue_bytes", frozenset({"peer"})): 0,
        ("arke_programs", frozenset()): 7,
        ("arke_members", frozenset({"web", "here"})): 1,
        ("arke_members", frozenset({"web", "elsewhere"})): 2,
    }
    assert samples["process_resident_memory_bytes", frozenset()] > 0


async def test_scrape_returns_current_values(address: tuple[str, int], relay: Relay) -> None:
    await scraped(address)
    relay.snapshot = {"arke_programs": {(): 8}}
    samples = await scraped(address)
    assert samples["arke_programs", frozenset()] == 8
    assert ("arke_retries_total", frozenset()) not in samples


def test_metric_names_follow_the_conventions() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("arke_")
        assert metric.name.endswith("_total") is (metric.kind is MetricKind.COUNTER)
        assert metric.kind is not MetricKind.HISTOGRAM or metric.labels == ()
        assert metric.help.endswith(".")


async def test_number_of_cluster_labels_is_bounded(address: tuple[str, int], relay: Relay) -> None:
    relay.snapshot = {
        "arke_members": {(f"c{n}", where): n for n in range(1000) for where in ("here", "far")}
    }
    samples = await scraped(address)
    members = {key: value for key, value in samples.items() if key[0] == "arke_members"}
    assert len(members) == 2 * (200 + 1)
    assert members["arke_members", frozenset({"c199", "here"})] == 199
    assert members["arke_members", frozenset({OTHER, "here"})] == sum(range(200, 1000))
    assert sum(members.values()) == 2 * sum(range(1000))


@pytest.mark.parametrize("name", ['say "x"', "line\nbreak", "back\\slash", "grün", "", " "])
async def test_cluster_names_are_escaped(name: str, address: tuple[str, int], relay: Relay) -> None:
    relay.snapshot = {"arke_members": {(name, "here"): 3}}
    assert (await scraped(address))["arke_members", frozenset({name, "here"})] == 3


async def test_invalid_or_long_names_do_not_break_the_page(
    address: tuple[str, int], relay: Relay
) -> None:
    relay.snapshot = {"arke_members": {("\udcff", "here"): 1, ("x" * 9999, "here"): 2}}
    samples = await scraped(address)
    assert samples["arke_members", frozenset({"?", "here"})] == 1
    assert samples["arke_members", frozenset({"x" * 128, "here"})] == 2


@pytest.mark.parametrize(
    "snapshot",
    [
        {"arke_surprises_total": {(): 1}},
        {"arke_members": {("web",): 1}},
        {"arke_request_seconds": {(): 1.0}},
        {"arke_request_seconds": {(): Distribution((1.0,), (1,), 1.0)}},
        {"arke_programs": {(): Distribution((1.0,), (1, 1), 1.0)}},
    ],
)
async def test_metric_without_a_description_is_logged_as_an_error(
    snapshot: Snapshot, address: tuple[str, int], relay: Relay, log_output: io.StringIO
) -> None:
    relay.snapshot = snapshot
    for _ in range(3):
        assert (await ask(address, "GET /metrics"))[0] == 500
    (line,) = log_output.getvalue().splitlines()
    assert "admin page failed path=/metrics" in line
    assert (await ask(address, "GET /healthz"))[0] == 200
    relay.snapshot = SNAPSHOT
    await scraped(address)


async def test_health_and_readiness(address: tuple[str, int], relay: Relay) -> None:
    relay.why = "not synchronised with 2 peers"
    assert (await ask(address, "GET /healthz"))[::2] == (200, "OK\n")
    assert (await ask(address, "GET /readyz"))[::2] == (503, "not synchronised with 2 peers\n")
    relay.why = None
    assert (await ask(address, "GET /readyz?verbose"))[::2] == (200, "OK\n")


async def test_port_in_use_is_a_one_line_error(relay: Relay, log: Log) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = MetricsServer(lambda: relay.snapshot, lambda: None, log)
        with pytest.raises(
            ConfigurationError, match=rf"^-metrics: .* 127\.0\.0\.1:{port} .*use.*$"
        ):
            await server.start("127.0.0.1", port)
        await server.stop()
