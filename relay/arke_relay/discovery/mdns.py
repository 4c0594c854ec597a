"""Relays on the same link find each other by multicast DNS."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from math import inf
from typing import TYPE_CHECKING

from arke.program.logging import Log
from arke_relay.discovery import records
from arke_relay.discovery.addresses import Address
from arke_relay.discovery.hints import Hint
from arke_relay.discovery.records import Flaw, Record

if TYPE_CHECKING:
    from arke_relay.discovery.multicast import Multicast

# Whoever starts while the switch still learns, or has been cut off for longer than records live,
# would never be found if nobody asked again.
_PAUSES = (30.0, 60.0, 120.0, 240.0, 480.0)
_BETWEEN_SEARCHES = 1.0  # seconds, the least that RFC 6762 allows
_MOST_INSTANCES = 1024
_MOST_ASKED = 16  # instances whose missing half is asked for at a time
_OPENING = 5.0  # seconds; it takes milliseconds


class Mdns:
    """Announces this relay, and calls `on_hint` for each other one, new or changed.

    `match` returns which of our RSA keys made a tag for a node id, or None when none did: most
    likely a relay of another network. `counts` has the records ignored, by cause: those of
    `Flaw`, `stranger`, `ourselves`, and `crowded` for too many at a time.

    Without multicast it does nothing, says so once, and tries again from time to time.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        node: str,
        join_port: int,
        tag: bytes,
        match: Callable[[bytes, str], int | None],
        on_hint: Callable[[Hint], None],
        log: Log,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._use(addresses)
        self._node = node
        self._join_port = join_port
        self._tag = tag
        self._match = match
        self._on_hint = on_hint
        self._log = log
        self._known: dict[str, Hint] = {}
        self._ignored: dict[str, None] = {}
        self._multicast: Multicast | None = None
        self._changing = asyncio.Lock()
        self._asking: set[asyncio.Task[None]] = set()
        self._tending: asyncio.Task[None] | None = None
        self._searched = -inf
        self._silent = False

    async def start(self) -> None:
        """Announce and search; raises nothing for want of multicast."""
        async with self._changing:
            await self._open()
        self._tending = asyncio.create_task(self._tend())

    async def stop(self) -> None:
        """Say goodbye, within a second."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait([self._tending])
        async with self._changing:
            await self._close()

    async def update(self, addresses: Sequence[Address]) -> None:
        """Use these addresses from now on. Everybody is found, and hinted, anew."""
        async with self._changing:
            await self._close()
            self._use(addresses)
            await self._open()

    def known(self) -> list[Hint]:
        """Return who is on the link as far as we heard: at most 1024, some perhaps dead.

        For when somebody was lost: a relay that only had its cable cut does not announce itself
        again.
        """
        return list(self._known.values())

    async def search(self) -> None:
        """Ask everybody again. More than once a second is once a second."""
        async with self._changing:
            now = asyncio.get_running_loop().time()
            if self._multicast is not None and now - self._searched >= _BETWEEN_SEARCHES:
                self._searched = now
                await self._multicast.search()

    async def _tend(self) -> None:
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            await asyncio.sleep(pause)
            try:
                await self._revive()
                await self.search()
            except Exception:  # noqa: BLE001  seeds work without multicast, whatever broke it
                self._log.exception("mdns search failed")

    async def _revive(self) -> None:
        async with self._changing:
            if self._multicast is None or not self._multicast.alive:
                await self._close()
                await self._open()

    def _use(self, addresses: Sequence[Address]) -> None:
        self._addresses = tuple(addresses[: records.MOST_ADDRESSES])
        self._own = {address.ip for address in addresses}
        self._loopback = any(address.value.is_loopback for address in addresses)

    async def _open(self) -> None:
        from arke_relay.discovery.multicast import Multicast  # noqa: PLC0415  slow: see there

        self._multicast = Multicast(self._changed, self._log)
        try:
            async with asyncio.timeout(_OPENING):
                await self._multicast.open(
                    self._addresses, self._node, self._join_port, records.text(self._tag)
                )
        except Exception as error:  # noqa: BLE001  whatever it is, seeds work without multicast
            await self._close()
            if not self._silent:
                self._log.warning(
                    "mdns is off: relays are found by -join only, until it works", error=error
                )
            self._silent = True
        except BaseException:
            await self._close()
            raise
        else:
            self._log.debug("mdns is on", addresses=[address.ip for address in self._addresses])
            self._silent = False

    async def _close(self) -> None:
        multicast, self._multicast = self._multicast, None
        asking = list(self._asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        self._known.clear()
        self._ignored.clear()
        if multicast is not None:
            await multicast.close()

    def _changed(self, name: str, gone: bool) -> None:
        key = name.lower()
        if self._multicast is None or key == records.instance(self._node):
            return
        if gone:
            self._known.pop(key, None)
            self._ignored.pop(key, None)
        elif not records.is_instance(name):
            # Anybody may point from our service to any name, and the library raises at some; at
            # capital letters, too, so that it is asked for the key.
            self._ignore(key, Record(name, None, b"", ()), Flaw.NAME)
        elif record := self._multicast.cached(key):
            self._weigh(key, record)
        # Addresses live two minutes in the cache and names more than an hour: what is known of
        # this one still holds, and asking for all of them at every search would be a storm.
        elif key not in self._known and key not in self._ignored:
            self._ask(self._multicast, key)

    def _ask(self, multicast: Multicast, name: str) -> None:
        if len(self._asking) >= _MOST_ASKED:
            self.counts["crowded"] += 1
            return
        task = asyncio.create_task(self._answer(multicast, name))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _answer(self, multicast: Multicast, name: str) -> None:
        if record := await multicast.ask(name):
            self._weigh(name.lower(), record)

    def _weigh(self, key: str, record: Record) -> None:
        hint = self._hint(record)
        if isinstance(hint, str):
            self._ignore(key, record, hint)
            return
        before = self._known.pop(key, None)
        _make_room(self._known)
        self._known[key] = hint
        if hint != before:
            self._on_hint(hint)

    def _hint(self, record: Record) -> Hint | str:
        """Return what a record hints at, or the cause to ignore it."""
        found = records.read(record, loopback=self._loopback)
        if isinstance(found, Flaw):
            return found
        key_index = self._match(found.tag, found.node)
        if key_index is None:
            return "stranger"
        ours = self._own if found.port == self._join_port else set()
        addresses = tuple(ip for ip in found.addresses if ip not in ours)
        if not addresses:
            return "ourselves"
        return Hint(addresses, found.port, found.node, key_index, "mdns")

    def _ignore(self, key: str, record: Record, cause: str) -> None:
        self.counts[cause] += 1
        self._known.pop(key, None)
        self._ignored.pop(key, None)
        _make_room(self._ignored)
        self._ignored[key] = None
        self._log.limited(("mdns", cause), 60.0).debug(
            "mdns record ignored", cause=cause, instance=record.name, addresses=record.addresses
        )


def _make_room(table: dict[str, Hint] | dict[str, None]) -> None:
    if len(table) >= _MOST_INSTANCES:
        del table[next(iter(table))]
