"""The `relay` command while it runs: where its flags come from, its socket, its log, its end."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import arke
from lab import LabError, Process
from support import needs
from support.ports import free_port
from support.processes import start_process
from support.programs import program
from support.raw_program import raw_program
from support.relay_status import wait_for_peers
from support.relays import Relay, Relays
from support.waiting import LIMIT

NOBODY = 65534


@pytest.fixture
def run() -> Iterator[Callable[..., Process]]:
    """Start relays by their bare command."""
    running: list[Process] = []

    def command(*flags: str | Path, **environ: str) -> Process:
        running.append(start_process("relay", [*program("relay"), *flags], **environ))
        return running[-1]

    yield command
    for process in running:
        if process.running:
            process.terminate()
        process.wait(LIMIT)
        print(process.tail())  # noqa: T201 — shown for a test that failed
        process.close()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may look into."""
    folder = Path(tempfile.mkdtemp(prefix="arke-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_flags_come_from_the_environment_as_well(
    relays: Relays, run: Callable[..., Process]
) -> None:
    seed = relays.start()
    process = run(
        *("-bind", "127.87.87.87"),
        ARKE_NET=relays.network,
        ARKE_RSA=f"{relays.key},{relays.new_key()}",
        ARKE_PORT=str(port := free_port()),
        ARKE_JOIN=seed.join,
        ARKE_MDNS="off",
        ARKE_BIND="the line wins",
    )
    process.wait_for_line("relay started", LIMIT)
    await wait_for_peers(Relay(process, port, "127.87.87.87", 55556), [seed])


async def test_the_commands_that_dev_prints_work(run: Callable[..., Process]) -> None:
    port = free_port()
    first = run("-dev", "-bind", "127.87.87.1", "-port", str(port), "-peer-port", "45556")
    line = first.wait_for_line("^relay -net .*$", LIMIT)[0]
    assert f"-port {port + 10} -peer-port 45566 -join 127.87.87.1:45556" in line
    service, caller, far_caller = (
        shlex.split(first.wait_for_line(pattern, LIMIT)[0])[1:]
        for pattern in (
            "^arke serve .*$",
            f"^arke request .* -port {port}$",
            f"^arke request .* -port {port + 10}$",
        )
    )
    first.wait_for_line("relay started", LIMIT)
    words = shlex.split(line)[1:]
    key = Path(words[words.index("-rsa") + 1])
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    second = run(*words)
    for process in (first, second):
        process.wait_for_line("peer linked", LIMIT)
    member = start_process("service", [*program("arke"), *service])
    first.wait_for_line("program registered", LIMIT)
    async with arke.connect(port=port + 10) as mesh:
        assert await mesh.request("greeter", b"hello", timeout=LIMIT) == b"olleh"
    for command in (caller, far_caller):
        done = start_process("caller", [*program("arke"), *command])
        assert done.wait(LIMIT) == 0
        assert "olleh" in done.log
        done.close()
    member.terminate()
    assert member.wait(LIMIT) == 0
    member.close()
    first.terminate()
    assert first.wait(LIMIT) == 0
    assert not key.exists()


async def test_a_socket_serves_programs_and_no_port_does(relays: Relays, shared: Path) -> None:
    path = shared / "relay.sock"
    relay = relays.start("-port", "0", "-socket", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(arke.RelayUnreachable):
        await arke.connect(port=relay.port, wait=0.1).__aenter__()
    service = arke.Service("echo", path=path)

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        return request.body

    async with service, arke.connect(path=path) as mesh:
        assert await mesh.request("echo", bytes(100_000)) == bytes(100_000)
    relay.process.terminate()
    assert relay.process.wait(LIMIT) == 0
    assert not path.exists()


@contextmanager
def somebody_else() -> Iterator[None]:
    """Be another user for a moment, to the kernel as well as to whom one connects to."""
    needs.require_root("be another user for a moment")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_another_user_is_refused_at_the_socket(relays: Relays, shared: Path) -> None:
    path = shared / "relay.sock"
    relay = relays.start("-socket", path)
    with socket.socket(socket.AF_UNIX) as stranger:
        with somebody_else(), pytest.raises(PermissionError):
            stranger.connect(str(path))
        path.chmod(0o666)  # whatever becomes of the mode: the kernel tells who it is
        stranger.settimeout(LIMIT)
        with somebody_else():
            stranger.connect(str(path))
        with suppress(ConnectionResetError):
            assert stranger.recv(100) == b""
    relay.process.wait_for_line(f"user {NOBODY} may not use this socket", LIMIT)


async def test_a_socket_that_a_killed_relay_left_behind_is_replaced(
    relays: Relays, shared: Path
) -> None:
    path = shared / "relay.sock"
    killed = relays.start("-socket", path)
    killed.process.kill()
    killed.process.wait(LIMIT)
    assert path.is_socket()
    relays.start("-socket", path)
    async with arke.connect(path=path) as mesh:
        assert mesh.node.network == relays.network


async def test_a_socket_that_a_relay_serves_is_left_alone(relays: Relays, shared: Path) -> None:
    path = shared / "relay.sock"
    relays.start("-socket", path)
    with pytest.raises(LabError, match=r"cannot listen .*\(Address already in use\): choose"):
        relays.start("-socket", path)
    async with arke.connect(path=path) as mesh:
        assert mesh.node.network == relays.network


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_it_well(relays: Relays, number: signal.Signals) -> None:
    relay = relays.start()
    service = arke.Service("slow", port=relay.port)
    asked, go = asyncio.Event(), asyncio.Event()

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        asked.set()
        await go.wait()
        return b"done"

    async with service, arke.connect(port=relay.port) as mesh:
        call = asyncio.ensure_future(mesh.request("slow", b"", timeout=LIMIT))
        await asked.wait()
        relay.process.signal(number)
        await asyncio.to_thread(relay.process.wait_for_line, "relay draining calls=1", LIMIT)
        assert relay.process.running
        go.set()
        assert await call == b"done"
        assert await asyncio.to_thread(relay.process.wait, LIMIT) == 0
    assert relay.process.log.splitlines()[-1].endswith("relay stopped")


async def test_the_log_in_json_is_one_object_a_line_whatever_others_say(relays: Relays) -> None:
    seed = relays.start()
    relay = relays.start("-log-format", "json", join=[seed])
    relay.process.wait_for_line("peer linked", LIMIT)
    name = 'x"}\n{"level": "error", "message": "forged"}\n'
    async with raw_program(relay.port, name) as program:
        await program.send(b"\xc1")
        await program.wait_until_closed()
    with socket.create_connection(("127.0.0.1", relay.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
        stranger.settimeout(LIMIT)
        with suppress(ConnectionResetError):
            assert stranger.recv(100) == b""
    relay.process.terminate()
    assert relay.process.wait(LIMIT) == 0
    lines = [json.loads(line) for line in relay.process.log.splitlines()]
    for line in lines:
        assert {"time", "level", "message"} <= line.keys()
    told = {line["message"]: line for line in lines}
    assert {"relay started", "peer admitted", "peer linked", "relay stopped"} <= told.keys()
    assert told["program attached"]["program"] == f"{name}#1"
    assert "forged" not in told
    assert told["program rejected"]["level"] == "info"
