"""Whoever connects to a relay's ports without belonging there: shown out, at nobody's cost."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import arke
from arke.wire.limits import MAX_HELLO
from arke.wire.messages import MAGIC, VERSION, Op
from support.raw_program import packed, raw_program
from support.relay_status import wait_for_members
from support.relays import Relays
from support.traffic import Traffic, echo_service
from support.waiting import LIMIT

pytestmark = pytest.mark.alone

MIB = 1024 * 1024
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset

SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
GREETING = SIGNATURE + b"\x03\x00CURVE" + bytes(15) + b"\x00" + bytes(31)
HUGE = (2**63 - 1).to_bytes(8)


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """As many as the system allows, for thousands of strangers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Stranger(asyncio.Protocol):
    """Says one thing, listens, and waits to be shown out."""

    def __init__(self, word: bytes) -> None:
        self.heard = b""
        self.out: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._word = word

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._word)

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, error: Exception | None) -> None:
        self.out.set_result(None)


async def strangers(where: tuple[str, int], word: bytes, count: int = 1) -> list[Stranger]:
    loop = asyncio.get_running_loop()
    made = []
    for _ in range(count):
        _, stranger = await loop.create_connection(lambda: Stranger(word), *where)
        made.append(stranger)
    return made


async def shown_out(crowd: Sequence[Stranger]) -> None:
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*(stranger.out for stranger in crowd))


NESTED = b"\x91" + b"\xdd\x00\x01\x00\x00" * 500  # each an array of 65 536
ANNOUNCED = b"\x94\x01\xc6\x01\x00\x00\x00"  # a hello whose magic has 16 MiB

PROGRAM_WORDS = {
    "nothing": b"",
    "one octet of a hello": b"\x94",
    "half a hello": packed([Op.HELLO, MAGIC, VERSION, "half"])[:6],
    "a hello of 16 MiB": ANNOUNCED,
    "a hello that is too long": packed([Op.HELLO, MAGIC, VERSION, "x" * MAX_HELLO]),
    "another magic": packed([Op.HELLO, "iris", VERSION, "x"]),
    "another version": packed([Op.HELLO, MAGIC, VERSION + 1, "x"]),
    "a name that is none": packed([Op.HELLO, MAGIC, VERSION, 7]),
    "a hello without a name": packed([Op.HELLO, MAGIC, VERSION]),
    "a call before any hello": packed([Op.REQUEST, 1, "echo", b"", 1000, False, None]),
    "a cast before any hello": packed([Op.PUBLISH, "t", b"", None]),
    "a registration before any hello": packed([Op.REGISTER, "echo", None]),
    "a request for status before any hello": packed([Op.STATUS, 1]),
    "arrays in arrays": NESTED,
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "ZMTP": GREETING,
    "zeros": bytes(100_000),
}
PEER_WORDS = {
    "nothing": b"",
    "one octet": b"\xff",
    "half a greeting": GREETING[:20],
    "a greeting": GREETING,
    "a frame of nine exabytes": GREETING + b"\x02" + HUGE,
    "a command of nine exabytes": GREETING + b"\x06" + HUGE,
    "a frame over the bound": GREETING + b"\x02" + (128 * 1024 + 1).to_bytes(8) + bytes(1000),
    "half a frame within the bound": GREETING + b"\x06" + (8 * 1024).to_bytes(8) + bytes(1000),
    "a message before the handshake": GREETING + b"\x00\x05hello",
    "a handshake of zeros": GREETING + b"\x04\xc8\x05HELLO" + bytes(194),
    "READY, as without encryption": GREETING
    + b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH",
    "a greeting of the NULL mechanism": GREETING.replace(b"CURVE", b"NULL\x00"),
    "ZMTP 1.0": b"\x01\x00" + b"\x06\x00hello",
    "ZMTP 2.0": SIGNATURE + b"\x01\x08\x00\x00" + b"\x00\x05hello",
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a hello of a program": packed([Op.HELLO, MAGIC, VERSION, "lost"]),
    "zeros": bytes(100_000),
}


