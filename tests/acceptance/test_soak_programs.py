"""The callers of the soak test detect every kind of wrong behaviour of a member."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import arke
from lab import Process
from soak.messages import CLUSTER, PARTS, TOPIC, MessageHead, make_body, parse_head, reply_to
from support.processes import start_process
from support.programs import CHECKOUT
from support.relays import Relay, Relays
from support.waiting import LIMIT

FAULT_BY_LOG_TEXT = {
    # What a caller logs: the fault of the member that causes it.
    "the reply to": "replies to another request",
    "a reply ended with": "omits a part",
    "part ": "sends another part",
    "not the next message": "swaps messages",
    "a tunnel ended without": "omits a message",
    "event 5 of faulty_member arrived after 5": "sends an event twice",
}


def faulty_member(port: int) -> arke.Service:
    service = arke.Service(CLUSTER, port=port)
    rounds = {"parts": 0, "tunnel": 0}

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        question = parse_head(request.body)
        return reply_to(make_body(question._replace(number=question.number + 1), 16))

    @service.on_request_many
    async def answer_in_parts(request: arke.Request) -> AsyncIterator[bytes]:
        rounds["parts"] += 1
        for part in range(PARTS - 1):
            yield b"%d " % (part * (rounds["parts"] % 2)) + request.body

    @service.on_tunnel
    async def echo(tunnel: arke.Tunnel) -> None:
        rounds["tunnel"] += 1
        messages = [message async for message in tunnel]
        if rounds["tunnel"] % 2:
            messages.reverse()
        for message in messages[:-1]:
            await tunnel.send(message)

    @service.on_broadcast
    async def on_broadcast(broadcast: arke.Broadcast) -> None:
        for _ in range(2):
            await service.mesh.publish(
                TOPIC, make_body(MessageHead("event", "faulty_member", 5), 16)
            )

    return service


@pytest.fixture
def relay(relays: Relays) -> Relay:
    return relays.start()


@pytest.fixture
def caller(relay: Relay, tmp_path: Path) -> Iterator[Process]:
    command = [sys.executable, "-m", "soak.programs.caller", "101", "1", tmp_path / "report"]
    process = start_process(
        "caller",
        command,
        ARKE_PORT=str(relay.port),
        PYTHONPATH=str(CHECKOUT / "tests"),
    )
    yield process
    if process.running:
        process.kill()
    process.wait(LIMIT)
    process.close()


async def test_callers_detect_every_wrong_behaviour(
    relay: Relay, caller: Process, tmp_path: Path
) -> None:
    async with faulty_member(relay.port), asyncio.timeout(2 * LIMIT):
        while missing := [
            what for text, what in FAULT_BY_LOG_TEXT.items() if text not in caller.log
        ]:
            assert caller.running, missing
            await asyncio.sleep(0.1)
        caller.terminate()
        assert await asyncio.to_thread(caller.wait, LIMIT) == 0
    report = json.loads((tmp_path / "report").read_text())
    assert report["ended"]
    assert set(report["wrong"]) >= {"once", "idempotent", "parts", "tunnel", "event"}
