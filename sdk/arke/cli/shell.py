"""Run a shell command on a request body, with a timeout and a bounded reply."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import cast

from arke.wire.limits import MAX_MESSAGE

_MAX_STDERR = 2000  # bytes of stderr in the error


class CommandError(Exception):
    """The command failed. The text has its status and the end of its stderr."""


async def run(command: str, body: bytes, *, timeout: float) -> bytes:  # noqa: ASYNC109
    """Pass `body` to the command on stdin and return what it writes to stdout.

    Raises CommandError for an exit status other than 0 or a reply over the message limit, and
    TimeoutError after `timeout` seconds. A command that is still running then, or when this
    is cancelled, is killed with its process group.
    """
    transport, output = await _start(command)
    try:
        _feed(cast("asyncio.WriteTransport", transport.get_pipe_transport(0)), body)
        async with asyncio.timeout(timeout):
            await output.finished
    except BaseException:
        _kill_group(transport)
        raise
    finally:
        await _close(transport, output)
    status = transport.get_returncode()
    if status:
        how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        raise CommandError(f"{how}: {output.stderr_text()}")
    return bytes(output.reply)


class _OutputCollector(asyncio.SubprocessProtocol):
    """Collect the output of a command.

    `exited` is set when the shell has exited, `finished` once its pipes are closed too.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self.reply = bytearray()
        self._stderr = b""

    def stderr_text(self) -> str:
        return self._stderr.decode(errors="replace").strip() or "nothing on stderr"

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd != 1:
            self._stderr = (self._stderr + data)[-_MAX_STDERR:]
        elif len(self.reply) + len(data) <= MAX_MESSAGE:
            self.reply += data
        elif not self.finished.done():
            self.finished.set_exception(CommandError(f"the reply is over {MAX_MESSAGE} bytes"))

    def process_exited(self) -> None:
        self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.finished.done():
            self.finished.set_result(None)


async def _start(command: str) -> tuple[asyncio.SubprocessTransport, _OutputCollector]:
    loop = asyncio.get_running_loop()
    # Shielded: cancelling the start would kill only the shell, not its process group.
    starting = asyncio.ensure_future(
        loop.subprocess_shell(_OutputCollector, command, start_new_session=True)
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        transport, output = await starting
        _kill_group(transport)
        await _close(transport, output)
        raise


def _feed(stdin: asyncio.WriteTransport, body: bytes) -> None:
    # The pipe closes at any of these lines once the command no longer reads it.
    if not stdin.is_closing():
        stdin.write(body)
    if not stdin.is_closing():
        stdin.write_eof()


def _kill_group(transport: asyncio.SubprocessTransport) -> None:
    with contextlib.suppress(ProcessLookupError):  # the whole group has exited
        os.killpg(transport.get_pid(), signal.SIGKILL)


async def _close(transport: asyncio.SubprocessTransport, output: _OutputCollector) -> None:
    await output.exited  # otherwise the transport would reap the process before the loop
    transport.close()
