from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import struct
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import pytest

from arke_relay.discovery.records import SERVICE, instance
from lab import Host, Lab
from lab import Process as Running

LIMIT = 20.0  # seconds; generous, every wait ends with its event
AGENT = Path(__file__).parents[1] / "support" / "mdns_agent.py"
GROUP = ("224.0.0.251", 5353)


class Agent:
    """A process with the relay's mDNS in it; whatever it writes to stderr fails the test."""

    def __init__(self, bind: str, secret: str, *more: str, port: int = 4000) -> None:
        self.node = secrets.token_hex(8)
        self._argv = [bind, self.node, str(port), secret, *more]
        self._told: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        # In development mode an unawaited coroutine or an unclosed socket is a warning.
        self._process: Process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "error", AGENT, *self._argv),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        await self.hear("ready")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._process.returncode is None:
            self.say("stop")
        _, complaints = await asyncio.wait_for(self._process.communicate(), LIMIT)
        assert complaints.decode() == ""

    def say(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{' '.join(words)}\n".encode())

    async def stop(self) -> None:
        self.say("stop")
        await asyncio.wait_for(self._process.wait(), LIMIT)

    def kill(self) -> None:
        self._process.kill()

    async def hear(self, kind: str, wanted: Callable[[Any], bool] = bool) -> Any:
        """Return the first thing told of this kind that is wanted, told already or to come."""
        for at, told in enumerate(self._told):
            if kind in told and wanted(told[kind]):
                return self._told.pop(at)[kind]
        assert self._process.stdout is not None
        async with asyncio.timeout(LIMIT):
            while line := await self._process.stdout.readline():
                told = json.loads(line)
                if kind in told and wanted(told[kind]):
                    return told[kind]
                self._told.append(told)
        raise AssertionError(f"{self.node} ended before it told {kind}")

    async def hint_of(self, other: Agent) -> dict[str, Any]:
        hint: dict[str, Any] = await self.hear("hint", lambda hint: hint["node"] == other.node)
        return hint

    def told(self, kind: str) -> list[Any]:
        """Return what was told of this kind and not heard yet."""
        return [told[kind] for told in self._told if kind in told]

    async def ask(self, kind: str) -> Any:
        self.say(kind)
        return await self.hear(kind, lambda _: True)

    async def until(self, kind: str, wanted: Callable[[Any], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not wanted(await self.ask(kind)):
                pass


Start = Callable[..., Awaitable[Agent]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as agents:

        async def start(bind: str, *more: str, secret: str = "", port: int = 4000) -> Agent:
            agent = Agent(bind, secret or network, *more, port=port)
            return await agents.enter_async_context(agent)

        # Others may run relays on this machine's loopback too.
        network = secrets.token_hex(8)
        yield start


async def test_two_relays_of_one_machine_find_each_other(start: Start) -> None:
    one = await start("127.0.0.61")
    two = await start("127.0.0.62", port=4002)
    assert await one.hint_of(two) == {
        "addresses": ["127.0.0.62"],
        "port": 4002,
        "node": two.node,
        "key_index": 0,
        "source": "mdns",
    }
    assert (await two.hint_of(one))["addresses"] == ["127.0.0.61"]


async def test_every_relay_of_a_machine_finds_every_other(start: Start) -> None:
    agents = [await start(f"127.0.0.{61 + n}") for n in range(3)]
    for one in agents:
        for other in agents:
            if one is not other:
                await one.hint_of(other)
    assert len(await agents[0].ask("known")) == 2


async def test_a_goodbye_is_understood(start: Start) -> None:
    one = await start("127.0.0.61")
    two = await start("127.0.0.62")
    await one.hint_of(two)
    await two.stop()
    await one.until("known", lambda known: known == [])
    # Nor does an announcement come after it.
    three = await start("127.0.0.63")
    await one.hint_of(three)
    assert one.told("hint") == []


async def test_who_was_lost_without_a_word_is_still_known(start: Start) -> None:
    one = await start("127.0.0.61")
    two = await start("127.0.0.62")
    await one.hint_of(two)
    two.kill()
    three = await start("127.0.0.62")
    await one.hint_of(three)
    assert {hint["node"] for hint in await one.ask("known")} == {two.node, three.node}


async def test_a_change_is_hinted_again_and_nothing_else_is(start: Start) -> None:
    one = await start("127.0.0.61")
    two = await start("127.0.0.62")
    await one.hint_of(two)
    one.say("search")
    await one.hear("searched")
    two.say("use", "127.0.0.63")
    await two.hear("using")
    assert (await one.hint_of(two))["addresses"] == ["127.0.0.63"]


async def test_relays_of_another_key_are_no_hint(start: Start) -> None:
    one = await start("127.0.0.61")
    foreign = await start("127.0.0.62", secret="another key")
    two = await start("127.0.0.63")
    await one.hint_of(two)
    await one.until("counts", lambda counts: counts.get("another_network", 0) > 0)
    assert [hint["node"] for hint in await one.ask("known")] == [two.node]
    await foreign.until("counts", lambda counts: counts.get("another_network", 0) > 0)
    assert await foreign.ask("known") == []


class Listener(asyncio.DatagramProtocol):
    """Counts the first queries of a series: only they ask to be answered by unicast."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[str] = asyncio.Queue()

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        end = 12 + len(labels(SERVICE))
        asks_for_unicast = struct.pack("!HH", 12, 0x8001)
        if data[12:end] == labels(SERVICE) and data[end : end + 4] == asks_for_unicast:
            self.asked.put_nowait(address[0])


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    group.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    group.bind(GROUP)
    on_loopback = socket.inet_aton(GROUP[0]) + socket.inet_aton("127.0.0.1")
    group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, on_loopback)
    loop = asyncio.get_running_loop()
    transport, listener = await loop.create_datagram_endpoint(Listener, sock=group)
    yield listener
    transport.close()


async def series_of(listener: Listener, asker: str) -> None:
    async with asyncio.timeout(LIMIT):
        while await listener.asked.get() != asker:
            pass


async def test_a_search_asks_everybody_again(start: Start, listener: Listener) -> None:
    one = await start("127.0.0.64")
    await series_of(listener, "127.0.0.64")
    one.say("search")
    await series_of(listener, "127.0.0.64")


async def test_it_searches_by_itself_for_ever(start: Start, listener: Listener) -> None:
    await start("127.0.0.65", "0.1")
    for _ in range(3):
        await series_of(listener, "127.0.0.65")


# ---- whatever somebody puts on the wire


def labels(name: str) -> bytes:
    parts = [part.encode("latin-1") for part in name.rstrip(".").split(".")]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def answer(name: str, kind: int, data: bytes, ttl: int = 120) -> bytes:
    return labels(name) + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def packet(*answers: bytes) -> bytes:
    return struct.pack("!6H", 0, 0x8400, 0, len(answers), 0, 0) + b"".join(answers)


def announcement(
    node: str, txt: bytes, port: int = 4000, addresses: tuple[str, ...] = ("127.0.0.66",)
) -> bytes:
    name = f"{node}.{SERVICE}"
    return packet(
        answer(SERVICE, 12, labels(name)),
        answer(name, 33, struct.pack("!3H", 0, 0, port) + labels(f"{node}.local.")),
        answer(name, 16, txt),
        *(answer(f"{node}.local.", 1, socket.inet_aton(each)) for each in addresses),
    )


def good_text(tag: str = "00" * 16) -> bytes:
    return b"\x03v=1" + bytes([2 + len(tag)]) + b"h=" + tag.encode()


def hostile_packets() -> dict[str, bytes]:
    node = secrets.token_hex(8)
    return {
        "name": announcement("printer", good_text()),
        "text": announcement(secrets.token_hex(8), b"\xf0v=1"),
        "version": announcement(secrets.token_hex(8), b"\x03v=9"),
        "tag": announcement(secrets.token_hex(8), b"\x03v=1\x03h=\xff"),
        "port": announcement(secrets.token_hex(8), good_text(), port=0),
        "addresses": announcement(
            secrets.token_hex(8), good_text(), addresses=tuple(f"10.0.{n}.1" for n in range(40))
        ),
        "another_network": announcement(secrets.token_hex(8), good_text()),
        "not UTF-8": announcement("\xff\xfe" * 8, good_text()),
        "a label of dots": announcement("." * 8, good_text()),
        "an instance that is nowhere": packet(answer(SERVICE, 12, labels(instance(node)))),
        "a service that is its own instance": packet(answer(SERVICE, 12, labels(SERVICE))),
        "a pointer to itself": packet(
            b"\xc0\x0c" + struct.pack("!HHIH", 12, 1, 9, 2) + b"\xc0\x0c"
        ),
        "cut short": announcement(secrets.token_hex(8), good_text())[:-7],
        "huge": packet(*[answer(SERVICE, 16, b"\xff" * 255)] * 30),
        "noise": secrets.token_bytes(500),
        "empty": b"",
    }


async def test_hostile_packets_are_ignored_and_counted(start: Start) -> None:
    one = await start("127.0.0.61")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        attacker.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.66")
        )
        attacker.bind(("127.0.0.66", 0))
        packets = hostile_packets()
        for each in packets.values():
            attacker.sendto(each, GROUP)
    causes = {"name", "text", "version", "tag", "port", "addresses", "another_network"}
    assert causes < packets.keys()
    await one.until("counts", lambda counts: causes <= counts.keys())
    two = await start("127.0.0.62")
    await one.hint_of(two)
    assert [hint["node"] for hint in await one.ask("known")] == [two.node]


async def test_a_flood_of_names_is_bounded(start: Start) -> None:
    one = await start("127.0.0.61")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        attacker.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.66")
        )
        attacker.bind(("127.0.0.66", 0))
        for _ in range(60):
            nowhere = [
                answer(SERVICE, 12, labels(instance(secrets.token_hex(8)))) for _ in range(40)
            ]
            attacker.sendto(packet(*nowhere), GROUP)
    await one.until("counts", lambda counts: counts.get("too_many_queries", 0) > 0)
    two = await start("127.0.0.62")
    await one.hint_of(two)


# ---- real interfaces


def run(host: Host, bind: str, node: str, *, port: int = 55556) -> Running:
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-X", "dev", "-W", "error", AGENT, bind, node, str(port), "key"]
    process = host.start(argv, env=path)
    process.wait_for_line("ready", LIMIT)
    return process


def hint_of(process: Running, node: str) -> dict[str, Any]:
    line = process.wait_for_line(rf'^{{"hint".*"{node}".*$', LIMIT)
    hint: dict[str, Any] = json.loads(line[0])["hint"]
    return hint


def nodes(count: int) -> list[str]:
    return [secrets.token_hex(8) for _ in range(count)]


@pytest.mark.parametrize("lab", [2], indirect=True)
def test_virtualbox_machines_are_told_apart_by_their_host_only_address(lab: Lab) -> None:
    one, two = nodes(2)
    here, there = (
        run(host, "0.0.0.0/0", node) for host, node in zip(lab.hosts, (one, two), strict=True)
    )
    # Both also announce 10.0.2.15, where each would only meet itself.
    assert hint_of(here, two)["addresses"] == ["192.168.56.102"]
    assert hint_of(there, one)["addresses"] == ["192.168.56.101"]


@pytest.mark.parametrize("lab", [2], indirect=True)
def test_an_address_others_have_too_comes_last(lab: Lab) -> None:
    one, two = nodes(2)
    here = run(lab.hosts[0], "eth1", one)
    run(lab.hosts[1], "0.0.0.0/0", two)
    assert hint_of(here, two)["addresses"] == ["192.168.56.102", "10.0.2.15"]


@pytest.mark.parametrize("lab", [2], indirect=True)
def test_interfaces_that_were_not_chosen_hear_nothing(lab: Lab) -> None:
    chosen, far = nodes(2)
    with lab.hosts[0].capture("eth0") as unchosen, lab.hosts[0].capture("eth1") as wire:
        here = run(lab.hosts[0], "eth1", chosen)
        run(lab.hosts[1], "eth1", far)
        hint_of(here, far)
    assert wire.contains_run(b"\x05_arke\x04_tcp", 11)
    assert not unchosen.contains_run(b"\x05_arke\x04_tcp", 11)


HOLD_THE_PORT = """
import signal, socket
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held.bind(("", 5353))
print("held", flush=True)
signal.pause()
"""


@pytest.mark.parametrize("lab", [2], indirect=True)
def test_without_multicast_a_relay_says_so_once_and_goes_on(lab: Lab) -> None:
    host, other = lab.hosts
    holder = host.start([sys.executable, "-c", HOLD_THE_PORT])
    holder.wait_for_line("held", LIMIT)
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, AGENT, "eth1", nodes(1)[0], "55556", "key", "0.01"]
    alone = host.start(argv, env=path)
    alone.wait_for_line("mdns is off.*Address already in use", LIMIT)
    alone.wait_for_line("ready", LIMIT)
    alone.signal(signal.SIGUSR1)
    alone.wait_for_line("searched", LIMIT)
    # Once the port is free it works, without a word from anybody.
    holder.kill()
    two = nodes(1)[0]
    run(other, "eth1", two)
    hint_of(alone, two)
    alone.terminate()
    assert alone.wait(LIMIT) == 0
    assert alone.log.count("mdns is off") == 1


@pytest.mark.parametrize("lab", [1], indirect=True)
def test_an_interface_that_goes_down_harms_nobody(lab: Lab) -> None:
    (host,) = lab.hosts
    alone = run(host, "eth1", nodes(1)[0])
    host.run(["ip", "link", "set", "eth1", "down"])
    alone.signal(signal.SIGUSR1)
    alone.wait_for_line("searched", LIMIT)
    host.run(["ip", "link", "set", "eth1", "up"])
    alone.terminate()
    assert alone.wait(LIMIT) == 0
    assert len(alone.log.splitlines()) == 3
