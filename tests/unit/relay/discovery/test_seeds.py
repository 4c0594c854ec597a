from __future__ import annotations

import asyncio
import gc
import io
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from arke.program.logging import Log, configure
from arke_relay.discovery import seeds as module
from arke_relay.discovery.hints import Hint
from arke_relay.discovery.seeds import Seeds

LIMIT = 20.0  # seconds; generous, every wait ends with its event


class Resolver:
    """DNS in a dict. A name maps to its addresses, or to an event until which nobody answers."""

    def __init__(self, **names: list[str] | threading.Event) -> None:
        self.names = names
        self.asked: list[str] = []

    def __call__(self, name: str) -> list[str]:
        self.asked.append(name)
        found = self.names.get(name)
        if isinstance(found, threading.Event):
            found.wait(LIMIT)
            found = None
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found


@pytest.fixture
def told() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(told: io.StringIO) -> Iterator[Log]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield configure("arke_relay", stream=told)
    root.handlers[:], root.level = before


@pytest.fixture
def silence() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def hint(*addresses: str, port: int = 55556) -> Hint:
    return Hint(addresses, port, None, None, "seed")


async def round_of(seeds: Seeds) -> list[Hint]:
    async with asyncio.timeout(LIMIT):
        return [hint async for hint in seeds.round()]


async def test_a_literal_is_itself_and_asks_nobody(log: Log) -> None:
    resolver = Resolver()
    seeds = Seeds([("192.168.56.101", 55556), ("2001:DB8::7", 7)], log, resolver)
    found = await round_of(seeds)
    assert set(found) == {hint("192.168.56.101"), hint("2001:db8::7", port=7)}
    assert resolver.asked == []


async def test_a_name_is_one_hint_with_all_its_addresses(log: Log) -> None:
    resolver = Resolver(node7=["10.0.0.7", "10.0.0.8", "10.0.0.7"])
    assert await round_of(Seeds([("node7", 7)], log, resolver)) == [
        hint("10.0.0.7", "10.0.0.8", port=7)
    ]


async def test_a_name_with_a_hundred_addresses_is_a_short_hint(log: Log) -> None:
    resolver = Resolver(node7=[f"10.0.0.{n}" for n in range(100)])
    (found,) = await round_of(Seeds([("node7", 7)], log, resolver))
    assert len(found.addresses) == 16


async def test_every_round_asks_again(log: Log) -> None:
    resolver = Resolver(node7=["10.0.0.7"])
    seeds = Seeds([("node7", 55556)], log, resolver)
    assert await round_of(seeds) == [hint("10.0.0.7")]
    resolver.names["node7"] = ["10.0.0.9"]
    assert await round_of(seeds) == [hint("10.0.0.9")]


async def test_a_seed_given_twice_is_one_and_two_ports_of_a_name_are_one_lookup(log: Log) -> None:
    resolver = Resolver(node7=["10.0.0.7"])
    found = await round_of(Seeds([("node7", 1), ("node7", 2), ("node7", 1)], log, resolver))
    assert set(found) == {hint("10.0.0.7", port=1), hint("10.0.0.7", port=2)}
    assert resolver.asked == ["node7"]


async def test_a_name_that_is_not_found_is_a_line_and_hides_no_other(
    log: Log, told: io.StringIO
) -> None:
    seeds = Seeds([("nobody", 1), ("10.0.0.7", 55556)], log, Resolver())
    assert await round_of(seeds) == [hint("10.0.0.7")]
    assert 'host=nobody reason="[Errno -2] Name or service not known"' in told.getvalue()
    assert await round_of(seeds) == [hint("10.0.0.7")]
    assert len(told.getvalue().splitlines()) == 1


async def test_addresses_that_need_a_zone_are_left_out(log: Log, told: io.StringIO) -> None:
    resolver = Resolver(both=["fe80::1%2", "10.0.0.7"], near=["fe80::1%2"])
    seeds = Seeds([("both", 55556), ("near", 1), ("fe80::1%eth0", 2)], log, resolver)
    assert await round_of(seeds) == [hint("10.0.0.7")]
    assert len(told.getvalue().splitlines()) == 2


async def test_a_silent_resolver_delays_nobody_else_and_is_asked_once(
    log: Log, told: io.StringIO, silence: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(stuck=silence, node7=["10.0.0.7"])
    seeds = Seeds([("stuck", 1), ("node7", 55556)], log, resolver)
    first = seeds.round()
    async with asyncio.timeout(LIMIT):
        assert await anext(first) == hint("10.0.0.7")
    await first.aclose()
    monkeypatch.setattr(module, "_LOOKUP_TIMEOUT", 0.01)
    for _ in range(3):
        assert hint("10.0.0.7") in await round_of(seeds)
    assert resolver.asked.count("stuck") == 1
    assert "host=stuck reason=" in told.getvalue()


async def test_a_lookup_that_fails_after_all_is_nobodys_surprise(
    log: Log, told: io.StringIO, silence: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(late=silence)
    seeds = Seeds([("late", 1)], log, resolver)
    monkeypatch.setattr(module, "_LOOKUP_TIMEOUT", 0.01)
    assert await round_of(seeds) == []
    lookup = seeds._lookups["late"]
    silence.set()
    await asyncio.wait([lookup], timeout=LIMIT)
    assert lookup.done()
    del lookup
    resolver.names["late"] = ["10.0.0.7"]
    monkeypatch.setattr(module, "_LOOKUP_TIMEOUT", LIMIT)
    assert await round_of(seeds) == [hint("10.0.0.7", port=1)]
    gc.collect()  # what asyncio has to say of a forgotten exception would be told now
    assert all("seed not found" in line for line in told.getvalue().splitlines())


@pytest.mark.parametrize("name", ["x" * 300, "a..b", "\udcff", "a\0b", " "])
async def test_what_no_name_can_be_is_a_line(name: str, log: Log, told: io.StringIO) -> None:
    assert await round_of(Seeds([(name, 1)], log)) == []
    assert len(told.getvalue().splitlines()) == 1


async def test_the_systems_resolver_is_asked(log: Log) -> None:
    (found,) = await round_of(Seeds([("localhost", 55556)], log))
    assert {"127.0.0.1", "::1"} >= set(found.addresses)


LEAVE_EARLY = """
import asyncio, sys, time
from arke_relay.discovery.seeds import Seeds
from arke.program.logging import configure

async def main():
    found = Seeds([("stuck", 1)], configure("arke_relay"), lambda name: time.sleep(1000)).round()
    try:
        async with asyncio.timeout(0.01):
            await anext(found)
    except TimeoutError:
        print("left")

if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_leaving_does_not_wait_for_a_silent_resolver(loop: str) -> None:
    left = subprocess.run(
        [sys.executable, "-W", "error", "-c", LEAVE_EARLY, loop],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert (left.stdout, left.stderr) == ("left\n", "")
