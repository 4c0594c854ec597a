"""What a handler raises reaches the caller, the log of the service and `on_error`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest

import arke
from support.relay_status import wait_for_members
from support.relays import Relay
from support.waiting import LIMIT


class Unusual(BaseException):
    """An exception that `except Exception` does not catch."""


async def fail_in_task_group() -> bytes:
    async def fail(error: Exception) -> None:
        raise error

    async with asyncio.TaskGroup() as group:
        group.create_task(fail(ValueError("first")))
        group.create_task(fail(KeyError("second")))
    raise AssertionError


async def await_cancelled_task() -> bytes:
    task = asyncio.ensure_future(asyncio.sleep(LIMIT))
    await asyncio.sleep(0)
    task.cancel()
    await task
    raise AssertionError


async def raise_value_error() -> bytes:
    raise ValueError("wrong value")


async def raise_unusual() -> bytes:
    raise Unusual("not an Exception")


RAISED = {
    b"value": (raise_value_error, "ValueError: wrong value"),
    b"group": (fail_in_task_group, r"ValueError: first; KeyError: 'second'"),
    b"base": (raise_unusual, "Unusual: not an Exception"),
    b"inner": (await_cancelled_task, "CancelledError: a task that the handler awaited was"),
}


def failing_service(port: int, **options: Any) -> arke.Service:
    service = arke.Service("failing", port=port, limits=arke.Limits(requests=1), **options)

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        return await RAISED[request.body][0]() if request.body else b"works"

    @service.on_broadcast
    async def on_broadcast(broadcast: arke.Broadcast) -> None:
        await RAISED[broadcast.body][0]()

    @service.on_tunnel
    async def on_tunnel(tunnel: arke.Tunnel) -> None:
        await RAISED[await tunnel.recv()][0]()

    @service.on_request_many
    async def on_request_many(request: arke.Request) -> AsyncGenerator[bytes, None]:
        yield await RAISED[request.body][0]()

    return service


@pytest.mark.parametrize("body", RAISED, ids=bytes.decode)
async def test_caller_and_log_get_what_a_request_handler_raises(
    nodes: tuple[Relay, Relay], caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    async with failing_service(nodes[1].port), arke.connect(port=nodes[0].port) as mesh:
        await wait_for_members(mesh, "failing", 1)
        with pytest.raises(arke.RemoteError, match=RAISED[body][1]):
            await mesh.request("failing", body, timeout=LIMIT)
        assert await mesh.request("failing", b"", timeout=LIMIT) == b"works"
    (record,) = [each for each in caplog.records if "handler of service" in each.message]
    assert record.levelno == logging.ERROR
    assert record.message.startswith("the request handler of service 'failing' raised ")
    assert record.exc_info
    assert record.exc_info[1]


@pytest.mark.parametrize("body", RAISED, ids=bytes.decode)
async def test_reader_of_parts_gets_what_the_handler_raises(
    nodes: tuple[Relay, Relay], body: bytes
) -> None:
    async with failing_service(nodes[1].port), arke.connect(port=nodes[0].port) as mesh:
        await wait_for_members(mesh, "failing", 1)
        with pytest.raises(arke.RemoteError, match=RAISED[body][1]):
            await anext(mesh.request_many("failing", body, timeout=LIMIT))


async def test_on_error_gets_every_exception_and_what_was_handled(
    nodes: tuple[Relay, Relay],
) -> None:
    reported: asyncio.Queue[tuple[BaseException, object]] = asyncio.Queue()

    def on_error(error: BaseException, handled: object) -> None:
        reported.put_nowait((error, handled))
        raise RuntimeError("on_error fails too")

    async def next_report() -> tuple[type, type]:
        error, handled = await reported.get()
        return type(error), type(handled)

    service = failing_service(nodes[1].port, on_error=on_error)
    async with (
        service,
        arke.connect(port=nodes[0].port) as mesh,
        asyncio.timeout(LIMIT),
    ):
        await wait_for_members(mesh, "failing", 1)
        for _ in range(3):  # also the ones that the log does not repeat
            with pytest.raises(arke.RemoteError):
                await mesh.request("failing", b"value", timeout=LIMIT)
            assert await next_report() == (ValueError, arke.Request)
        await mesh.broadcast("failing", b"base")
        assert await next_report() == (Unusual, arke.Broadcast)
        async with mesh.tunnel("failing", timeout=LIMIT) as tunnel:
            await tunnel.send(b"inner")
            with pytest.raises(arke.TunnelClosed):
                await tunnel.recv()
        assert await next_report() == (asyncio.CancelledError, arke.Tunnel)
        with pytest.raises(arke.RemoteError):
            await anext(mesh.request_many("failing", b"group", timeout=LIMIT))
        assert await next_report() == (ExceptionGroup, arke.Request)


async def test_repeated_exceptions_are_logged_once_with_their_number(
    nodes: tuple[Relay, Relay], caplog: pytest.LogCaptureFixture
) -> None:
    async with failing_service(nodes[1].port), arke.connect(port=nodes[0].port) as mesh:
        await wait_for_members(mesh, "failing", 1)
        requests = [mesh.request("failing", b"value", timeout=LIMIT) for _ in range(500)]
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {arke.RemoteError}
    lines = [each for each in caplog.records if "handler of service" in each.message]
    assert len(lines) < 50
