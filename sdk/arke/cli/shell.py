"""Runs one shell command over one body, within a deadline and a bound."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import cast

from arke.wire.limits import MAX_MESSAGE

_TAIL = 2000  # octets of stderr that travel with a failure


class CommandError(Exception):
    """The command failed; the text says how, with the end of its stderr."""


async def run(command: str, body: bytes, *, timeout: float) -> bytes:  # noqa: ASYNC109
    """Return what the command writes to stdout when it gets `body` on stdin.

    Raises CommandError for an exit status other than 0 or a reply over the message limit, and
    TimeoutError after `timeout` seconds. A command that has not ended by itself by then, or when
    this is cancelled, is killed with its whole process group.
    """
    transport, watcher = await _start(command)
    try:
        _feed(cast("asyncio.WriteTransport", transport.get_pipe_transport(0)), body)
        async with asyncio.timeout(timeout):
            await watcher.finished
    except BaseException:
        _kill_group(transport)
        raise
    finally:
        await _leave(transport, watcher)
    status = transport.get_returncode()
    if status:
        how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        raise CommandError(f"{how}: {watcher.complaint()}")
    return bytes(watcher.reply)


class _Watcher(asyncio.SubprocessProtocol):
    """Collects what a command says.

    `exited` is set with the end of the shell itself, `finished` once its pipes are closed too.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.finished: asyncio.Future[None] = loop.create_future()
        self.reply = bytearray()
        self._stderr = b""

    def complaint(self) -> str:
        return self._stderr.decode(errors="replace").strip() or "nothing on stderr"

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd != 1:
            self._stderr = (self._stderr + data)[-_TAIL:]
        elif len(self.reply) + len(data) <= MAX_MESSAGE:
            self.reply += data
        elif not self.finished.done():
            self.finished.set_exception(CommandError(f"it replies over {MAX_MESSAGE} bytes"))

    def process_exited(self) -> None:
        self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.finished.done():
            self.finished.set_result(None)


async def _start(command: str) -> tuple[asyncio.SubprocessTransport, _Watcher]:
    loop = asyncio.get_running_loop()
    # Shielded: of a start that is cancelled halfway only the shell would be killed.
    starting = asyncio.ensure_future(
        loop.subprocess_shell(_Watcher, command, start_new_session=True)
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        transport, watcher = await starting
        _kill_group(transport)
        await _leave(transport, watcher)
        raise


def _feed(stdin: asyncio.WriteTransport, body: bytes) -> None:
    # It closes by itself, at any of these lines, once nobody is left to read.
    if not stdin.is_closing():
        stdin.write(body)
    if not stdin.is_closing():
        stdin.write_eof()


def _kill_group(transport: asyncio.SubprocessTransport) -> None:
    with contextlib.suppress(ProcessLookupError):  # all of it has exited since
        os.killpg(transport.get_pid(), signal.SIGKILL)


async def _leave(transport: asyncio.SubprocessTransport, watcher: _Watcher) -> None:
    await watcher.exited  # or the transport would reap it under the feet of the loop
    transport.close()
