"""Start the receivers of the benchmark, read their reports, and always stop them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from arke.cli.bench.receiver import REPORT

_START_TIMEOUT = 15.0
_STOP_TIMEOUT = 5.0


class BenchError(Exception):
    """The benchmark failed. The text says why."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group of receivers: `members` processes, each reporting after `every` messages.

    `pattern` is request, publish, broadcast or tunnel; `name` is their cluster or topic.
    """

    pattern: str
    name: str
    members: int
    every: int


class Receivers:
    """Running receivers, made by `receiving`.

    `seen` is how many messages each has reported. `on_report` is called with the receiver, its
    count and its time, in nanoseconds of the monotonic clock.
    """

    def __init__(self, processes: list[Process]) -> None:
        self._processes = processes
        self._progress = asyncio.Event()
        self._followers: list[asyncio.Task[None]] = []
        self.seen = [0] * len(processes)
        self.on_report: Callable[[int, int, int], None] = lambda _receiver, _seen, _at: None

    @property
    def slowest(self) -> int:
        """How many messages the slowest receiver has reported."""
        return min(self.seen)

    async def start(self) -> None:
        """Wait until every receiver is ready. Raises BenchError."""
        numbers = range(len(self._processes))
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                await asyncio.gather(*(self._first_report(number) for number in numbers))
        except TimeoutError:
            raise BenchError(f"the receivers did not start within {_START_TIMEOUT:g} s") from None
        self._followers = [asyncio.create_task(self._follow(number)) for number in numbers]

    async def wait_for_report(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait for the next report. Returns False if none arrives within `timeout` seconds.

        Raises BenchError if a receiver has died.
        """
        self._progress.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._progress.wait()
        await self.check()
        return self._progress.is_set()

    async def check(self) -> None:
        """Raise BenchError if a receiver has died."""
        for number, follower in enumerate(self._followers):
            if follower.done():
                raise BenchError(f"a receiver exited: {await self._last_stderr_line(number)}")

    async def finish(self) -> None:
        """Close the stdin of the receivers and read their last reports."""
        for process in self._processes:
            assert process.stdin
            process.stdin.close()
        if self._followers:
            await asyncio.wait(self._followers, timeout=_STOP_TIMEOUT)

    async def _first_report(self, number: int) -> None:
        try:
            await self._take_report(number)
        except asyncio.IncompleteReadError:
            words = await self._last_stderr_line(number)
            raise BenchError(f"a receiver did not start: {words}") from None

    async def _follow(self, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await self._take_report(number)
        self._progress.set()  # wait_for_report then checks the receivers

    async def _last_stderr_line(self, number: int) -> str:
        stderr = self._processes[number].stderr
        assert stderr
        lines = (await stderr.read()).decode(errors="replace").splitlines()
        return lines[-1] if lines else "nothing on stderr"

    async def _take_report(self, number: int) -> None:
        stdout = self._processes[number].stdout
        assert stdout
        seen, at = REPORT.unpack(await stdout.readexactly(REPORT.size))
        self.seen[number] = seen
        self.on_report(number, seen, at)
        self._progress.set()


@contextlib.asynccontextmanager
async def receiving(group: Group, port: int, path: str | None) -> AsyncIterator[Receivers]:
    """Run the receivers during the block. Raises BenchError."""
    where = ["-port", str(port)] if path is None else ["-path", path]
    command = [sys.executable, "-m", "arke.cli.bench.receiver", *where, "-every", str(group.every)]
    processes: list[Process] = []
    try:
        for _ in range(group.members):
            process = await asyncio.create_subprocess_exec(
                *command,
                *(group.pattern, group.name),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                start_new_session=True,  # Ctrl-C must not reach them; they stop with stdin
            )
            processes.append(process)
        receivers = Receivers(processes)
        await receivers.start()
        yield receivers
        await receivers.finish()
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
        for process in processes:
            await process.wait()
