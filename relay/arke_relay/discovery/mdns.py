"""Relays on the same link find each other by multicast DNS."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from itertools import chain, repeat
from math import inf
from typing import TYPE_CHECKING

from arke.program.logging import Log
from arke_relay.discovery import records
from arke_relay.discovery.addresses import Address
from arke_relay.discovery.hints import Hint
from arke_relay.discovery.records import IgnoreCause, Record

if TYPE_CHECKING:
    from arke_relay.discovery.multicast import Multicast

# A relay that starts while the switch is still learning, or that was disconnected for longer than
# records live, is found only by a repeated query.
_PAUSES = (30.0, 60.0, 120.0, 240.0, 480.0)
_SEARCH_INTERVAL = 1.0  # seconds; the minimum of RFC 6762
_MAX_INSTANCES = 1024
_MAX_QUERIES = 16  # concurrent queries for incomplete instances
_OPEN_TIMEOUT = 5.0  # seconds; it takes milliseconds


class Mdns:
    """Announces this relay, and calls `on_hint` for each new or changed relay on the link.

    `match` returns the index of the RSA key that made a tag for a node id. It returns None when no
    key did, which usually means a relay of another network. `counts` has the number of ignored
    records for each IgnoreCause.

    Where multicast does not work, it logs one warning and tries again from time to time.
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
        self.counts: Counter[IgnoreCause] = Counter()
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
        self._lock = asyncio.Lock()
        self._queries: set[asyncio.Task[None]] = set()
        self._maintenance: asyncio.Task[None] | None = None
        self._last_search = -inf
        self._warned = False

    async def start(self) -> None:
        """Announce and search. Failing multicast is logged, not raised."""
        async with self._lock:
            await self._open()
        self._maintenance = asyncio.create_task(self._maintain())

    async def stop(self) -> None:
        """Withdraw the announcement and close, within a second."""
        if self._maintenance is not None:
            self._maintenance.cancel()
            await asyncio.wait([self._maintenance])
        async with self._lock:
            await self._close()

    async def update(self, addresses: Sequence[Address]) -> None:
        """Use these addresses from now on, and report every relay again."""
        async with self._lock:
            await self._close()
            self._use(addresses)
            await self._open()

    def known(self) -> list[Hint]:
        """Return the known relays on the link: at most 1024, some of them possibly dead.

        The relay uses them after it has lost a peer: a relay whose cable was disconnected does not
        announce itself again.
        """
        return list(self._known.values())

    async def search(self) -> None:
        """Query the link again, at most once a second."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if self._multicast is not None and now - self._last_search >= _SEARCH_INTERVAL:
                self._last_search = now
                await self._multicast.search()

    async def _maintain(self) -> None:
        for pause in chain(_PAUSES, repeat(_PAUSES[-1])):
            await asyncio.sleep(pause)
            try:
                await self._reopen_if_dead()
                await self.search()
            except Exception:  # noqa: BLE001  -join works without multicast
                self._log.exception("mdns search failed")

    async def _reopen_if_dead(self) -> None:
        async with self._lock:
            if self._multicast is None or not self._multicast.alive:
                await self._close()
                await self._open()

    def _use(self, addresses: Sequence[Address]) -> None:
        self._addresses = tuple(addresses[: records.MAX_ADDRESSES])
        self._own = {address.ip for address in addresses}
        self._networks = [address.network for address in addresses]
        self._loopback = any(address.value.is_loopback for address in addresses)

    async def _open(self) -> None:
        from arke_relay.discovery.multicast import Multicast  # noqa: PLC0415  slow: see there

        self._multicast = Multicast(self._changed, self._log)
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT):
                await self._multicast.open(
                    self._addresses, self._node, self._join_port, records.text(self._tag)
                )
        except Exception as error:  # noqa: BLE001  -join works without multicast
            await self._close()
            if not self._warned:
                self._log.warning(
                    "mdns is off: relays are found by -join only, until it works", error=error
                )
            self._warned = True
        except BaseException:
            await self._close()
            raise
        else:
            self._log.debug("mdns is on", addresses=[address.ip for address in self._addresses])
            self._warned = False

    async def _close(self) -> None:
        multicast, self._multicast = self._multicast, None
        asking = list(self._queries)
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
            # A hostile PTR record may name anything, and the library raises an error for some
            # names. Capital letters are among them, so the library is queried by the key.
            self._ignore(key, Record(name, None, b"", ()), IgnoreCause.NAME)
        elif record := self._multicast.cached(key):
            self._evaluate(key, record)
        # Addresses expire from the cache after two minutes, but names after more than an hour. A
        # known relay is still valid, and querying all of them at each search would flood the link.
        elif key not in self._known and key not in self._ignored:
            self._query(self._multicast, key)

    def _query(self, multicast: Multicast, name: str) -> None:
        if len(self._queries) >= _MAX_QUERIES:
            self.counts[IgnoreCause.TOO_MANY_QUERIES] += 1
            return
        task = asyncio.create_task(self._run_query(multicast, name))
        self._queries.add(task)
        task.add_done_callback(self._queries.discard)

    async def _run_query(self, multicast: Multicast, name: str) -> None:
        if record := await multicast.query(name):
            self._evaluate(name.lower(), record)

    def _evaluate(self, key: str, record: Record) -> None:
        hint = self._hint(record)
        if isinstance(hint, IgnoreCause):
            self._ignore(key, record, hint)
            return
        before = self._known.pop(key, None)
        _make_room(self._known)
        self._known[key] = hint
        if hint != before:
            self._on_hint(hint)

    def _hint(self, record: Record) -> Hint | IgnoreCause:
        """Return the hint that a record contains, or why it is ignored."""
        found = records.read(record, loopback=self._loopback)
        if isinstance(found, IgnoreCause):
            return found
        key_index = self._match(found.tag, found.node)
        if key_index is None:
            return IgnoreCause.ANOTHER_NETWORK
        on_link = [ip for ip in found.addresses if self._is_on_link(ip)]
        if not on_link:
            return IgnoreCause.OFF_LINK
        ours = self._own if found.port == self._join_port else set()
        addresses = tuple(ip for ip in on_link if ip not in ours)
        if not addresses:
            return IgnoreCause.OWN_ADDRESS
        return Hint(addresses, found.port, found.node, key_index, "mdns")

    def _is_on_link(self, ip: str) -> bool:
        """Whether an address is in a subnet of this relay. mDNS reaches no host beyond the link.

        So other addresses are an attempt to let this relay connect to third parties. A subnet of a
        single address says nothing, as on a point-to-point link.
        """
        value = ip_address(ip)
        return any(net.num_addresses == 1 or value in net for net in self._networks)

    def _ignore(self, key: str, record: Record, cause: IgnoreCause) -> None:
        self.counts[cause] += 1
        self._known.pop(key, None)
        self._ignored.pop(key, None)
        _make_room(self._ignored)
        self._ignored[key] = None
        self._log.limited(("mdns", cause), 60.0).debug(
            "mdns record ignored", cause=cause, instance=record.name, addresses=record.addresses
        )


def _make_room(table: dict[str, Hint] | dict[str, None]) -> None:
    if len(table) >= _MAX_INSTANCES:
        del table[next(iter(table))]
