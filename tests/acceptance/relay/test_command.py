"""The running `relay` command: flags, environment, Unix socket, log and shutdown."""

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

OTHER_USER = 65534


@pytest.fixture
def run() -> Iterator[Callable[..., Process]]:
    """Start relays with the plain command."""
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
def shared_folder() -> Iterator[Path]:
    """A folder that every user may read."""
    folder = Path(tempfile.mkdtemp(prefix="arke-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


async def test_flags_are_also_read_from_the_environment(
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
        ARKE_BIND="overridden by the flag",
    )
    process.wait_for_line("relay started", LIMIT)
    await wait_for_peers(Relay(process, port, "127.87.87.87", 55556), [seed])


async def test_commands_printed_by_dev_mode_work(run: Callable[..., Process]) -> None:
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


async def test_port_zero_serves_programs_on_the_socket_only(
    relays: Relays, shared_folder: Path
) -> None:
    path = shared_folder / "relay.sock"
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
def as_other_user() -> Iterator[None]:
    """Run as another effective user, which the peer of a Unix socket also sees."""
    needs.require_root("run as another user")
    os.seteuid(OTHER_USER)
    try:
        yield
    finally:
        os.seteuid(0)


def test_socket_rejects_another_user(relays: Relays, shared_folder: Path) -> None:
    path = shared_folder / "relay.sock"
    relay = relays.start("-socket", path)
    with socket.socket(socket.AF_UNIX) as client:
        with as_other_user(), pytest.raises(PermissionError):
            client.connect(str(path))
        path.chmod(0o666)  # the relay checks the peer credentials, not only the file mode
        client.settimeout(LIMIT)
        with as_other_user():
            client.connect(str(path))
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""
    relay.process.wait_for_line(
        f"program rejected reason=user_not_allowed user={OTHER_USER}", LIMIT
    )


async def test_stale_socket_of_a_killed_relay_is_replaced(
    relays: Relays, shared_folder: Path
) -> None:
    path = shared_folder / "relay.sock"
    killed = relays.start("-socket", path)
    killed.process.kill()
    killed.process.wait(LIMIT)
    assert path.is_socket()
    relays.start("-socket", path)
    async with arke.connect(path=path) as mesh:
        assert mesh.node.network == relays.network


async def test_socket_in_use_by_another_relay_is_not_replaced(
    relays: Relays, shared_folder: Path
) -> None:
    path = shared_folder / "relay.sock"
    relays.start("-socket", path)
    with pytest.raises(LabError, match=r"cannot listen .*\(Address already in use\): choose"):
        relays.start("-socket", path)
    async with arke.connect(path=path) as mesh:
        assert mesh.node.network == relays.network


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_drains_requests_and_exits_with_status_zero(
    relays: Relays, number: signal.Signals
) -> None:
    relay = relays.start()
    service = arke.Service("slow", port=relay.port)
    started, release = asyncio.Event(), asyncio.Event()

    @service.on_request
    async def answer(received: arke.Request) -> bytes:
        started.set()
        await release.wait()
        return b"done"

    async with service, arke.connect(port=relay.port) as mesh:
        request = asyncio.ensure_future(mesh.request("slow", b"", timeout=LIMIT))
        await started.wait()
        relay.process.signal(number)
        await asyncio.to_thread(relay.process.wait_for_line, "relay draining requests=1", LIMIT)
        assert relay.process.running
        release.set()
        assert await request == b"done"
        assert await asyncio.to_thread(relay.process.wait, LIMIT) == 0
    assert relay.process.log.splitlines()[-1].endswith("relay stopped")


async def test_json_log_has_one_object_per_line_for_hostile_names(relays: Relays) -> None:
    seed = relays.start()
    relay = relays.start("-log-format", "json", join=[seed])
    relay.process.wait_for_line("peer linked", LIMIT)
    name = 'x"}\n{"level": "error", "message": "forged"}\n'
    async with raw_program(relay.port, name) as program:
        await program.send(b"\xc1")
        await program.wait_until_closed()
    with socket.create_connection(("127.0.0.1", relay.port)) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        client.settimeout(LIMIT)
        with suppress(ConnectionResetError):
            assert client.recv(100) == b""
    relay.process.terminate()
    assert relay.process.wait(LIMIT) == 0
    lines = [json.loads(line) for line in relay.process.log.splitlines()]
    for line in lines:
        assert {"time", "level", "message"} <= line.keys()
    by_message = {line["message"]: line for line in lines}
    assert {"relay started", "peer admitted", "peer linked", "relay stopped"} <= by_message.keys()
    assert by_message["program attached"]["program"] == f"{name}#1"
    assert "forged" not in by_message
    assert by_message["program rejected"]["level"] == "info"
