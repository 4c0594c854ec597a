"""Handler pool: bounded concurrency, no lost work, and a clean context for each handler."""

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

MINE: ContextVar[str] = ContextVar("mine", default="unset")


LOOP_TURNS = 200
"""More than 25 items need one after the other; an item needs up to four turns of the loop."""


async def settle() -> None:
    """Run the loop until every task waits."""
    for _ in range(LOOP_TURNS):
        await asyncio.sleep(0)


@dataclass(eq=False)
class Work:
    """One item: what its handler does, and a future that lets it return."""

    kind: str
    number: int = 0
    may_end: asyncio.Future[None] | None = None


@dataclass
class PoolRig:
    """A handler pool and the outcomes of its work. The kinds of work are in `_run`."""

    limit: int
    started: list[int] = field(default_factory=list)
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
        self.started.append(work.number)
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
    """Each step queues an item of a kind, releases an item, or runs one loop iteration."""
    rig = PoolRig(limit)
    waiting: list[Work] = []
    for step in steps:
        if isinstance(step, str):
            work = rig.put(step)
            if "waits" in step:
                waiting.append(work)
        elif isinstance(step, int) and waiting:
            rig.release(waiting.pop(step % len(waiting)))
        else:
            await asyncio.sleep(0)
    await settle()
    # No work stays queued while a worker is free.
    unfinished = rig.count - len(rig.ended)
    assert len(rig.running) == min(limit, unfinished)
    assert rig.started == list(range(len(rig.started))), "started in the order put, each once"
    for work in waiting:
        rig.release(work)
    await rig.workers.wait_idle()
    assert sorted(rig.ended) == list(range(rig.count))
    assert rig.most <= limit
    assert set(rig.saw) <= {"unset"}
    await rig.workers.stop()
    assert not rig.workers._tasks


@given(
    limit=st.integers(1, 4),
    steps=st.lists(st.sampled_from(KINDS) | st.none() | st.integers(0, 5), max_size=25),
)
def test_every_item_is_handled_once(limit: int, steps: list[object]) -> None:
    run(lambda: play(limit, tuple(steps)))


def test_every_item_is_handled_in_all_short_sequences() -> None:
    """Every sequence of four steps with two workers."""
    steps = ["answers", "waits", "marks", "is cancelled", None, 0]

    async def all_orders() -> None:
        for order in product(steps, repeat=4):
            await play(2, order)

    run(all_orders)


# Workers.


async def test_handlers_that_never_wait_use_at_most_two_tasks() -> None:
    rig = PoolRig(100)
    for _ in range(1000):
        rig.put("answers")
    await rig.workers.wait_idle()
    assert len(rig.tasks) == 1
    assert len(rig.workers._tasks) <= 2
    await rig.workers.stop()


async def test_resting_worker_is_reused() -> None:
    rig = PoolRig(100)
    for _ in range(10):
        rig.put("answers")
        await rig.workers.wait_idle()
        await settle()
    assert len(rig.tasks) == 1
    await rig.workers.stop()


async def test_concurrency_is_bounded_by_the_limit() -> None:
    rig = PoolRig(3)
    works = [rig.put("waits") for _ in range(10)]
    await settle()
    assert rig.started == [0, 1, 2]
    rig.release(works[1])
    await settle()
    assert rig.started == [0, 1, 2, 3]
    assert rig.most == 3
    await rig.workers.stop()


async def test_limit_of_one_runs_handlers_in_sequence() -> None:
    rig = PoolRig(1)
    works = [rig.put("marks and waits") for _ in range(5)]
    for work in works:
        await settle()
        assert rig.running == {work}
        rig.release(work)
    await rig.workers.wait_idle()
    assert rig.ended == [0, 1, 2, 3, 4]
    await rig.workers.stop()


# Context variables.


async def test_handlers_get_the_context_of_the_service_only() -> None:
    token = MINE.set("the service's")
    try:
        rig = PoolRig(2)
    finally:
        MINE.reset(token)
    MINE.set("the caller of put")
    for kind in ["answers", "marks", "answers", "marks and waits", "answers", "marks", "answers"]:
        rig.release(rig.put(kind))
    await rig.workers.wait_idle()
    assert rig.saw == ["the service's"] * 7
    await rig.workers.stop()


# Waiting until idle.


async def test_wait_idle_returns_at_once_when_idle() -> None:
    rig = PoolRig(2)
    await rig.workers.wait_idle()
    rig.put("answers")
    await rig.workers.wait_idle()
    await rig.workers.wait_idle()
    assert rig.ended == [0]
    await rig.workers.stop()


@pytest.mark.parametrize("kind", ["waits", "marks and waits", "waits and is cancelled"])
async def test_wait_idle_waits_for_the_last_handler(kind: str) -> None:
    rig = PoolRig(1)
    first, last = rig.put(kind), rig.put(kind)
    waiters = [asyncio.ensure_future(rig.workers.wait_idle()) for _ in range(3)]
    await settle()
    rig.release(first)
    await settle()
    assert not any(waiter.done() for waiter in waiters)
    waiters.pop().cancel()
    await settle()
    rig.release(last)
    await asyncio.gather(*waiters)
    assert sorted(rig.ended) == [0, 1]
    await rig.workers.stop()


