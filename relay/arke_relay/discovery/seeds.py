"""Static seeds: the relays named with `-join HOST:PORT`. Their names are resolved repeatedly."""

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

_LOOKUP_TIMEOUT = 5.0  # seconds
_MAX_ADDRESSES = 16  # of one name

Lookup = Callable[[str], list[str]]
"""Returns the addresses of a name, or raises OSError. It blocks for as long as DNS takes."""


def lookup(name: str) -> list[str]:
    """Resolve a name with the system's resolver."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Seeds:
    """The seeds of one relay: pairs of a host (name or IP literal) and a join port."""

    def __init__(
        self, seeds: Sequence[tuple[str, int]], log: Log, resolve: Lookup = lookup
    ) -> None:
        self._seeds = tuple(dict.fromkeys(seeds))
        self._log = log
        self._resolve = resolve
        self._lookups: dict[str, asyncio.Future[list[str]]] = {}

    async def round(self) -> AsyncGenerator[Hint, None]:
        """Yield a hint for each seed that can be resolved, in the order of the answers.

        Each call resolves the names again, because DNS changes. A lookup times out after 5 s, and
        each name has one lookup at a time. A failed lookup is logged and raises nothing. A seed may
        be this relay itself; the join handshake detects that.
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
            # A timeout is an OSError too. A name that DNS cannot encode is a UnicodeError.
            async with asyncio.timeout(_LOOKUP_TIMEOUT):
                addresses = await self._addresses(host)
        except (OSError, UnicodeError) as error:
            reason = str(error) or f"no answer in {_LOOKUP_TIMEOUT:.0f} s"
        else:
            # Link-local IPv6 needs a zone id, which a hint cannot carry.
            distinct = tuple(dict.fromkeys(each for each in addresses if "%" not in each))
            if distinct:
                return Hint(distinct[:_MAX_ADDRESSES], port, None, None, "seed")
            reason = "it has only link-local addresses"
        self._log.limited(("seed", host), 60.0).warning(
            "seed not found: check -join", host=host, reason=reason
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
            future.add_done_callback(lambda done: self._forget_lookup(name, done))
            self._lookups[name] = future
            # A daemon thread, not the loop's getaddrinfo: the loop waits for its threads when it
            # closes, and a silent DNS server would delay the relay's exit by ten seconds.
            work = partial(_run_lookup, self._resolve, name, loop, future)
            threading.Thread(target=work, daemon=True).start()
        return self._lookups[name]

    def _forget_lookup(self, name: str, lookup: asyncio.Future[list[str]]) -> None:
        del self._lookups[name]
        # Retrieved even if no task waits for it: otherwise asyncio logs the exception as unhandled.
        lookup.exception()


def _run_lookup(
    resolve: Lookup,
    name: str,
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[list[str]],
) -> None:
    try:
        deliver = partial(future.set_result, resolve(name))
    except Exception as error:  # noqa: BLE001  raised where the lookup is awaited
        deliver = partial(future.set_exception, error)
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(deliver)
