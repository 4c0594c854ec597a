"""The one place that knows the mDNS library: it announces one instance and watches for others.

Importing this takes some 60 ms, which is why nobody does before the relay listens.
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

_GOODBYE = 1.0  # seconds for the three packets of a goodbye, which take 0.25
_ANSWER = 3000  # milliseconds to wait for the rest of an instance


class Multicast:
    """One set of sockets, opened once and closed once.

    `on_change` is called with the name of an instance of our service, ours included, and whether
    it is gone.
    """

    def __init__(self, on_change: Callable[[str, bool], None], log: Log) -> None:
        self._on_change = on_change
        self._log = log
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._announcing: asyncio.Future[None] | None = None
        self._complaints = _Complaints(log)

    async def open(
        self, addresses: Sequence[Address], node: str, port: int, text: Mapping[bytes, bytes]
    ) -> None:
        """Announce `node` at `addresses`, and start to ask for others, on their interfaces only.

        What other interfaces bring is still heard where another program of this machine has
        joined the group there. IP_MULTICAST_ALL would end that, but not beside SO_REUSEPORT,
        which the library sets: Linux then hands what is for one socket to any of the group, and
        relays of one machine go deaf.

        Raises OSError, and whatever else the library finds to raise. Close it all the same.
        """
        logger = logging.getLogger("zeroconf")
        logger.addHandler(self._complaints)
        logger.propagate = False
        interfaces = _one_per_interface(addresses)
        self._zeroconf = AsyncZeroconf(interfaces=interfaces)
        await self._running.async_wait_for_start()
        engine = self._running.engine
        if not engine.senders:
            raise OSError("no interface takes part in multicast")
        if len(engine.senders) < len(interfaces):
            # More than twenty is usual on a container host, and is more than the kernel joins.
            self._log.warning(
                "mdns does not use every interface: choose with -bind, "
                "or raise the sysctl net.ipv4.igmp_max_memberships",
                used=len(engine.senders),
                wanted=len(interfaces),
            )
        self._browse()
        # Probing for the name would take half a second; no two nodes draw the same 64 random bits.
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
        """Whether every socket is still open; an interface that goes away may close one."""
        engine = self._running.engine
        return not any(each.transport.is_closing() for each in (*engine.readers, *engine.senders))

    async def search(self) -> None:
        """Ask everybody again: now and 1, 5 and 14 seconds later, as at the start."""
        if self._browser is not None:
            await self._browser.async_cancel()
        self._browse()

    def cached(self, name: str) -> Record | None:
        """Return an instance, if all of it has been heard lately."""
        info = AsyncServiceInfo(SERVICE, name)
        return _record(info) if info.load_from_cache(self._running) else None

    async def ask(self, name: str) -> Record | None:
        """Return an instance, asking for what has not been heard; None if nobody answers in 3 s."""
        info = AsyncServiceInfo(SERVICE, name)
        return _record(info) if await info.async_request(self._running, _ANSWER) else None

    async def close(self) -> None:
        """Say goodbye and close; takes at most a second."""
        if self._zeroconf is not None:
            await self._close(self._zeroconf)
        logging.getLogger("zeroconf").removeHandler(self._complaints)

    async def _close(self, zeroconf: AsyncZeroconf) -> None:
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._announcing is not None:
            # Or it would announce again what the goodbye takes back.
            self._announcing.cancel()
            await asyncio.wait([self._announcing])
        try:
            async with asyncio.timeout(_GOODBYE):
                await zeroconf.async_close()
        except TimeoutError:
            self._running.close()
        except BaseException:
            self._running.close()
            raise

    @property
    def _running(self) -> Zeroconf:
        assert self._zeroconf is not None, "open comes first"
        return self._zeroconf.zeroconf

    def _browse(self) -> None:
        self._browser = AsyncServiceBrowser(self._running, SERVICE, handlers=[self._changed])

    def _changed(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        del zeroconf, service_type
        self._on_change(name, state_change is ServiceStateChange.Removed)


class _Complaints(logging.Handler):
    """Takes the library's warnings, such as a traceback for every cable pulled, as a debug line."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.limited("zeroconf", 60.0).debug("mdns complains", text=record.getMessage())


def _one_per_interface(addresses: Sequence[Address]) -> list[str]:
    # An interface joins a group once: a second address of it would only be refused. IPv6 loopback
    # has no multicast.
    first = {
        (each.interface.partition(":")[0], each.value.version): each.ip
        for each in reversed(addresses)
        if each.value.version == 4 or not each.value.is_loopback
    }
    return [each.ip for each in addresses if each.ip in first.values()]


def _record(info: AsyncServiceInfo) -> Record:
    return Record(info.name, info.port, info.text or b"", info.parsed_addresses())
