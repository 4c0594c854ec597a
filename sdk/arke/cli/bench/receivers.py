"""Starts the receivers of the benchmark, follows their reports, and always ends them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from arke.cli.bench.receiver import REPORT

_START = 15.0
_END = 5.0


class BenchError(Exception):
    """The benchmark could not be run; the text says what to look at."""


@dataclass(frozen=True, slots=True)
class Group:
    """Who receives what: `members` processes, each reporting after `every` messages."""

    pattern: str
    name: str
    members: int
    every: int


class Receivers:
    """Running receivers, made by `receiving`.

    `seen` is how many messages each has reported; `on_report` is told the receiver, its count and
    its time, in nanoseconds of the monotonic clock.
    """

    def __init__(self, processes: list[Process]) -> None:
        self._processes = processes
        self._progress = asyncio.Event()
        self._followers: list[asyncio.Task[None]] = []
        self.seen = [0] * len(processes)
        self.on_report: Callable[[int, int, int], None] = lambda _receiver, _seen, _at: None

    @property
    def slowest(self) -> int:
        """How many messages everybody has seen."""
        return min(self.seen)

    async def start(self) -> None:
        """Wait until everybody receives. Raises BenchError."""
        numbers = range(len(self._processes))
        try:
            async with asyncio.timeout(_START):
                await asyncio.gather(*(self._first_report(number) for number in numbers))
        except TimeoutError:
            raise BenchError(f"the receivers did not start within {_START:g} s") from None
        self._followers = [asyncio.create_task(self._follow(number)) for number in numbers]

    async def progress(self, patience: float) -> bool:
        """Wait for the next report; False if none comes for `patience` seconds.

        Raises BenchError if a receiver has died.
        """
        self._progress.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._progress.wait()
        await self.check()
        return self._progress.is_set()

    async def check(self) -> None:
        """Raise BenchError if a receiver has died."""
        for number, follower in enumerate(self._followers):
            if follower.done():
                raise BenchError(f"a receiver died: {await self._last_words(number)}")

    async def finish(self) -> None:
        """Let the receivers end by themselves, and take their last counts."""
        for process in self._processes:
            assert process.stdin
            process.stdin.close()
        if self._followers:
            await asyncio.wait(self._followers, timeout=_END)

    async def _first_report(self, number: int) -> None:
        try:
            await self._take_report(number)
        except asyncio.IncompleteReadError:
            words = await self._last_words(number)
            raise BenchError(f"a receiver did not start: {words}") from None

    async def _follow(self, number: int) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await self._take_report(number)
        self._progress.set()  # whoever waits learns at once that it has ended

    async def _last_words(self, number: int) -> str:
        stderr = self._processes[number].stderr
        assert stderr
        lines = (await stderr.read()).decode(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"

    async def _take_report(self, number: int) -> None:
        stdout = self._processes[number].stdout
        assert stdout
        seen, at = REPORT.unpack(await stdout.readexactly(REPORT.size))
        self.seen[number] = seen
        self.on_report(number, seen, at)
        self._progress.set()


@contextlib.asynccontextmanager
async def receiving(group: Group, port: int, path: str | None) -> AsyncIterator[Receivers]:
    """Run the receivers for as long as the block lasts. Raises BenchError."""
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
                start_new_session=True,  # Ctrl-C is for us; they end with their stdin
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
