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

LIMIT = 20.0  # seconds; an upper limit: every wait ends as soon as its event happens
AGENT = Path(__file__).parents[1] / "support" / "mdns_agent.py"
GROUP = ("224.0.0.251", 5353)


class Agent:
    """A process that runs the relay's mDNS; any output on stderr fails the test."""

    def __init__(self, bind: str, secret: str, *more: str, port: int = 4000) -> None:
        self.node = secrets.token_hex(8)
        self._argv = [bind, self.node, str(port), secret, *more]
        self._reports: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        # In development mode an unawaited coroutine or an unclosed socket is a warning.
        self._process: Process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "error", AGENT, *self._argv),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        await self.wait_for_report("ready")
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._process.returncode is None:
            self.send_command("stop")
        _, errors = await asyncio.wait_for(self._process.communicate(), LIMIT)
        assert errors.decode() == ""

    def send_command(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{' '.join(words)}\n".encode())

    async def stop(self) -> None:
        self.send_command("stop")
        await asyncio.wait_for(self._process.wait(), LIMIT)

    def kill(self) -> None:
        self._process.kill()

    async def wait_for_report(self, kind: str, wanted: Callable[[Any], bool] = bool) -> Any:
        """Return the first matching report of this kind, received before or now."""
        for at, report in enumerate(self._reports):
            if kind in report and wanted(report[kind]):
                return self._reports.pop(at)[kind]
        assert self._process.stdout is not None
        async with asyncio.timeout(LIMIT):
            while line := await self._process.stdout.readline():
                report = json.loads(line)
                if kind in report and wanted(report[kind]):
                    return report[kind]
                self._reports.append(report)
        raise AssertionError(f"{self.node} ended before it reported {kind}")

    async def hint_of(self, other: Agent) -> dict[str, Any]:
        hint: dict[str, Any] = await self.wait_for_report(
            "hint", lambda hint: hint["node"] == other.node
        )
        return hint

    def unread_reports(self, kind: str) -> list[Any]:
        """Return the reports of this kind that no call has returned yet."""
        return [report[kind] for report in self._reports if kind in report]

    async def query(self, kind: str) -> Any:
        self.send_command(kind)
        return await self.wait_for_report(kind, lambda _: True)

    async def wait_until(self, kind: str, wanted: Callable[[Any], bool]) -> None:
        async with asyncio.timeout(LIMIT):
            while not wanted(await self.query(kind)):
                pass


Start = Callable[..., Awaitable[Agent]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as agents:

        async def start(bind: str, *more: str, secret: str = "", port: int = 4000) -> Agent:
            agent = Agent(bind, secret or network, *more, port=port)
            return await agents.enter_async_context(agent)

        # Other relays may use this machine's loopback interface at the same time.
        network = secrets.token_hex(8)
        yield start


async def test_two_relays_on_one_machine_discover_each_other(start: Start) -> None:
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


async def test_three_relays_on_one_machine_discover_each_other(start: Start) -> None:
    agents = [await start(f"127.0.0.{61 + n}") for n in range(3)]
    for one in agents:
        for other in agents:
            if one is not other:
                await one.hint_of(other)
    assert len(await agents[0].query("known")) == 2


async def test_goodbye_removes_the_relay(start: Start) -> None:
    one = await start("127.0.0.61")
    two = await start("127.0.0.62")
    await one.hint_of(two)
    await two.stop()
    await one.wait_until("known", lambda known: known == [])
    # No announcement follows the goodbye.
    three = await start("127.0.0.63")
    await one.hint_of(three)
    assert one.unread_reports("hint") == []


async def test_killed_relay_without_goodbye_stays_known(start: Start) -> None:
    one = await start("127.0.0.61")
    two = await start("127.0.0.62")
    await one.hint_of(two)
    two.kill()
    three = await start("127.0.0.62")
    await one.hint_of(three)
    assert {hint["node"] for hint in await one.query("known")} == {two.node, three.node}


async def test_changed_address_is_reported_and_unchanged_ones_are_not(start: Start) -> None:
    one = await start("127.0.0.61")
    two = await start("127.0.0.62")
    await one.hint_of(two)
    one.send_command("search")
    await one.wait_for_report("searched")
    two.send_command("use", "127.0.0.63")
    await two.wait_for_report("using")
    assert (await one.hint_of(two))["addresses"] == ["127.0.0.63"]


async def test_relays_with_another_key_are_not_reported(start: Start) -> None:
    one = await start("127.0.0.61")
    outsider = await start("127.0.0.62", secret="another key")
    two = await start("127.0.0.63")
    await one.hint_of(two)
    await one.wait_until("counts", lambda counts: counts.get("another_network", 0) > 0)
    assert [hint["node"] for hint in await one.query("known")] == [two.node]
    await outsider.wait_until("counts", lambda counts: counts.get("another_network", 0) > 0)
    assert await outsider.query("known") == []


class Listener(asyncio.DatagramProtocol):
    """Record the first query of each series: only that one requests a unicast response."""

    def __init__(self) -> None:
        self.senders: asyncio.Queue[str] = asyncio.Queue()

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        end = 12 + len(labels(SERVICE))
        unicast_requested = struct.pack("!HH", 12, 0x8001)
        if data[12:end] == labels(SERVICE) and data[end : end + 4] == unicast_requested:
            self.senders.put_nowait(address[0])


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


async def wait_for_query_series(listener: Listener, sender: str) -> None:
    async with asyncio.timeout(LIMIT):
        while await listener.senders.get() != sender:
            pass


async def test_search_sends_a_new_query_series(start: Start, listener: Listener) -> None:
    one = await start("127.0.0.64")
    await wait_for_query_series(listener, "127.0.0.64")
    one.send_command("search")
    await wait_for_query_series(listener, "127.0.0.64")


async def test_searches_repeat_periodically(start: Start, listener: Listener) -> None:
    await start("127.0.0.65", "0.1")
    for _ in range(3):
        await wait_for_query_series(listener, "127.0.0.65")


# ---- malformed and hostile packets


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
        "an instance without an address": packet(answer(SERVICE, 12, labels(instance(node)))),
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
    await one.wait_until("counts", lambda counts: causes <= counts.keys())
    two = await start("127.0.0.62")
    await one.hint_of(two)
    assert [hint["node"] for hint in await one.query("known")] == [two.node]


async def test_flood_of_instance_names_uses_bounded_memory(start: Start) -> None:
    one = await start("127.0.0.61")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        attacker.setsockopt(
            socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.66")
        )
        attacker.bind(("127.0.0.66", 0))
        for _ in range(60):
            unresolvable = [
                answer(SERVICE, 12, labels(instance(secrets.token_hex(8)))) for _ in range(40)
            ]
            attacker.sendto(packet(*unresolvable), GROUP)
    await one.wait_until("counts", lambda counts: counts.get("too_many_queries", 0) > 0)
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
def test_virtualbox_machines_are_identified_by_their_host_only_address(lab: Lab) -> None:
    one, two = nodes(2)
    here, there = (
        run(host, "0.0.0.0/0", node) for host, node in zip(lab.hosts, (one, two), strict=True)
    )
    # Both also announce 10.0.2.15, which is the receiver's own address.
    assert hint_of(here, two)["addresses"] == ["192.168.56.102"]
    assert hint_of(there, one)["addresses"] == ["192.168.56.101"]


@pytest.mark.parametrize("lab", [2], indirect=True)
def test_address_outside_the_bound_subnet_is_ignored(lab: Lab) -> None:
    one, two = nodes(2)
    here = run(lab.hosts[0], "eth1", one)
    run(lab.hosts[1], "0.0.0.0/0", two)  # it announces 10.0.2.15 of eth0 too
    assert hint_of(here, two)["addresses"] == ["192.168.56.102"]


@pytest.mark.parametrize("lab", [2], indirect=True)
def test_mdns_is_sent_only_on_the_bound_interface(lab: Lab) -> None:
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
def test_unavailable_mdns_port_is_logged_once_and_retried(lab: Lab) -> None:
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
    # mDNS recovers by itself once the port is free.
    holder.kill()
    two = nodes(1)[0]
    run(other, "eth1", two)
    hint_of(alone, two)
    alone.terminate()
    assert alone.wait(LIMIT) == 0
    assert alone.log.count("mdns is off") == 1


@pytest.mark.parametrize("lab", [1], indirect=True)
def test_interface_that_goes_down_causes_no_error(lab: Lab) -> None:
    (host,) = lab.hosts
    alone = run(host, "eth1", nodes(1)[0])
    host.run(["ip", "link", "set", "eth1", "down"])
    alone.signal(signal.SIGUSR1)
    alone.wait_for_line("searched", LIMIT)
    host.run(["ip", "link", "set", "eth1", "up"])
    alone.terminate()
    assert alone.wait(LIMIT) == 0
    assert len(alone.log.splitlines()) == 3