async def test_who_says_no_proper_hello_is_shown_out(relays: Relays) -> None:
    relay = relays.start()
    async with echo_service("echo", relay.port), arke.connect(port=relay.port) as mesh:
        async with Traffic("echo", [mesh]) as traffic:
            where = ("127.0.0.1", relay.port)
            crowd = [one for word in PROGRAM_WORDS.values() for one in await strangers(where, word)]
            await shown_out(crowd)
            await traffic.wait_for_replies()
        assert (await mesh.status())["programs"] == 2
    assert relay.process.log.count("program rejected") <= 2  # one line in ten seconds


async def test_who_does_not_speak_as_a_peer_is_shown_out_of_the_peer_ports(relays: Relays) -> None:
    one, other = relays.start_pair()
    async with echo_service("echo", other.port), arke.connect(port=one.port) as mesh:
        await wait_for_members(mesh, "echo", 1)
        async with Traffic("echo", [mesh]) as traffic:
            crowd = [
                stranger
                for word in PEER_WORDS.values()
                for port in (one.peer_port, one.peer_port + 1)
                for stranger in await strangers((one.address, port), word)
            ]
            await shown_out(crowd)
            await traffic.wait_for_replies()
        # libzmq says its own greeting to everybody, and nothing after that.
        assert max(len(stranger.heard) for stranger in crowd) <= len(GREETING)
        assert len((await mesh.status())["peers"]) == 1


async def test_a_port_scanner_leaves_no_trace(relays: Relays) -> None:
    one, other = relays.start_pair()
    async with echo_service("echo", other.port), arke.connect(port=one.port) as mesh:
        await wait_for_members(mesh, "echo", 1)
        async with Traffic("echo", [mesh]) as traffic:
            doors = [
                (one.address, one.peer_port),
                (one.address, one.peer_port + 1),
                ("127.0.0.1", one.port),
            ]
            for door in doors * 100:
                for linger in (None, RESET):
                    with socket.create_connection(door, LIMIT) as scanner:
                        if linger:
                            scanner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                await asyncio.sleep(0)
            await traffic.wait_for_replies()
        assert one.process.running
    for relay in (one, other):
        assert relay.process.log.count("peer lost") == 0
        assert len(relay.process.log.splitlines()) < 20


async def test_two_thousand_half_open_strangers_and_thirty_loud_ones(relays: Relays) -> None:
    one, other = relays.start_pair()
    async with (
        echo_service("near", one.port),
        echo_service("far", other.port),
        arke.connect(port=one.port) as mesh,
    ):
        await wait_for_members(mesh, "far", 1)
        async with Traffic("near", [mesh] * 4) as traffic, Traffic("far", [mesh] * 4) as across:
            await traffic.wait_for_replies(500)
            before = most = one.memory
            crowd = []
            for port in (one.peer_port, one.peer_port + 1):
                crowd += await strangers((one.address, port), GREETING, 1_000)
            door = ("127.0.0.1", one.port)
            crowd += await strangers(door, ANNOUNCED, 20)
            crowd += await strangers(door, NESTED, 10)
            gone = asyncio.ensure_future(shown_out(crowd))
            while not gone.done():
                await traffic.wait_for_replies()
                await across.wait_for_replies()
                most = max(most, one.memory)
            await gone
    assert most - before < 50 * MIB
    for relay in (one, other):
        assert relay.process.log.count("peer lost") == 0


async def test_silent_connections_keep_no_program_out(relays: Relays) -> None:
    relay = relays.start()
    crowd = await strangers(("127.0.0.1", relay.port), b"", 2_000)
    async with raw_program(relay.port, "honest") as program:
        await program.wait_until_processed()
    await shown_out(crowd)


async def test_programs_attach_when_strangers_hold_all_other_descriptors(relays: Relays) -> None:
    relay = relays.start()
    pid = relay.process.machine_pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    assert soft < hard  # the difference is for programs alone
    most = 512
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))

    def numbers() -> list[int]:
        return [int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()]

    crowd: list[Stranger] = []
    async with AsyncExitStack() as programs, asyncio.timeout(LIMIT):
        # The lowest free number is taken: a higher one says that all under it were in use.
        while max(numbers()) < most:
            while len(numbers()) < most:
                crowd += await strangers((relay.address, relay.peer_port), GREETING, 50)
            await programs.enter_async_context(raw_program(relay.port, "program"))
    await shown_out(crowd)
    friend = relays.start(join=[relay])
    friend.process.wait_for_line("peer linked", LIMIT)
