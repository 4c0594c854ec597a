"""Active checks: asking each back end now and then whether it is well."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from arke_proxy.choosing.address import Address
from arke_proxy.choosing.rotation import Rotation
from arke_proxy.descriptors import NONE_LEFT

_EVERY = 2.0  # seconds
_JITTER = 0.2  # of them, so that many proxies do not knock in step
_LIMIT = 1.0  # seconds for one check
AT_ONCE = 32
"""Checks of one rotation, each on a connection of its own."""
_LONGEST_LINE = 1024  # bytes of a status line


class Unwell(Exception):
    """A check that failed; the text completes "its check …"."""

    def __init__(self, fault: str, *, reachable: bool = True) -> None:
        super().__init__(fault)
        self.reachable = reachable


Probe = Callable[[Address], Awaitable[None]]
"""Checks one back end. Raises Unwell."""


class Checks:
    """Checks every back end of a rotation every two seconds, from `start` to `stop`."""

    def __init__(
        self, rotation: Rotation, probe: Probe, draw: Callable[[], float] = random.random
    ) -> None:
        self._rotation = rotation
        self._probe = probe
        self._draw = draw
        self._few = asyncio.Semaphore(AT_ONCE)
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._running:
            self._running.cancel()
            await asyncio.wait((self._running,))

    async def _run(self) -> None:
        while True:
            known = [one.address for one in self._rotation.standings()]
            async with asyncio.TaskGroup() as round_:
                for address in known:
                    round_.create_task(self._check(address))
                round_.create_task(asyncio.sleep(_EVERY * (1 + _JITTER * (2 * self._draw() - 1))))

    async def _check(self, address: Address) -> None:
        async with self._few:
            try:
                async with asyncio.timeout(_LIMIT):
                    await self._probe(address)
            except TimeoutError:
                fault = f"was not answered within {_LIMIT:g} s"
                self._rotation.check_failed(address, fault, reachable=True)
            except Unwell as error:
                self._rotation.check_failed(address, str(error), reachable=error.reachable)
            else:
                self._rotation.check_passed(address)


def http_probe(path: str) -> Probe:
    """Make a check that GETs `path` and takes any answer 2xx or 3xx for well."""

    async def probe(address: Address) -> None:
        if address.via:
            return  # the tunnel's own failures say enough
        try:
            reader, writer = await asyncio.open_connection(
                address.host, address.port, limit=_LONGEST_LINE
            )
        except OSError as error:
            if error.errno in NONE_LEFT:
                return  # which is not the back end's fault
            raise Unwell("cannot connect", reachable=False) from error
        try:
            head = f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n"
            writer.write(f"{head}User-Agent: arke-proxy-check\r\n\r\n".encode())
            line = await reader.readuntil(b"\r\n")
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            raise Unwell("was not answered in HTTP") from error
        finally:
            writer.transport.abort()
        version, _, status = line.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            raise Unwell("was not answered in HTTP")
        if status[:1] not in (b"2", b"3"):
            raise Unwell(f"was answered {status[:3].decode('ascii', 'replace')}")

    return probe
