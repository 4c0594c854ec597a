"""A client and service as in the Iris bindings, with all messaging patterns.

It shares no code with the relay, and raises ProtocolViolation if the relay violates the protocol.
"""

from __future__ import annotations

import asyncio
import itertools
import reprlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from support.iris_packets import Op, Packet, ProtocolViolation
from support.iris_tunnel import WINDOW, IrisTunnel
from support.raw_iris import RawIris, raw_iris
from support.waiting import LIMIT


class IrisFault(Exception):
    """The handler failed; the text is its error."""


class IrisTimeout(Exception):
    """The relay reports that a request or tunnel timed out."""


class IrisDisconnected(Exception):
    """The connection has ended; the text is the reason that the relay sent."""


@dataclass(frozen=True)
class Handlers:
    """The handlers of a service. An exception of a request handler is sent as a fault."""

    request: Callable[[bytes], Awaitable[bytes]] | None = None
    tunnel: Callable[[Any], Awaitable[None]] | None = None


class IrisProgram:
    """An attached program. It reads until the connection ends."""

    def __init__(self, raw: RawIris, handlers: Handlers, window: int) -> None:
        self.raw = raw
        self.broadcasts: asyncio.Queue[bytes] = asyncio.Queue()
        self.events: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.reason: str | None = None
        """The reason in the relay's CLOSE packet; None if there was none."""
        self.late_tunnel_packets = 0
        """Number of allowances and closes for tunnels that have ended at this end."""
        self._handlers = handlers
        self._window = window
        self._numbers = itertools.count()
        self._requests: dict[int, asyncio.Future[Any]] = {}
        self._openings: dict[int, asyncio.Future[Any]] = {}
        self._tunnels: dict[int, IrisTunnel] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self._packet_handlers: dict[Op, Callable[..., None]] = {
            Op.REPLY: self._on_reply,
            Op.REQUEST: self._on_request,
            Op.BROADCAST: self.broadcasts.put_nowait,
            Op.PUBLISH: self._on_publish,
            Op.TUNNEL_INIT: self._on_tunnel_init,
            Op.TUNNEL_CONFIRM: self._on_tunnel_confirm,
            Op.TUNNEL_ALLOWANCE: self._on_tunnel_allowance,
            Op.TUNNEL_TRANSFER: self._on_tunnel_transfer,
            Op.TUNNEL_CLOSE: self._on_tunnel_close,
            Op.CLOSE: self._on_close,
        }
        self._reading = asyncio.ensure_future(self._read())

    @property
    def attached(self) -> bool:
        return not self._reading.done()

    # Operations.

    async def request(self, cluster: str, body: bytes, within: float = LIMIT) -> bytes:
        """Make a request. Raises IrisFault, IrisTimeout and IrisDisconnected."""
        number = next(self._numbers)
        fields = (cluster, body, round(within * 1000))
        outcome = await self._wait_for_reply(self._requests, number, within, Op.REQUEST, *fields)
        if isinstance(outcome, str):
            raise IrisFault(outcome)
        assert isinstance(outcome, bytes)
        return outcome

    async def broadcast(self, cluster: str, body: bytes) -> None:
        await self.raw.send_packet(Op.BROADCAST, cluster, body)

    async def publish(self, topic: str, body: bytes) -> None:
        await self.raw.send_packet(Op.PUBLISH, topic, body)

    async def subscribe(self, topic: str) -> None:
        await self.raw.send_packet(Op.SUBSCRIBE, topic)

    async def unsubscribe(self, topic: str) -> None:
        await self.raw.send_packet(Op.UNSUBSCRIBE, topic)

    async def next_broadcast(self) -> bytes:
        async with asyncio.timeout(LIMIT):
            return await self.broadcasts.get()

    async def next_event(self) -> tuple[str, bytes]:
        """Return the topic and the body of the next publication."""
        async with asyncio.timeout(LIMIT):
            return await self.events.get()

    @asynccontextmanager
    async def tunnel(self, cluster: str, within: float = LIMIT) -> AsyncIterator[IrisTunnel]:
        """Open a tunnel, and close it after the block. Raises IrisTimeout and IrisDisconnected."""
        number = next(self._numbers)
        fields = (cluster, round(within * 1000))
        limit = await self._wait_for_reply(self._openings, number, within, Op.TUNNEL_INIT, *fields)
        tunnel = self._tunnels[number]
        assert tunnel.chunk_limit == limit
        try:
            yield tunnel
        finally:
            await tunnel.close()

    async def detach(self) -> None:
        """Detach and wait for the relay's CLOSE. Raises IrisDisconnected if it has another reason.

        Exceptions of handlers and protocol violations of the relay are raised here.
        """
        await self.raw.send_packet(Op.CLOSE)
        await self.wait_until_closed()
        await self.abort()
        if self.reason != "":
            raise IrisDisconnected(self.reason)

    async def wait_until_closed(self) -> str | None:
        """Wait for the end of the connection; return the reason that the relay sent."""
        async with asyncio.timeout(LIMIT):
            await asyncio.wait([self._reading])
        return self.reason

    async def abort(self) -> None:
        """Abort the connection. Raises exceptions of handlers and protocol violations."""
        self.raw.writer.transport.abort()
        for task in [self._reading, *self._tasks]:
            task.cancel()
        await asyncio.gather(self._reading, *self._tasks, return_exceptions=True)
        failures, self._failures = self._failures, []
        if failures:
            raise BaseExceptionGroup("handlers or the relay failed", failures)

    async def _wait_for_reply(
        self,
        waiting: dict[int, asyncio.Future[Any]],
        number: int,
        within: float,
        op: Op,
        *fields: Any,
    ) -> Any:
        if not self.attached:
            raise IrisDisconnected(self.reason)
        answer = waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self.raw.send_packet(op, number, *fields)
            async with asyncio.timeout(within + LIMIT):
                outcome = await answer
        finally:
            del waiting[number]
        if outcome is None:
            raise IrisTimeout
        return outcome

    # Packets from the relay.

    async def _read(self) -> None:
        why: Exception | None = None
        try:
            while self.reason is None:
                self._dispatch(await self.raw.receive_without_limit())
            await self._expect_eof()
        except (EOFError, ConnectionError):
            pass
        except ProtocolViolation as error:
            why = error
            self._failures.append(error)
            self.raw.writer.transport.abort()
        finally:
            for future in (*self._requests.values(), *self._openings.values()):
                if not future.done():
                    future.set_exception(why or IrisDisconnected(self.reason))
            # After a graceful detach the tunnels end without an error.
            reason = "" if self.reason == "" else f"the connection ended: {why or self.reason}"
            for tunnel in self._tunnels.values():
                if tunnel.reason is None:
                    tunnel.on_close(reason)

    async def _expect_eof(self) -> None:
        """After its CLOSE the relay must send nothing more and close the connection."""
        try:
            packet = await self.raw.receive()
        except TimeoutError:
            raise ProtocolViolation("the relay does not close the connection after CLOSE") from None
        raise ProtocolViolation(f"the relay sent {reprlib.repr(packet)} after CLOSE")

    def _dispatch(self, packet: Packet) -> None:
        op, *fields = packet
        if op not in self._packet_handlers:
            raise ProtocolViolation(f"unexpected packet: {reprlib.repr(packet)}")
        self._packet_handlers[op](*fields)

    def _on_reply(self, number: int, outcome: bytes | str | None) -> None:
        self._resolve(self._requests, number, outcome)

    def _on_request(self, number: int, body: bytes, _: int) -> None:
        self._start_task(self._handle_request(number, body))

    def _on_publish(self, topic: str, body: bytes) -> None:
        self.events.put_nowait((topic, body))

    def _on_tunnel_init(self, build: int, limit: int) -> None:
        tunnel = self._create_tunnel(next(self._numbers), limit)
        self.raw.send_packet_nowait(Op.TUNNEL_CONFIRM, build, tunnel.number)
        tunnel.grant_window()
        self._start_task(self._handle_tunnel(tunnel))

    def _on_tunnel_confirm(self, number: int, limit: int | None) -> None:
        if limit is not None and number in self._openings:
            self._create_tunnel(number, limit).grant_window()
        self._resolve(self._openings, number, limit)

    def _on_tunnel_allowance(self, number: int, data: int) -> None:
        if tunnel := self._open_tunnel(number):
            tunnel.on_allowance(data)

    def _on_tunnel_transfer(self, number: int, size: int, chunk: bytes) -> None:
        tunnel = self._open_tunnel(number)
        if tunnel is None:
            raise ProtocolViolation(f"a transfer for tunnel {number}, which has ended")
        tunnel.on_transfer(size, chunk)

    def _on_tunnel_close(self, number: int, reason: str) -> None:
        if tunnel := self._open_tunnel(number):
            tunnel.on_close(reason)

    def _on_close(self, reason: str) -> None:
        self.reason = reason

    def _resolve(self, waiting: dict[int, asyncio.Future[Any]], number: int, value: Any) -> None:
        if number not in waiting or waiting[number].done():
            raise ProtocolViolation(f"a reply to {number}, which has no pending request")
        waiting[number].set_result(value)

    def _create_tunnel(self, number: int, limit: int) -> IrisTunnel:
        tunnel = self._tunnels[number] = IrisTunnel(number, limit, self._window, self.raw)
        return tunnel

    def _open_tunnel(self, number: int) -> IrisTunnel | None:
        if number not in self._tunnels:
            raise ProtocolViolation(f"tunnel {number} is not known")
        tunnel = self._tunnels[number]
        if tunnel.reason is None:
            return tunnel
        self.late_tunnel_packets += 1
        return None

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._failures.append(error)

    async def _handle_request(self, number: int, body: bytes) -> None:
        outcome: bytes | str
        answer = self._handlers.request
        try:
            outcome = "no request handler" if answer is None else await answer(body)
        except Exception as error:  # noqa: BLE001 — the caller gets it
            outcome = str(error)
        await self.raw.send_packet(Op.REPLY, number, outcome)

    async def _handle_tunnel(self, tunnel: IrisTunnel) -> None:
        try:
            if self._handlers.tunnel:
                await self._handlers.tunnel(tunnel)
        finally:
            await tunnel.close()


@asynccontextmanager
async def iris_program(
    port: int, cluster: str = "", handlers: Handlers | None = None, *, window: int = WINDOW
) -> AsyncIterator[IrisProgram]:
    """A client, or with a cluster a service, that detaches after the block."""
    async with raw_iris(port, cluster) as raw:
        program = IrisProgram(raw, handlers or Handlers(), window)
        try:
            yield program
            if program.attached:
                await program.detach()
        finally:
            await program.abort()
