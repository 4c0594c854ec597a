"""Iris and native programs with one interface, so that a test runs with every pair of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import arke
from support.iris_client import Handlers, IrisFault, IrisProgram, IrisTimeout, iris_program
from support.iris_tunnel import IrisTunnel, TunnelEnded
from support.relay_status import wait_for_members
from support.relays import Relay
from support.waiting import LIMIT

Tunnel = IrisTunnel | arke.Tunnel

PAIRS = (("iris", "iris"), ("iris", "native"), ("native", "iris"))
"""The protocols of caller and member. Native with native is tested in tests/acceptance."""

FAULT: dict[str, type[Exception]] = {"iris": IrisFault, "native": arke.RemoteError}
TIMEOUT: dict[str, type[Exception]] = {"iris": IrisTimeout, "native": arke.RequestTimeout}
NO_MEMBERS: dict[str, type[Exception]] = {"iris": IrisTimeout, "native": arke.NoSuchCluster}
"""The exceptions that a caller gets, by its protocol."""

TUNNEL_ENDED = (TunnelEnded, arke.TunnelClosed)

_numbers = itertools.count()


class NativeProgram:
    """A native client or service with the methods of `IrisProgram`."""

    def __init__(self, mesh: arke.Mesh, stack: AsyncExitStack) -> None:
        self._mesh = mesh
        self._stack = stack
        self._topics: dict[str, asyncio.Task[None]] = {}
        self.broadcasts: asyncio.Queue[bytes] = asyncio.Queue()
        self.events: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def request(self, cluster: str, body: bytes, within: float = LIMIT) -> bytes:
        return await self._mesh.request(cluster, body, timeout=within)

    async def broadcast(self, cluster: str, body: bytes) -> None:
        await self._mesh.broadcast(cluster, body)

    async def publish(self, topic: str, body: bytes) -> None:
        await self._mesh.publish(topic, body)

    async def subscribe(self, topic: str) -> None:
        events = await self._stack.enter_async_context(self._mesh.subscribe(topic))

        async def listen() -> None:
            async for event in events:
                self.events.put_nowait((event.topic, event.body))

        listening = self._topics[topic] = asyncio.ensure_future(listen())
        self._stack.callback(listening.cancel)

    async def next_broadcast(self) -> bytes:
        async with asyncio.timeout(LIMIT):
            return await self.broadcasts.get()

    async def next_event(self) -> tuple[str, bytes]:
        async with asyncio.timeout(LIMIT):
            return await self.events.get()

    @asynccontextmanager
    async def tunnel(self, cluster: str, within: float = LIMIT) -> AsyncIterator[Tunnel]:
        async with self._mesh.tunnel(cluster, timeout=within) as tunnel:
            yield tunnel


Program = IrisProgram | NativeProgram


@asynccontextmanager
async def program(
    kind: str, port: int, cluster: str = "", handlers: Handlers | None = None
) -> AsyncIterator[Program]:
    """A client, or with a cluster a service, that detaches after the block."""
    handlers = handlers or Handlers()
    if kind == "iris":
        async with iris_program(port, cluster, handlers) as iris:
            yield iris
        return
    async with AsyncExitStack() as stack:
        if not cluster:
            mesh = await stack.enter_async_context(arke.connect(port=port))
            yield NativeProgram(mesh, stack)
            return
        service = arke.Service(cluster, port=port)
        made = NativeProgram(service.mesh, stack)
        _install(service, handlers, made)
        await stack.enter_async_context(service)
        yield made


def _install(service: arke.Service, handlers: Handlers, made: NativeProgram) -> None:
    request_handler, tunnel_handler = handlers.request, handlers.tunnel
    if request_handler:

        @service.on_request
        async def answer(request: arke.Request) -> bytes:
            return await request_handler(request.body)

    if tunnel_handler:

        @service.on_tunnel
        async def converse(tunnel: arke.Tunnel) -> None:
            await tunnel_handler(tunnel)

    @service.on_broadcast
    async def on_broadcast(broadcast: arke.Broadcast) -> None:
        made.broadcasts.put_nowait(broadcast.body)


@dataclass
class ProtocolPair:
    """The protocols and relays of a caller and a member, and a cluster name of its own."""

    caller: str
    member: str
    caller_relay: Relay
    member_relay: Relay
    cluster: str = field(default_factory=lambda: f"cluster {next(_numbers)}")

    @asynccontextmanager
    async def connected_caller(self, handlers: Handlers) -> AsyncIterator[Program]:
        """Yield a caller whose relay knows a running member."""
        async with (
            self.running_member(handlers),
            program(self.caller, self.caller_relay.port) as caller,
        ):
            yield caller

    @asynccontextmanager
    async def running_member(self, handlers: Handlers) -> AsyncIterator[Program]:
        async with program(self.member, self.member_relay.port, self.cluster, handlers) as member:
            async with arke.connect(port=self.caller_relay.port) as observer:
                await wait_for_members(observer, self.cluster, 1)
            yield member


async def echo_request(body: bytes) -> bytes:
    return body


async def echo_tunnel(tunnel: Tunnel) -> None:
    async for message in tunnel:
        await tunnel.send(message)


ECHO = Handlers(request=echo_request, tunnel=echo_tunnel)
