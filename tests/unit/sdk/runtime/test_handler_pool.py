"""Handlers in a bounded number of tasks: none too many, none forgotten, none seeing another's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke.runtime.handler_pool import HandlerPool

MINE: ContextVar[str] = ContextVar("mine", default="nobody's")


async def settle() -> None:
    """Let everything run that can run."""
    for _ in range(12):
        await asyncio.sleep(0)


@dataclass(eq=False)
class Work:
    """One item: what its handler does, and when it may end."""

    kind: str
    number: int = 0
    may_end: asyncio.Future[None] | None = None


@dataclass
class Shop:
    """HandlerPool, and what became of their work. Kinds: see `_run`."""

    limit: int
    begun: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    running: set[Work] = field(default_factory=set)
    most: int = 0
    saw: list[str] = field(default_factory=list)
    tasks: set[asyncio.Task[object] | None] = field(default_factory=set)
    count: int = 0

    def __post_init__(self) -> None:
        self.workers = HandlerPool(self.limit, self._run)

    def put(self, kind: str) -> Work:
        work = Work(kind, self.count, asyncio.get_running_loop().create_future())
        self.count += 1
        self.workers.put(work)
        return work

    def release(self, work: Work) -> None:
        assert work.may_end
        if not work.may_end.done():
            work.may_end.set_result(None)

    async def _run(self, work: Work) -> None:
        self.begun.append(work.number)
        self.running.add(work)
        self.most = max(self.most, len(self.running))
        self.saw.append(MINE.get())
        self.tasks.add(asyncio.current_task())
        try:
            if "marks" in work.kind:
                MINE.set(f"{work.number}'s")
            if "waits" in work.kind:
                assert work.may_end
                await work.may_end
            if "is cancelled" in work.kind:
                raise asyncio.CancelledError
        finally:
            self.running.discard(work)
            self.ended.append(work.number)


KINDS = ["answers", "waits", "marks", "marks and waits", "is cancelled", "waits and is cancelled"]


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await main()

    with asyncio.Runner() as runner:
        runner.run(whole())


async def play(limit: int, steps: tuple[object, ...]) -> None:
    """Each step puts an item of a kind, releases an item, or lets the loop turn once."""
    shop = Shop(limit)
    waiting: list[Work] = []
    for step in steps:
        if isinstance(step, str):
            work = shop.put(step)
            if "waits" in step:
                waiting.append(work)
        elif isinstance(step, int) and waiting:
            shop.release(waiting.pop(step % len(waiting)))
        else:
            await asyncio.sleep(0)
    await settle()
    # Work is never left lying while a worker could take it.
    unfinished = shop.count - len(shop.ended)
    assert len(shop.running) == min(limit, unfinished)
    assert shop.begun == list(range(len(shop.begun))), "begun in the order put, each once"
    for work in waiting:
        shop.release(work)
    await shop.workers.wait_idle()
    assert sorted(shop.ended) == list(range(shop.count))
    assert shop.most <= limit
    assert set(shop.saw) <= {"nobody's"}
    await shop.workers.stop()
    assert not shop.workers._tasks


@given(
    limit=st.integers(1, 4),
    steps=st.lists(st.sampled_from(KINDS) | st.none() | st.integers(0, 5), max_size=25),
)
def test_every_item_is_handled_whatever_the_handlers_do(limit: int, steps: list[object]) -> None:
    run(lambda: play(limit, tuple(steps)))


def test_every_item_is_handled_in_all_short_sequences() -> None:
    """All orders of four steps with two workers."""
    steps = ["answers", "waits", "marks", "is cancelled", None, 0]

    async def all_orders() -> None:
        for order in product(steps, repeat=4):
            await play(2, order)

    run(all_orders)


# Who works.


async def test_handlers_that_never_wait_use_at_most_two_tasks() -> None:
    shop = Shop(100)
    for _ in range(1000):
        shop.put("answers")
    await shop.workers.wait_idle()
    assert len(shop.tasks) == 1
    assert len(shop.workers._tasks) <= 2
    await shop.workers.stop()


async def test_resting_worker_is_reused() -> None:
    shop = Shop(100)
    for _ in range(10):
        shop.put("answers")
        await shop.workers.wait_idle()
        await settle()
    assert len(shop.tasks) == 1
    await shop.workers.stop()


async def test_concurrency_is_bounded_by_the_limit() -> None:
    shop = Shop(3)
    works = [shop.put("waits") for _ in range(10)]
    await settle()
    assert shop.begun == [0, 1, 2]
    shop.release(works[1])
    await settle()
    assert shop.begun == [0, 1, 2, 3]
    assert shop.most == 3
    await shop.workers.stop()


async def test_limit_of_one_runs_handlers_in_sequence() -> None:
    shop = Shop(1)
    works = [shop.put("marks and waits") for _ in range(5)]
    for work in works:
        await settle()
        assert shop.running == {work}
        shop.release(work)
    await shop.workers.wait_idle()
    assert shop.ended == [0, 1, 2, 3, 4]
    await shop.workers.stop()


# What they see.


async def test_handlers_get_the_context_of_the_service_only() -> None:
    token = MINE.set("the service's")
    try:
        shop = Shop(2)
    finally:
        MINE.reset(token)
    MINE.set("whoever puts")
    for kind in ["answers", "marks", "answers", "marks and waits", "answers", "marks", "answers"]:
        shop.release(shop.put(kind))
    await shop.workers.wait_idle()
    assert shop.saw == ["the service's"] * 7
    await shop.workers.stop()


# Idle.


async def test_wait_idle_returns_at_once_when_idle() -> None:
    shop = Shop(2)
    await shop.workers.wait_idle()
    shop.put("answers")
    await shop.workers.wait_idle()
    await shop.workers.wait_idle()
    assert shop.ended == [0]
    await shop.workers.stop()


@pytest.mark.parametrize("kind", ["waits", "marks and waits", "waits and is cancelled"])
async def test_wait_idle_waits_for_the_last_handler(kind: str) -> None:
    shop = Shop(1)
    first, last = shop.put(kind), shop.put(kind)
    waiters = [asyncio.ensure_future(shop.workers.wait_idle()) for _ in range(3)]
    await settle()
    shop.release(first)
    await settle()
    assert not any(waiter.done() for waiter in waiters)
    waiters.pop().cancel()
    await settle()
    shop.release(last)
    await asyncio.gather(*waiters)
    assert sorted(shop.ended) == [0, 1]
    await shop.workers.stop()


async def test_wait_idle_includes_work_queued_meanwhile() -> None:
    shop = Shop(1)
    first = shop.put("waits")
    waiter = asyncio.ensure_future(shop.workers.wait_idle())
    await settle()
    shop.release(first)
    while not shop.ended:
        await asyncio.sleep(0)
    second = shop.put("waits")
    await settle()
    assert not waiter.done()
    shop.release(second)
    await waiter
    await shop.workers.stop()


# The end.


async def test_stop_cancels_running_handlers_and_starts_no_more() -> None:
    shop = Shop(2)
    for _ in range(5):
        shop.put("waits")
    await settle()
    await shop.workers.stop()
    assert shop.begun == [0, 1]
    assert sorted(shop.ended) == [0, 1]
    shop.put("answers")
    await settle()
    assert shop.begun == [0, 1]


async def test_stop_cancels_resting_workers() -> None:
    shop = Shop(2)
    shop.put("answers")
    await shop.workers.wait_idle()
    await shop.workers.stop()
    assert not shop.workers._tasks


async def test_stop_before_any_handler_started() -> None:
    shop = Shop(2)
    shop.put("answers")
    await shop.workers.stop()
    assert shop.begun == []


async def test_stop_waits_for_a_handler_that_ignores_cancellation() -> None:
    release = asyncio.Event()
    begun: list[int] = []

    async def stubborn(number: int) -> None:
        begun.append(number)
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                release.set()

    workers = HandlerPool(1, stubborn)
    workers.put(1)
    workers.put(2)
    await settle()
    await workers.stop()
    assert begun == [1]


async def test_worker_cancelled_while_woken_does_not_lose_work() -> None:
    """A handler's task is the worker: user code that cancels it late hits a worker that rests."""
    shop = Shop(1)
    shop.put("answers")
    await shop.workers.wait_idle()
    await settle()
    (worker,) = shop.tasks
    assert worker
    shop.put("answers")
    worker.cancel()
    await shop.workers.wait_idle()
    assert sorted(shop.ended) == [0, 1]
    await shop.workers.stop()


async def test_worker_cancelled_while_resting_is_replaced() -> None:
    shop = Shop(1)
    shop.put("answers")
    await shop.workers.wait_idle()
    await settle()
    (worker,) = shop.tasks
    assert worker
    worker.cancel()
    shop.put("answers")
    await shop.workers.wait_idle()
    assert sorted(shop.ended) == [0, 1]
    await shop.workers.stop()


async def test_worker_cancelled_before_its_start_does_not_lose_work() -> None:
    shop = Shop(1)
    shop.put("answers")
    (worker,) = shop.workers._tasks
    worker.cancel()
    await shop.workers.wait_idle()
    assert shop.ended == [0]
    await shop.workers.stop()