async def test_wait_idle_includes_work_queued_meanwhile() -> None:
    rig = PoolRig(1)
    first = rig.put("waits")
    waiter = asyncio.ensure_future(rig.workers.wait_idle())
    await settle()
    rig.release(first)
    while not rig.ended:
        await asyncio.sleep(0)
    second = rig.put("waits")
    await settle()
    assert not waiter.done()
    rig.release(second)
    await waiter
    await rig.workers.stop()


# Stopping.


async def test_stop_cancels_running_handlers_and_starts_no_more() -> None:
    rig = PoolRig(2)
    for _ in range(5):
        rig.put("waits")
    await settle()
    await rig.workers.stop()
    assert rig.started == [0, 1]
    assert sorted(rig.ended) == [0, 1]
    rig.put("answers")
    await settle()
    assert rig.started == [0, 1]


async def test_stop_cancels_resting_workers() -> None:
    rig = PoolRig(2)
    rig.put("answers")
    await rig.workers.wait_idle()
    await rig.workers.stop()
    assert not rig.workers._tasks


async def test_stop_before_any_handler_started() -> None:
    rig = PoolRig(2)
    rig.put("answers")
    await rig.workers.stop()
    assert rig.started == []


async def test_stop_waits_for_a_handler_that_ignores_cancellation() -> None:
    release = asyncio.Event()
    started: list[int] = []

    async def stubborn(number: int) -> None:
        started.append(number)
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
    assert started == [1]


async def test_worker_cancelled_while_woken_does_not_lose_work() -> None:
    """A handler runs in the worker's task: a late cancel by user code hits a resting worker."""
    rig = PoolRig(1)
    rig.put("answers")
    await rig.workers.wait_idle()
    await settle()
    (worker,) = rig.tasks
    assert worker
    rig.put("answers")
    worker.cancel()
    await rig.workers.wait_idle()
    assert sorted(rig.ended) == [0, 1]
    await rig.workers.stop()


async def test_worker_cancelled_while_resting_is_replaced() -> None:
    rig = PoolRig(1)
    rig.put("answers")
    await rig.workers.wait_idle()
    await settle()
    (worker,) = rig.tasks
    assert worker
    worker.cancel()
    rig.put("answers")
    await rig.workers.wait_idle()
    assert sorted(rig.ended) == [0, 1]
    await rig.workers.stop()


async def test_worker_cancelled_before_its_start_does_not_lose_work() -> None:
    rig = PoolRig(1)
    rig.put("answers")
    (worker,) = rig.workers._tasks
    worker.cancel()
    await rig.workers.wait_idle()
    assert rig.ended == [0]
    await rig.workers.stop()


# Cancelling single items.


async def test_cancelled_queued_item_never_starts() -> None:
    rig = PoolRig(1)
    works = [rig.put("waits") for _ in range(6)]
    await settle()
    for work in works[1:4]:
        rig.workers.cancel_queued(work)
    assert rig.workers.queued == 2
    for work in works:
        rig.release(work)
    await rig.workers.wait_idle()
    assert rig.ended == [0, 4, 5]
    assert rig.workers.queued == 0
    await rig.workers.stop()


async def test_cancelling_a_running_item_frees_its_worker() -> None:
    rig = PoolRig(1)
    first, _ = rig.put("waits"), rig.put("answers")
    await settle()
    rig.workers.cancel_running(first)
    await rig.workers.wait_idle()
    assert rig.ended == [0, 1]
    await rig.workers.stop()


async def test_cancelling_the_last_queued_item_ends_the_wait() -> None:
    rig = PoolRig(1)
    first, last = rig.put("waits"), rig.put("waits")
    waiter = asyncio.ensure_future(rig.workers.wait_idle())
    await settle()
    rig.workers.cancel_queued(last)
    rig.release(first)
    await waiter
    assert rig.ended == [0]
    await rig.workers.stop()


async def test_stop_returns_only_items_that_were_not_cancelled() -> None:
    rig = PoolRig(1)
    works = [rig.put("waits") for _ in range(5)]
    await settle()
    rig.workers.cancel_queued(works[1])
    assert await rig.workers.stop() == works[2:]


async def test_cancelled_items_leave_the_queue_before_a_worker_is_free() -> None:
    """Their memory must not wait for handlers that never end."""
    rig = PoolRig(1)
    works = [rig.put("waits") for _ in range(101)]
    await settle()
    for work in works[1:]:
        rig.workers.cancel_queued(work)
        assert len(rig.workers._queue) <= 2 * rig.workers.queued
    assert not rig.workers._queue
    await rig.workers.stop()
