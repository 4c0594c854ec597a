"""`Service.run` ends at SIGTERM and SIGINT, whatever its handlers do, and logs what it does."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

import arke
from lab import Process
from support.processes import start_process
from support.relay_status import wait_for_members
from support.relays import Relay
from support.waiting import LIMIT

PROGRAM = """
import asyncio, logging, sys, time
import arke

logging.basicConfig(level=logging.INFO, format="%(message)s")
kind, port, drain = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
service = arke.Service("signals", port=port, drain=drain)

def hang_in_thread(request):
    print("started", flush=True)
    time.sleep(600)

async def hang_in_loop(request):
    print("started", flush=True)
    while True:
        time.sleep(0.01)

async def hang(request):
    print("started", flush=True)
    await asyncio.sleep(600)

service.on_request({"thread": hang_in_thread, "loop": hang_in_loop, "task": hang}[kind])
service.run()
print("returned", flush=True)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "service.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return path


async def wait_until_handled(process: Process, number: signal.Signals) -> None:
    """Wait until no such signal is pending: a second one would be merged with it."""
    status = Path(f"/proc/{process.machine_pid}/status")
    while True:
        lines = dict(line.split(":", 1) for line in status.read_text("ascii").splitlines())
        pending = int(lines["SigPnd"], 16) | int(lines["ShdPnd"], 16)
        if not pending & (1 << (number - 1)):
            return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["thread", "task"])
async def test_process_ends_after_the_drain_although_a_handler_hangs(
    nodes: tuple[Relay, Relay], script: Path, kind: str
) -> None:
    process = start_process("service", (sys.executable, script, kind, str(nodes[1].port), "0.2"))
    async with arke.connect(port=nodes[1].port) as mesh, asyncio.timeout(LIMIT):
        await wait_for_members(mesh, "signals", 1)
        request = asyncio.ensure_future(mesh.request("signals", b"", timeout=LIMIT))
        await asyncio.to_thread(process.wait_for_line, "started", LIMIT)
        process.terminate()
        assert await asyncio.to_thread(process.wait, LIMIT) == 0
        with pytest.raises(arke.ArkeError):
            await request
    log = process.log
    assert "service 'signals' is serving at node " in log
    assert "service 'signals' is draining for at most 0.2 s: running requests 1, " in log
    assert "the drain ended after 0.2 s" in log
    assert "returned" in log


@pytest.mark.parametrize("kind", ["thread", "task", "loop"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
async def test_second_signal_ends_the_process_at_once(
    nodes: tuple[Relay, Relay], script: Path, kind: str, number: signal.Signals
) -> None:
    process = start_process("service", (sys.executable, script, kind, str(nodes[1].port), "600"))
    async with arke.connect(port=nodes[1].port) as mesh, asyncio.timeout(LIMIT):
        await wait_for_members(mesh, "signals", 1)
        request = asyncio.ensure_future(mesh.request("signals", b"", timeout=LIMIT))
        await asyncio.to_thread(process.wait_for_line, "started", LIMIT)
        process.signal(signal.SIGTERM)
        if kind != "loop":
            await asyncio.to_thread(process.wait_for_line, "is draining", LIMIT)
        else:
            await wait_until_handled(process, signal.SIGTERM)
        process.signal(number)
        assert await asyncio.to_thread(process.wait, LIMIT) == 128 + number
        with pytest.raises(arke.ArkeError):
            await request
    assert "ends at once, because of a second signal" in process.log
