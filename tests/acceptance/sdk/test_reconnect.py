"""Reconnecting after the loss of a relay, and the outcome of every pending request."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest

import arke
from arke.wire.messages import Op
from support.ports import free_port
from support.raw_program import packed, raw_program
from support.relay_status import member_count, wait_for_members
from support.relays import Relay, Relays
from support.waiting import LIMIT


async def wait_until_detached(mesh: arke.Mesh) -> None:
    """Wait until the SDK has noticed the loss of the relay."""
    async with asyncio.timeout(LIMIT):
        while mesh.runtime.attachment.connection is not None:
            await asyncio.sleep(0.001)


def restart(relays: Relays, relay: Relay, join: list[Relay] | None = None) -> Relay:
    """Start the same relay again."""
    return relays.start(address=relay.address, port=relay.port, join=join or [])


async def test_service_reconnects_and_registers_again(relays: Relays) -> None:
    relay = relays.start()
    service = arke.Service("echo", port=relay.port)
    dropped = []
    service.on_drop(dropped.append)

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        return request.body

    async with service, arke.connect(port=relay.port) as mesh, mesh.subscribe("t") as events:
        assert await mesh.request("echo", b"1") == b"1"
        relay.process.kill()
        relay.process.wait(LIMIT)
        await wait_until_detached(mesh)
        waiting = asyncio.ensure_future(mesh.request("echo", b"2", timeout=LIMIT))
        restart(relays, relay)
        assert await waiting == b"2"
        assert len(dropped) == 1
        async with asyncio.timeout(LIMIT):
            await mesh.publish("t", b"after")
            assert (await anext(events)).body == b"after"


async def test_loss_of_the_relay_fails_or_resends_requests(relays: Relays) -> None:
    relay = relays.start()
    service = arke.Service("hold", port=relay.port, drain=0.1)
    running = asyncio.Event()
    forever = asyncio.Event()
    count = 0

    @service.on_request
    async def hold(request: arke.Request) -> bytes:
        nonlocal count
        count += 1
        running.set()
        if count == 1 or request.body == b"once":
            await forever.wait()
        return b"done"

    async with service, arke.connect(port=relay.port) as mesh:
        once = asyncio.ensure_future(mesh.request("hold", b"once", timeout=LIMIT))
        await running.wait()
        twice = asyncio.ensure_future(
            mesh.request("hold", b"twice", timeout=LIMIT, idempotent=True)
        )
        while count < 2:
            await asyncio.sleep(0)
        relay.process.kill()
        relay.process.wait(LIMIT)
        with pytest.raises(arke.ConnectionLost):
            await once
        restart(relays, relay)
        assert await twice == b"done"
        forever.set()


async def test_request_while_detached_times_out_at_its_deadline(relays: Relays) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh:
        relay.process.kill()
        relay.process.wait(LIMIT)
        await wait_until_detached(mesh)
        with pytest.raises(arke.RequestTimeout):
            await mesh.request("echo", b"", timeout=0.3)
        assert len(mesh.runtime.requests.pending) == 0


async def test_connect_without_a_relay_raises_relay_unreachable() -> None:
    with pytest.raises(arke.RelayUnreachable, match="start one with `relay -net NAME"):
        async with arke.connect(port=free_port(), wait=0.1):
            raise AssertionError("attached to nothing")


async def test_program_may_start_before_its_relay(relays: Relays) -> None:
    port = free_port()
    mesh = arke.connect(port=port, wait=LIMIT)
    opening = asyncio.ensure_future(mesh.__aenter__())
    relays.start(port=port)
    await opening
    assert mesh.node.network == relays.network
    await mesh.close()


async def test_on_init_that_raises_stops_the_service(relays: Relays) -> None:
    relay = relays.start()
    service = arke.Service("never", port=relay.port)

    @service.on_init
    async def refuse(mesh: arke.Mesh) -> None:
        raise RuntimeError(f"not on {mesh.node.network}")

    with pytest.raises(RuntimeError, match=relays.network):
        async with service:
            raise AssertionError("it served")
    async with arke.connect(port=relay.port) as mesh:
        assert await member_count(mesh, "never") == 0


async def test_rolling_restart_under_load_loses_no_request(relays: Relays) -> None:
    """Callers and members on three nodes; each relay is restarted with SIGTERM."""
    first = relays.start()
    relays_now = [first, relays.start(join=[first]), relays.start(join=[first])]
    services = []
    answered = 0
    stop = asyncio.Event()
    for relay in relays_now:
        service = arke.Service("work", port=relay.port)

        @service.on_request
        async def answer(request: arke.Request) -> bytes:
            await asyncio.sleep(0.001)
            return request.body

        services.append(service)

    async def caller(mesh: arke.Mesh, name: int) -> None:
        nonlocal answered
        turn = 0
        while not stop.is_set():
            turn += 1
            body = f"{name}/{turn}".encode()
            assert await mesh.request("work", body, timeout=LIMIT) == body
            answered += 1

    async with (
        services[0],
        services[1],
        services[2],
        arke.connect(port=relays_now[0].port) as a,
        arke.connect(port=relays_now[1].port) as b,
        arke.connect(port=relays_now[2].port) as c,
    ):
        for mesh in (a, b, c):
            await wait_for_members(mesh, "work", 3)
        callers = [asyncio.ensure_future(caller(mesh, i)) for i, mesh in enumerate((a, b, c) * 4)]
        loop = asyncio.get_running_loop()
        for i in range(3):
            relay = relays_now[i]
            others = [each for each in relays_now if each is not relay]
            before = answered
            relay.process.terminate()
            assert await loop.run_in_executor(None, relay.process.wait, LIMIT) == 0
            relays_now[i] = await loop.run_in_executor(None, restart, relays, relay, others)
            for mesh in (a, b, c):
                await wait_for_members(mesh, "work", 3)
            async with asyncio.timeout(LIMIT):
                while answered < before + 100:
                    await asyncio.sleep(0.01)
            assert not any(call.done() for call in callers)
        stop.set()
        await asyncio.gather(*callers)
        assert answered > 300


async def test_messages_keep_their_order_across_a_reconnect(
    relays: Relays,
) -> None:
    """A stopped relay finds two connections of one program, both with unread data."""
    relay = relays.start()
    program = os.urandom(8)
    before = packed((Op.PUBLISH.value, "t", b"before", None)) * 50_000
    async with (
        raw_program(relay.port, "listener") as listener,
        raw_program(relay.port) as old,
        raw_program(relay.port) as new,
    ):
        await listener.send_message((Op.SUBSCRIBE.value, "t"))
        await listener.wait_until_processed()
        await old.hello("talker", program)
        relay.process.signal(signal.SIGSTOP)
        old.writer.write(before)  # as much as the kernel buffers
        welcomed = asyncio.ensure_future(new.hello("talker", program))
        relay.process.signal(signal.SIGCONT)
        await welcomed
        await new.send_message((Op.PUBLISH.value, "t", b"after", None))
        await new.wait_until_processed()
        await listener.send_message((Op.PING.value, 1))
        received = []
        while (message := await listener.receive())[0] != Op.PONG:
            bodies = message[2] if isinstance(message[2], tuple) else (message[2],)
            received += [bytes(body) for body in bodies]
        assert received[-1] == b"after"
        assert received.count(b"after") == 1
        await old.wait_until_closed()


async def test_messages_that_wait_for_the_relay_are_sent_first(relays: Relays) -> None:
    relay = relays.start()
    async with (
        raw_program(relay.port, "listener") as listener,
        arke.connect(port=relay.port) as mesh,
    ):
        await listener.send_message((Op.SUBSCRIBE.value, "t"))
        await listener.wait_until_processed()
        relay.process.signal(signal.SIGSTOP)
        await wait_until_detached(mesh)
        waiting = [asyncio.ensure_future(mesh.publish("t", b"%d" % n)) for n in range(100)]
        relay.process.signal(signal.SIGCONT)
        async with asyncio.timeout(LIMIT):
            while not mesh.attached:
                await asyncio.sleep(0)
            await mesh.publish("t", b"later")
            await asyncio.gather(*waiting)
        received: list[bytes] = []
        while len(received) < 101:
            bodies = (await listener.receive_only(Op.DELIVER_EVENT))[2]
            received += bodies if isinstance(bodies, tuple) else (bodies,)
        assert received == [*(b"%d" % n for n in range(100)), b"later"]


async def enter(block: AbstractAsyncContextManager[object]) -> None:
    async with block:
        pass


Call = Callable[[arke.Mesh], Awaitable[object]]
SHORT = 0.05  # seconds; the time-out of each call

NEED_A_REPLY: dict[str, Call] = {
    "request": lambda mesh: mesh.request("c", b"", timeout=SHORT),
    "begin_request": lambda mesh: mesh.begin_request("c", b"", timeout=SHORT),
    "request_many": lambda mesh: anext(mesh.request_many("c", b"", timeout=SHORT)),
    "request_all": lambda mesh: mesh.request_all("c", b"", timeout=SHORT),
    "tunnel": lambda mesh: enter(mesh.tunnel("c", timeout=SHORT)),
    "http_tunnel": lambda mesh: mesh.http_tunnel("node/1", timeout=SHORT),
    "members": lambda mesh: mesh.members("c", timeout=SHORT),
    "status": lambda mesh: mesh.status(timeout=SHORT),
}
NEED_A_CONNECTION: dict[str, Call] = {
    "broadcast": lambda mesh: mesh.broadcast("c", b"", timeout=SHORT),
    "publish": lambda mesh: mesh.publish("t", b"", timeout=SHORT),
}


async def failure(call: Call, mesh: arke.Mesh) -> type[arke.ArkeError] | None:
    try:
        await call(mesh)
    except arke.ArkeError as error:
        return type(error)
    return None


async def test_every_call_times_out_without_relay(relays: Relays) -> None:
    relay = relays.start()
    calls = NEED_A_REPLY | NEED_A_CONNECTION
    async with arke.connect(port=relay.port) as mesh, asyncio.timeout(LIMIT):
        relay.process.kill()
        relay.process.wait(LIMIT)
        await wait_until_detached(mesh)
        failures = {name: await failure(call, mesh) for name, call in calls.items()}
    assert failures == dict.fromkeys(calls, arke.RequestTimeout)


async def test_every_call_times_out_while_relay_does_not_answer(relays: Relays) -> None:
    relay = relays.start()
    calls = NEED_A_REPLY | {"subscribe": lambda mesh: enter(mesh.subscribe("t", timeout=SHORT))}
    async with arke.connect(port=relay.port) as mesh, asyncio.timeout(LIMIT):
        relay.process.signal(signal.SIGSTOP)
        try:
            failures = {name: await failure(call, mesh) for name, call in calls.items()}
        finally:
            relay.process.signal(signal.SIGCONT)
        assert failures == dict.fromkeys(calls, arke.RequestTimeout)
        assert await mesh.members("c") == []


async def test_invalid_timeout_raises_at_every_call(relays: Relays) -> None:
    relay = relays.start()
    async with arke.connect(port=relay.port) as mesh:
        for timeout, error in (("5s", TypeError), (None, TypeError), (-1.0, ValueError)):
            for call in (mesh.broadcast, mesh.publish):
                with pytest.raises(error):
                    await call("c", b"", timeout=timeout)  # type: ignore[arg-type]
            with pytest.raises(error):
                await mesh.members("c", timeout=timeout)  # type: ignore[arg-type]
            with pytest.raises(error):
                await mesh.status(timeout=timeout)  # type: ignore[arg-type]
            with pytest.raises(error):
                mesh.subscribe("t", timeout=timeout)  # type: ignore[arg-type]
