"""Where relays are said to be: `-join HOST:PORT`, looked up again in every round."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from ipaddress import ip_address

from arke.program.logging import Log
from arke_relay.discovery.hints import Hint

_PATIENCE = 5.0  # seconds for one lookup
_MOST_ADDRESSES = 16  # of one name

Lookup = Callable[[str], list[str]]
"""Returns the addresses of a name, or raises OSError; it blocks, for as long as DNS likes."""


def lookup(name: str) -> list[str]:
    """Ask the system's resolver."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Seeds:
    """The seeds of one relay. Each is a host, name or literal, and the port of its join socket."""

    def __init__(
        self, seeds: Sequence[tuple[str, int]], log: Log, resolve: Lookup = lookup
    ) -> None:
        self._seeds = tuple(dict.fromkeys(seeds))
        self._log = log
        self._resolve = resolve
        self._lookups: dict[str, asyncio.Future[list[str]]] = {}

    async def round(self) -> AsyncGenerator[Hint, None]:
        """Yield a hint for every seed that can be found, in the order they are found.

        Names are looked up anew each time, since DNS changes. A lookup gets 5 s, a name one
        lookup at a time however long that takes; a failure is logged and is no error. Which seed
        is this very relay is for the handshake to tell.
        """
        found = [asyncio.ensure_future(self._find(host, port)) for host, port in self._seeds]
        try:
            for each in asyncio.as_completed(found):
                if hint := await each:
                    yield hint
        finally:
            for each in found:
                each.cancel()
            await asyncio.gather(*found, return_exceptions=True)

    async def _find(self, host: str, port: int) -> Hint | None:
        try:
            # A timeout is an OSError too, and a name no DNS could have is a UnicodeError.
            async with asyncio.timeout(_PATIENCE):
                addresses = await self._addresses(host)
        except (OSError, UnicodeError) as error:
            why = str(error) or f"no answer in {_PATIENCE:.0f} s"
        else:
            # Link-local IPv6 needs a zone, which a hint has not.
            distinct = tuple(dict.fromkeys(each for each in addresses if "%" not in each))
            if distinct:
                return Hint(distinct[:_MOST_ADDRESSES], port, None, None, "seed")
            why = "no address that works from another machine"
        self._log.limited(("seed", host), 60.0).warning(
            "seed not found: check -join", host=host, why=why
        )
        return None

    async def _addresses(self, host: str) -> list[str]:
        try:
            return [str(ip_address(host))]
        except ValueError:
            return await asyncio.shield(self._lookup(host))

    def _lookup(self, name: str) -> asyncio.Future[list[str]]:
        if name not in self._lookups:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[list[str]] = loop.create_future()
            future.add_done_callback(lambda done: self._finished(name, done))
            self._lookups[name] = future
            # Not the loop's own getaddrinfo: leaving waits for its threads, and a resolver whose
            # server is silent would hold up the relay's exit for ten seconds.
            work = partial(_look_up, self._resolve, name, loop, future)
            threading.Thread(target=work, daemon=True).start()
        return self._lookups[name]

    def _finished(self, name: str, lookup: asyncio.Future[list[str]]) -> None:
        del self._lookups[name]
        # Looked at even if nobody waits any more, or asyncio reports it as forgotten.
        lookup.exception()


def _look_up(
    resolve: Lookup,
    name: str,
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[list[str]],
) -> None:
    try:
        deliver = partial(future.set_result, resolve(name))
    except Exception as error:  # noqa: BLE001  it is raised where the lookup is awaited
        deliver = partial(future.set_exception, error)
    with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
        loop.call_soon_threadsafe(deliver)
