from __future__ import annotations

import asyncio
import gc
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from arke.program.logging import Log
from arke_relay.discovery import seeds as module
from arke_relay.discovery.hints import Hint
from arke_relay.discovery.seeds import Seeds

LIMIT = 20.0  # seconds; an upper limit: every wait ends as soon as its event happens


class Resolver:
    """DNS in a dict. A name maps to its addresses, or to an event until which the lookup hangs."""

    def __init__(self, **names: list[str] | threading.Event) -> None:
        self.names = names
        self.lookups: list[str] = []

    def __call__(self, name: str) -> list[str]:
        self.lookups.append(name)
        found = self.names.get(name)
        if isinstance(found, threading.Event):
            found.wait(LIMIT)
            found = None
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def hint(*addresses: str, port: int = 55556) -> Hint:
    return Hint(addresses, port, None, None, "seed")


async def round_of(seeds: Seeds) -> list[Hint]:
    async with asyncio.timeout(LIMIT):
        return [hint async for hint in seeds.round()]


async def test_ip_address_needs_no_lookup(log: Log) -> None:
    resolver = Resolver()
    seeds = Seeds([("192.168.56.101", 55556), ("2001:DB8::7", 7)], log, resolver)
    found = await round_of(seeds)
    assert set(found) == {hint("192.168.56.101"), hint("2001:db8::7", port=7)}
    assert resolver.lookups == []


async def test_name_gives_one_hint_with_all_its_addresses(log: Log) -> None:
    resolver = Resolver(node7=["10.0.0.7", "10.0.0.8", "10.0.0.7"])
    assert await round_of(Seeds([("node7", 7)], log, resolver)) == [
        hint("10.0.0.7", "10.0.0.8", port=7)
    ]


async def test_addresses_of_a_hint_are_bounded(log: Log) -> None:
    resolver = Resolver(node7=[f"10.0.0.{n}" for n in range(100)])
    (found,) = await round_of(Seeds([("node7", 7)], log, resolver))
    assert len(found.addresses) == 16


async def test_every_round_resolves_names_again(log: Log) -> None:
    resolver = Resolver(node7=["10.0.0.7"])
    seeds = Seeds([("node7", 55556)], log, resolver)
    assert await round_of(seeds) == [hint("10.0.0.7")]
    resolver.names["node7"] = ["10.0.0.9"]
    assert await round_of(seeds) == [hint("10.0.0.9")]


async def test_duplicate_seeds_and_ports_of_one_name_share_a_lookup(log: Log) -> None:
    resolver = Resolver(node7=["10.0.0.7"])
    found = await round_of(Seeds([("node7", 1), ("node7", 2), ("node7", 1)], log, resolver))
    assert set(found) == {hint("10.0.0.7", port=1), hint("10.0.0.7", port=2)}
    assert resolver.lookups == ["node7"]


async def test_unknown_name_is_logged_once_and_does_not_affect_others(
    log: Log, log_output: io.StringIO
) -> None:
    seeds = Seeds([("unknown", 1), ("10.0.0.7", 55556)], log, Resolver())
    assert await round_of(seeds) == [hint("10.0.0.7")]
    assert 'host=unknown reason="[Errno -2] Name or service not known"' in log_output.getvalue()
    assert await round_of(seeds) == [hint("10.0.0.7")]
    assert len(log_output.getvalue().splitlines()) == 1


async def test_link_local_addresses_with_a_zone_are_ignored(
    log: Log, log_output: io.StringIO
) -> None:
    resolver = Resolver(both=["fe80::1%2", "10.0.0.7"], near=["fe80::1%2"])
    seeds = Seeds([("both", 55556), ("near", 1), ("fe80::1%eth0", 2)], log, resolver)
    assert await round_of(seeds) == [hint("10.0.0.7")]
    assert len(log_output.getvalue().splitlines()) == 2


async def test_hanging_lookup_delays_no_other_and_is_not_repeated(
    log: Log, log_output: io.StringIO, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(stuck=release, node7=["10.0.0.7"])
    seeds = Seeds([("stuck", 1), ("node7", 55556)], log, resolver)
    for _ in range(3):
        lookups = seeds.round()
        async with asyncio.timeout(LIMIT):
            assert await anext(lookups) == hint("10.0.0.7")
        await lookups.aclose()
    monkeypatch.setattr(module, "_LOOKUP_TIMEOUT", 0.01)
    await round_of(seeds)
    assert resolver.lookups.count("stuck") == 1
    assert "host=stuck reason=" in log_output.getvalue()


async def test_late_error_of_a_lookup_is_not_logged_by_asyncio(
    log: Log, log_output: io.StringIO, release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(late=release)
    seeds = Seeds([("late", 1)], log, resolver)
    monkeypatch.setattr(module, "_LOOKUP_TIMEOUT", 0.01)
    assert await round_of(seeds) == []
    lookup = seeds._lookups["late"]
    release.set()
    await asyncio.wait([lookup], timeout=LIMIT)
    assert lookup.done()
    del lookup
    resolver.names["late"] = ["10.0.0.7"]
    monkeypatch.setattr(module, "_LOOKUP_TIMEOUT", LIMIT)
    assert await round_of(seeds) == [hint("10.0.0.7", port=1)]
    gc.collect()  # asyncio would log an unretrieved exception now
    assert all("seed not found" in line for line in log_output.getvalue().splitlines())


@pytest.mark.parametrize("name", ["x" * 300, "a..b", "\udcff", "a\0b", " "])
async def test_invalid_name_is_logged(name: str, log: Log, log_output: io.StringIO) -> None:
    assert await round_of(Seeds([(name, 1)], log)) == []
    assert len(log_output.getvalue().splitlines()) == 1


async def test_system_resolver_is_used(log: Log) -> None:
    (found,) = await round_of(Seeds([("localhost", 55556)], log))
    assert {"127.0.0.1", "::1"} >= set(found.addresses)


EXIT_DURING_LOOKUP = """
import asyncio, sys, time
from arke_relay.discovery.seeds import Seeds
from arke.program.logging import configure

async def main():
    found = Seeds([("stuck", 1)], configure("arke_relay"), lambda name: time.sleep(1000)).round()
    try:
        async with asyncio.timeout(0.01):
            await anext(found)
    except TimeoutError:
        print("cancelled")

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_exit_does_not_wait_for_a_hanging_lookup(loop: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXIT_DURING_LOOKUP, loop],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("cancelled\n", "")
