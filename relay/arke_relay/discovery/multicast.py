"""Adapter of the mDNS library (zeroconf): announces one instance and watches for others.

Importing it takes about 60 ms, so the relay imports it only after it has opened its ports.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from zeroconf import ServiceInfo, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from arke.program.logging import Log
from arke_relay.discovery.addresses import Address
from arke_relay.discovery.records import SERVICE, Record, instance

_CLOSE_TIMEOUT = 1.0  # seconds; the three packets that withdraw a record take 0.25 s
_QUERY_TIMEOUT_MS = 3000


class Multicast:
    """One set of multicast sockets. It is opened once and closed once.

    It calls `on_change` with the name of an instance that appeared, changed or disappeared (this
    relay's own included), and whether it disappeared.
    """

    def __init__(self, on_change: Callable[[str, bool], None], log: Log) -> None:
        self._on_change = on_change
        self._log = log
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._announcing: asyncio.Future[None] | None = None
        self._log_handler = _DebugHandler(log)

    async def open(
        self, addresses: Sequence[Address], node: str, port: int, text: Mapping[bytes, bytes]
    ) -> None:
        """Announce `node` at `addresses`, and query for others, on the interfaces of `addresses`.

        Packets from another interface still arrive if another program of this machine has joined
        the group there. IP_MULTICAST_ALL would prevent that, but not together with SO_REUSEPORT,
        which the library sets: Linux would then deliver a packet to any one socket of the group,
        and several relays on one machine would miss packets.

        Raises OSError, or any exception of the library. Call `close` in that case too.
        """
        logger = logging.getLogger("zeroconf")
        logger.addHandler(self._log_handler)
        logger.propagate = False
        interfaces = _one_per_interface(addresses)
        self._zeroconf = AsyncZeroconf(interfaces=interfaces)
        await self._running.async_wait_for_start()
        engine = self._running.engine
        if not engine.senders:
            raise OSError("multicast works on no interface")
        if len(engine.senders) < len(interfaces):
            # A container host often has more than twenty, the kernel's limit of memberships.
            self._log.warning(
                "mdns does not use every interface: choose with -bind, "
                "or raise the sysctl net.ipv4.igmp_max_memberships",
                used=len(engine.senders),
                wanted=len(interfaces),
            )
        self._browse()
        # No probing for the name, which takes half a second: an id has 64 random bits.
        announcing = await self._zeroconf.async_register_service(
            ServiceInfo(
                SERVICE,
                instance(node),
                port=port,
                properties=dict(text),
                server=f"{node}.local.",
                parsed_addresses=[address.ip for address in addresses],
            ),
            cooperating_responders=True,
        )
        self._announcing = asyncio.ensure_future(announcing)

    @property
    def alive(self) -> bool:
        """Return whether every socket is open. A removed interface may close one."""
        engine = self._running.engine
        return not any(each.transport.is_closing() for each in (*engine.readers, *engine.senders))

    async def search(self) -> None:
        """Query the link again: now and after 1, 5 and 14 seconds, as at the start."""
        if self._browser is not None:
            await self._browser.async_cancel()
        self._browse()

    def cached(self, name: str) -> Record | None:
        """Return an instance if the cache has all its records."""
        info = AsyncServiceInfo(SERVICE, name)
        return _record(info) if info.load_from_cache(self._running) else None

    async def query(self, name: str) -> Record | None:
        """Query for the missing records of an instance. Return None after 3 s without an answer."""
        info = AsyncServiceInfo(SERVICE, name)
        return _record(info) if await info.async_request(self._running, _QUERY_TIMEOUT_MS) else None

    async def close(self) -> None:
        """Withdraw the announcement and close. It takes a second at most."""
        if self._zeroconf is not None:
            await self._close(self._zeroconf)
        logging.getLogger("zeroconf").removeHandler(self._log_handler)

    async def _close(self, zeroconf: AsyncZeroconf) -> None:
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._announcing is not None:
            # Otherwise it would announce the record again after it was withdrawn.
            self._announcing.cancel()
            await asyncio.wait([self._announcing])
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await zeroconf.async_close()
        except TimeoutError:
            self._running.close()
        except BaseException:
            self._running.close()
            raise

    @property
    def _running(self) -> Zeroconf:
        assert self._zeroconf is not None, "open must be called first"
        return self._zeroconf.zeroconf

    def _browse(self) -> None:
        self._browser = AsyncServiceBrowser(self._running, SERVICE, handlers=[self._changed])

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        del zeroconf, service_type
        self._on_change(name, state_change is ServiceStateChange.Removed)


class _DebugHandler(logging.Handler):
    """Logs the library's warnings as debug lines: it writes a traceback for each lost interface."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.limited("zeroconf", 60.0).debug("mdns library warning", text=record.getMessage())


def _one_per_interface(addresses: Sequence[Address]) -> list[str]:
    # An interface joins a group only once, so a second address of it would be rejected. IPv6
    # loopback has no multicast.
    first = {
        (each.interface.partition(":")[0], each.value.version): each.ip
        for each in reversed(addresses)
        if each.value.version == 4 or not each.value.is_loopback
    }
    return [each.ip for each in addresses if each.ip in first.values()]


def _record(info: AsyncServiceInfo) -> Record:
    return Record(info.name, info.port, info.text or b"", info.parsed_addresses())
