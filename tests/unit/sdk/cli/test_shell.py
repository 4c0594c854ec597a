from __future__ import annotations

import asyncio
import contextlib
import os
import select
from pathlib import Path

import pytest

from arke.cli import shell
from arke.wire.limits import MAX_MESSAGE

LONG = 60.0


async def test_command_gets_the_body_on_stdin_and_replies_on_stdout() -> None:
    assert await shell.run("tr a-z A-Z", b"hello", timeout=LONG) == b"HELLO"


async def test_largest_body_passes_both_ways() -> None:
    body = os.urandom(MAX_MESSAGE)
    assert await shell.run("cat", body, timeout=LONG) == body


async def test_command_may_ignore_its_stdin() -> None:
    assert await shell.run("exec <&-; echo done", bytes(MAX_MESSAGE), timeout=LONG) == b"done\n"


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("exit 3", "exit status 3: nothing on stderr"),
        ("echo partial; echo no paper >&2; exit 4", "exit status 4: no paper"),
        ("kill -9 $$", "killed by signal 9: nothing on stderr"),
    ],
)
async def test_failure_has_the_status_and_stderr(command: str, text: str) -> None:
    with pytest.raises(shell.CommandError) as caught:
        await shell.run(command, b"", timeout=LONG)
    assert str(caught.value) == text


async def test_long_stderr_is_truncated_to_its_end() -> None:
    with pytest.raises(shell.CommandError) as caught:
        await shell.run("seq 100000 >&2; exit 1", b"", timeout=LONG)
    assert str(caught.value).endswith("\n100000")
    assert len(str(caught.value)) < 2100


async def test_reply_over_the_limit_fails_at_once() -> None:
    with pytest.raises(shell.CommandError, match="over 16777216 bytes"):
        await shell.run("yes", b"", timeout=LONG)


@pytest.mark.parametrize("ending", ["deadline", "cancelled", "cancelled at its start"])
async def test_process_group_is_killed_with_the_request(tmp_path: Path, ending: str) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    reading = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    # The shell and its children hold the FIFO open; end of file shows that all have exited.
    command = f"trap '' TERM; exec 3>{held}; echo up >&3; sleep 60 & sleep 60"
    limit = 0.5 if ending == "deadline" else LONG
    call = asyncio.create_task(shell.run(command, b"", timeout=limit))
    if ending == "cancelled at its start":
        # The command starts while the loop is blocked in the middle of starting it.
        while not select.select([reading], [], [], 0.1)[0]:
            await asyncio.sleep(0)
    else:
        await read_until(b"up\n", reading)
    if ending != "deadline":
        call.cancel()
    assert (await asyncio.wait([call], timeout=10))[0], "the call still waits for the command"
    with pytest.raises((TimeoutError, asyncio.CancelledError)):
        call.result()
    await read_until(b"", reading)
    os.close(reading)


async def read_until(wanted: bytes, fifo: int) -> None:
    """Read until exactly this arrives. A FIFO without a writer returns nothing."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(BlockingIOError):
                if os.read(fifo, 100) == wanted:
                    return
            await asyncio.sleep(0.01)
