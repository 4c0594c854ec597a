"""Unauthenticated clients on a relay's ports are disconnected and affect no other client."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from collections.abc import Sequence
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

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("raised_descriptor_limit")]

MIB = 1024 * 1024
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset

SIGNATURE = b"\xff" + bytes(8) + b"\x7f"
GREETING = SIGNATURE + b"\x03\x00CURVE" + bytes(15) + b"\x00" + bytes(31)
HUGE = (2**63 - 1).to_bytes(8)


class UnauthenticatedClient(asyncio.Protocol):
    """Send one payload, record what is received, and wait until the relay disconnects it."""

    def __init__(self, payload: bytes) -> None:
        self.received = b""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._payload = payload

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._payload)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set_result(None)


async def connect_clients(
    where: tuple[str, int], payload: bytes, count: int = 1
) -> list[UnauthenticatedClient]:
    loop = asyncio.get_running_loop()
    made = []
    for _ in range(count):
        _, client = await loop.create_connection(lambda: UnauthenticatedClient(payload), *where)
        made.append(client)
    return made


async def wait_until_closed(clients: Sequence[UnauthenticatedClient]) -> None:
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*(client.closed for client in clients))


NESTED = b"\x91" + b"\xdd\x00\x01\x00\x00" * 500  # nested arrays of 65 536 elements
OVERSIZED_HELLO = b"\x94\x01\xc6\x01\x00\x00\x00"  # a HELLO whose magic is announced as 16 MiB

PROGRAM_PAYLOADS = {
    "nothing": b"",
    "one byte of a HELLO": b"\x94",
    "half a HELLO": packed([Op.HELLO, MAGIC, VERSION, "half"])[:6],
    "a HELLO of 16 MiB": OVERSIZED_HELLO,
    "a HELLO that is too long": packed([Op.HELLO, MAGIC, VERSION, "x" * MAX_HELLO]),
    "another magic": packed([Op.HELLO, "iris", VERSION, "x"]),
    "another version": packed([Op.HELLO, MAGIC, VERSION + 1, "x"]),
    "a name that is not text": packed([Op.HELLO, MAGIC, VERSION, 7]),
    "a HELLO without a name": packed([Op.HELLO, MAGIC, VERSION]),
    "a request before HELLO": packed([Op.REQUEST, 1, "echo", b"", 1000, False, None]),
    "a publication before HELLO": packed([Op.PUBLISH, "t", b"", None]),
    "a registration before HELLO": packed([Op.REGISTER, "echo", None]),
    "a status request before HELLO": packed([Op.STATUS, 1]),
    "arrays in arrays": NESTED,
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "ZMTP": GREETING,
    "zeros": bytes(100_000),
}
PEER_PAYLOADS = {
    "nothing": b"",
    "one byte": b"\xff",
    "half a greeting": GREETING[:20],
    "a greeting": GREETING,
    "a frame of nine exabytes": GREETING + b"\x02" + HUGE,
    "a command of nine exabytes": GREETING + b"\x06" + HUGE,
    "a frame over the size limit": GREETING + b"\x02" + (128 * 1024 + 1).to_bytes(8) + bytes(1000),
    "half a frame within the size limit": GREETING + b"\x06" + (8 * 1024).to_bytes(8) + bytes(1000),
    "a message before the handshake": GREETING + b"\x00\x05hello",
    "a handshake of zeros": GREETING + b"\x04\xc8\x05HELLO" + bytes(194),
    "READY, as without encryption": GREETING
    + b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH",
    "a greeting of the NULL mechanism": GREETING.replace(b"CURVE", b"NULL\x00"),
    "ZMTP 1.0": b"\x01\x00" + b"\x06\x00hello",
    "ZMTP 2.0": SIGNATURE + b"\x01\x08\x00\x00" + b"\x00\x05hello",
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a program's HELLO": packed([Op.HELLO, MAGIC, VERSION, "lost"]),
    "zeros": bytes(100_000),
}


async def test_client_without_a_valid_hello_is_disconnected(relays: Relays) -> None:
    relay = relays.start()
    async with echo_service("echo", relay.port), arke.connect(port=relay.port) as mesh:
        async with Traffic("echo", [mesh]) as traffic:
            where = ("127.0.0.1", relay.port)
            clients = [
                one
                for payload in PROGRAM_PAYLOADS.values()
                for one in await connect_clients(where, payload)
            ]
            await wait_until_closed(clients)
            await traffic.wait_for_replies()
        assert (await mesh.status())["programs"] == 2
    assert relay.process.log.count("program rejected") <= 2  # one line in ten seconds


async def test_peer_ports_disconnect_clients_that_are_not_peers(relays: Relays) -> None:
    one, other = relays.start_pair()
    async with echo_service("echo", other.port), arke.connect(port=one.port) as mesh:
        await wait_for_members(mesh, "echo", 1)
        async with Traffic("echo", [mesh]) as traffic:
            clients = [
                client
                for payload in PEER_PAYLOADS.values()
                for port in (one.peer_port, one.peer_port + 1)
                for client in await connect_clients((one.address, port), payload)
            ]
            await wait_until_closed(clients)
            await traffic.wait_for_replies()
        # libzmq sends its greeting to every connection, and nothing else before the handshake.
        assert max(len(client.received) for client in clients) <= len(GREETING)
        assert len((await mesh.status())["peers"]) == 1


async def test_port_scans_do_not_disturb_the_relay_or_its_log(relays: Relays) -> None:
    one, other = relays.start_pair()
    async with echo_service("echo", other.port), arke.connect(port=one.port) as mesh:
        await wait_for_members(mesh, "echo", 1)
        async with Traffic("echo", [mesh]) as traffic:
            addresses = [
                (one.address, one.peer_port),
                (one.address, one.peer_port + 1),
                ("127.0.0.1", one.port),
            ]
            for address in addresses * 100:
                for linger in (None, RESET):
                    with socket.create_connection(address, LIMIT) as scanner:
                        if linger:
                            scanner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                await asyncio.sleep(0)
            await traffic.wait_for_replies()
        assert one.process.running
    for relay in (one, other):
        assert relay.process.log.count("peer lost") == 0
        assert len(relay.process.log.splitlines()) < 20


async def test_thousands_of_unauthenticated_clients_use_bounded_memory(relays: Relays) -> None:
    one, other = relays.start_pair()
    async with (
        echo_service("near", one.port),
        echo_service("far", other.port),
        arke.connect(port=one.port) as mesh,
    ):
        await wait_for_members(mesh, "far", 1)
        async with Traffic("near", [mesh] * 4) as local, Traffic("far", [mesh] * 4) as remote:
            await local.wait_for_replies(500)
            before = most = one.memory
            clients = []
            for port in (one.peer_port, one.peer_port + 1):
                clients += await connect_clients((one.address, port), GREETING, 1_000)
            address = ("127.0.0.1", one.port)
            clients += await connect_clients(address, OVERSIZED_HELLO, 20)
            clients += await connect_clients(address, NESTED, 10)
            disconnected = asyncio.ensure_future(wait_until_closed(clients))
            while not disconnected.done():
                await local.wait_for_replies()
                await remote.wait_for_replies()
                most = max(most, one.memory)
            await disconnected
    assert most - before < 50 * MIB
    for relay in (one, other):
        assert relay.process.log.count("peer lost") == 0


async def test_silent_connections_do_not_block_programs(relays: Relays) -> None:
    relay = relays.start()
    clients = await connect_clients(("127.0.0.1", relay.port), b"", 2_000)
    async with raw_program(relay.port, "valid") as program:
        await program.wait_until_processed()
    await wait_until_closed(clients)


async def test_programs_attach_when_unauthenticated_clients_hold_all_descriptors(
    relays: Relays,
) -> None:
    relay = relays.start()
    pid = relay.process.machine_pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    assert soft < hard  # the relay reserves the difference for programs
    most = 512
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, hard))

    def numbers() -> list[int]:
        return [int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()]

    clients: list[UnauthenticatedClient] = []
    async with AsyncExitStack() as programs, asyncio.timeout(LIMIT):
        # The kernel assigns the lowest free descriptor, so `most` in use means none below is free.
        while max(numbers()) < most:
            while len(numbers()) < most:
                clients += await connect_clients((relay.address, relay.peer_port), GREETING, 50)
            await programs.enter_async_context(raw_program(relay.port, "program"))
    await wait_until_closed(clients)
    friend = relays.start(join=[relay])
    friend.process.wait_for_line("peer linked", LIMIT)
