"""Handlers that run past the deadline of their request do not block the service."""

from __future__ import annotations

import asyncio
import threading

import pytest

import arke
from support.relay_status import wait_for_members
from support.relays import Relay
from support.waiting import LIMIT

SLOTS = 4


async def test_coroutine_handler_is_cancelled_at_the_deadline(nodes: tuple[Relay, Relay]) -> None:
    limits = arke.Limits(requests=SLOTS)
    service = arke.Service("hangs", port=nodes[1].port, limits=limits)
    cancelled: list[bytes] = []

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        if request.body == b"answer":
            return b"answered"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            assert request.cancelled
            cancelled.append(request.body)
            raise
        raise AssertionError

    async with service, arke.connect(port=nodes[0].port) as mesh:
        await wait_for_members(mesh, "hangs", 1)
        hung = [mesh.request("hangs", b"%d" % n, timeout=0.3) for n in range(SLOTS)]
        outcomes = await asyncio.gather(*hung, return_exceptions=True)
        assert {type(each) for each in outcomes} == {arke.RequestTimeout}
        assert await mesh.request("hangs", b"answer", timeout=LIMIT) == b"answered"
        assert sorted(cancelled) == [b"0", b"1", b"2", b"3"]
        assert service.timed_out == SLOTS


async def test_handler_is_kept_with_the_option_and_its_reply_is_not_sent(
    nodes: tuple[Relay, Relay],
) -> None:
    service = arke.Service("kept", port=nodes[1].port, cancel_at_deadline=False)
    finish, finished = asyncio.Event(), asyncio.Event()

    @service.on_request
    async def answer(request: arke.Request) -> bytes:
        await finish.wait()
        assert request.cancelled
        finished.set()
        return b"late"

    async with service, arke.connect(port=nodes[0].port) as mesh, asyncio.timeout(LIMIT):
        await wait_for_members(mesh, "kept", 1)
        with pytest.raises(arke.RequestTimeout):
            await mesh.request("kept", b"", timeout=0.2)
        while not service.timed_out:
            await asyncio.sleep(0.01)
        finish.set()
        await finished.wait()


async def test_thread_handler_keeps_its_slot_and_the_member_refuses_requests(
    nodes: tuple[Relay, Relay],
) -> None:
    """A second member answers what the member with hung threads refuses."""
    limits = arke.Limits(requests=SLOTS)
    stuck = arke.Service("mixed", port=nodes[1].port, limits=limits)
    healthy = arke.Service("mixed", port=nodes[1].port)
    release = threading.Event()
    saw_cancelled = threading.Semaphore(0)

    @stuck.on_request
    def hang(request: arke.Request) -> bytes:
        release.wait(LIMIT)
        if request.cancelled:
            saw_cancelled.release()
        return b"stuck"

    @healthy.on_request
    async def answer(_: arke.Request) -> bytes:
        return b"healthy"

    async with arke.connect(port=nodes[0].port) as mesh, asyncio.timeout(LIMIT), stuck:
        await wait_for_members(mesh, "mixed", 1)
        hung = [mesh.request("mixed", b"", timeout=0.3) for _ in range(SLOTS)]
        outcomes = await asyncio.gather(*hung, return_exceptions=True)
        assert {type(each) for each in outcomes} == {arke.RequestTimeout}
        while stuck.timed_out < SLOTS:
            await asyncio.sleep(0.01)
        with pytest.raises(arke.Overloaded, match="run past its deadline"):
            await mesh.request("mixed", b"", timeout=LIMIT)
        async with healthy:
            await wait_for_members(mesh, "mixed", 2)
            requests = [mesh.request("mixed", b"", timeout=LIMIT) for _ in range(40)]
            assert await asyncio.gather(*requests) == [b"healthy"] * 40
        release.set()
        for _ in range(SLOTS):
            await asyncio.to_thread(saw_cancelled.acquire)
        while True:  # the relay tries the member again
            try:
                assert await mesh.request("mixed", b"", timeout=LIMIT) == b"stuck"
                break
            except arke.Overloaded:
                await asyncio.sleep(0.01)


async def test_queued_requests_are_refused_when_every_thread_hangs(
    nodes: tuple[Relay, Relay],
) -> None:
    limits = arke.Limits(requests=1)
    service = arke.Service("stuck", port=nodes[1].port, limits=limits)
    started, release = threading.Event(), threading.Event()

    @service.on_request
    def hang(_: arke.Request) -> bytes:
        started.set()
        release.wait(LIMIT)
        return b""

    async with service, arke.connect(port=nodes[0].port) as mesh, asyncio.timeout(LIMIT):
        await wait_for_members(mesh, "stuck", 1)
        first = asyncio.ensure_future(mesh.request("stuck", b"", timeout=1.0))
        await asyncio.to_thread(started.wait)
        queued = [mesh.request("stuck", b"", timeout=LIMIT) for _ in range(3)]
        outcomes = await asyncio.gather(first, *queued, return_exceptions=True)
        assert [type(each) for each in outcomes] == [arke.RequestTimeout] + [arke.Overloaded] * 3
        release.set()
