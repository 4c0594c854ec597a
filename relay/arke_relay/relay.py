"""The one place that knows all parts of a relay: builds them, starts them, stops them in order."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arke.program.logging import Log
from arke_relay.attachments.build import build_attachments
from arke_relay.attachments.local_listeners import LocalListeners
from arke_relay.core.message_core import MessageCore
from arke_relay.discovery.addresses import Address
from arke_relay.discovery.hints import Hint
from arke_relay.discovery.mdns import Mdns
from arke_relay.discovery.seeds import Seeds
from arke_relay.environment import RelayEnvironment
from arke_relay.flusher import Flusher
from arke_relay.peers.join_handshake import NodeIdentity
from arke_relay.peers.keys import CurvePair, NetworkKey
from arke_relay.peers.peer_admission import PeerSettings
from arke_relay.peers.peer_network import PeerNetwork
from arke_relay.status import Status

if TYPE_CHECKING:
    from arke_relay.metrics.names import Snapshot
    from arke_relay.metrics.server import MetricsServer

_SEED_ROUND = 5.0
"""Seconds between two look-ups of the static seeds."""

_REMINDER = 10.0
"""Seconds between two looks for relays that are announced and not linked."""

_EXPIRY = 0.05
"""Seconds between two looks for requests at their deadline: the callers' own clocks are exact."""

_DRAIN_LOOK = 0.01


@dataclass(frozen=True, slots=True)
class Settings:
    """What a relay is started with. Times are seconds, sizes octets."""

    network: str
    keys: Sequence[NetworkKey]
    """The first signs; each of them admits."""
    bound: Sequence[Address]
    port: int
    """Where programs attach; 0: nowhere but at `socket`."""
    socket: Path | None
    peer_port: int
    seeds: Sequence[tuple[str, int]]
    mdns: bool
    metrics: tuple[str, int] | None
    max_message: int
    lifetime: int
    grace: float
    version: str


class Relay:
    """A relay that runs from `start` to `stop`."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self._settings = settings
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._tasks: list[asyncio.Task[None]] = []
        node = secrets.token_hex(8)
        curve = CurvePair.fresh(secrets.token_bytes)
        self._flusher = Flusher()
        self._core = MessageCore(node, random.random)
        self._core.node.address = settings.bound[0].ip
        environment = RelayEnvironment(
            loop=self._loop,
            clock=time.monotonic,
            lifetime_clock=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
            random=random.random,
            random_bytes=secrets.token_bytes,
            log=log,
        )
        self._programs = build_attachments(
            environment,
            self._core,
            self._flusher,
            network=settings.network,
            max_message=settings.max_message,
            status_document=self._document,
        )
        self._local_listeners = LocalListeners(self._loop, self._programs)
        self._network = PeerNetwork(
            environment,
            NodeIdentity(settings.network, node, curve.public, settings.keys, settings.lifetime),
            curve,
            PeerSettings(settings.bound, settings.max_message, settings.version),
            self._core,
            self._flusher,
            self._moved,
        )
        self._status = Status(
            self._core,
            self._network.membership,
            settings.network,
            settings.version,
            time.monotonic,
        )
        self._seeds = Seeds(settings.seeds, log)
        self._mdns: Mdns | None = None
        self._metrics: MetricsServer | None = None

    async def start(self) -> None:
        """Open the ports and begin to look for peers. Raises ConfigurationError."""
        settings = self._settings
        try:
            self._network.bind(settings.peer_port)
            if settings.port:
                await self._local_listeners.open_port(settings.port)
            if settings.socket:
                await self._local_listeners.open_socket(settings.socket)
            if settings.metrics:
                await self._serve_metrics(*settings.metrics)
        except BaseException:
            await self._release()
            raise
        self._log.info(
            "relay started",
            node=self._core.node.id,
            network=settings.network,
            port=settings.port,
            peers=f"{self._network.join_port}-{self._network.data_port}",
            addresses=[address.ip for address in settings.bound],
            pid=os.getpid(),
        )
        self._network.start()
        self._begin(self._every(_EXPIRY, self._expire))
        self._begin(self._every(1.0, self._second))
        self._begin(self._every(_REMINDER, self._remind))
        if settings.seeds:
            self._begin(self._seek())
        if settings.mdns:
            self._begin(self._search())

    async def stop(self) -> None:
        """Drain: accept nothing new, finish what is under way, say goodbye, leave."""
        self._log.info("relay draining", calls=len(self._core.router))
        self._local_listeners.close()
        self._core.router.draining = True
        self._programs.registry.send_draining()
        self._core.peers.announce_draining()
        self._flusher.flush()
        ends = self._loop.time() + self._settings.grace
        while self._busy and self._loop.time() < ends:  # noqa: ASYNC110 — it is over many parts
            await asyncio.sleep(_DRAIN_LOOK)
        left = len(self._core.router)
        if left:
            self._log.warning("requests cut off", calls=left, after_s=self._settings.grace)
        await self._release()
        self._log.info("relay stopped")

    async def _release(self) -> None:
        """Close everything there is, in order: programs, peers, then what others look at."""
        self._local_listeners.close()
        self._programs.registry.close()
        self._programs.handshakes.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._network.close_links()
        self._network.close()
        if self._mdns:
            await self._mdns.stop()
        if self._metrics:
            await self._metrics.stop()

    def _document(self) -> bytes:
        return self._status.document()

    @property
    def _busy(self) -> bool:
        return bool(
            len(self._core.router)
            or self._core.tunnels.reply_tunnels
            or self._programs.registry.reading(time.monotonic())
            or self._network.queued
            or self._programs.registry.receiving
            or self._network.batches.receiving
        )

    async def _serve_metrics(self, host: str, port: int) -> None:
        # Slow to import, and most relays are asked for none.
        from arke_relay.metrics.server import MetricsServer  # noqa: PLC0415
        from arke_relay.metrics.snapshot import snapshot  # noqa: PLC0415

        def snap() -> Snapshot:
            return snapshot(
                self._core,
                self._network.membership,
                {"program": self._programs.registry.queued, "peer": self._network.queued},
                self._ignored,
                self._settings.version,
            )

        self._metrics = MetricsServer(snap, self._unready, self._log)
        where = await self._metrics.start(host, port)
        self._log.info("metrics served", address=f"{where[0]}:{where[1]}")

    @property
    def _ignored(self) -> dict[str, int]:
        """Hints that led nowhere, by cause."""
        counts = dict(self._mdns.counts) if self._mdns else {}
        refused = self._network.dial_targets.refused
        return counts | ({"table_full": refused} if refused else {})

    def _unready(self) -> str | None:
        if self._core.router.draining:
            return "draining"
        return None if self._core.router.settled else "looking for peers"

    # What goes on meanwhile.

    async def _every(self, seconds: float, work: Callable[[], None]) -> None:
        """Do something again and again, also after it failed once."""
        while True:
            await asyncio.sleep(seconds)
            try:
                work()
                self._flusher.flush()
            except Exception:  # noqa: BLE001 — it is reported, and the relay goes on
                self._log.exception("regular work failed")

    def _expire(self) -> None:
        self._core.router.expire(time.monotonic())

    def _second(self) -> None:
        self._programs.keepalive.tick(time.monotonic())
        self._status.tick()

    async def _seek(self) -> None:
        while True:
            async for hint in self._seeds.round():
                self._hint(hint)
            await asyncio.sleep(_SEED_ROUND)

    async def _search(self) -> None:
        settings = self._settings
        network, node = settings.network, self._core.node.id

        def match(tag: bytes, instance: str) -> int | None:
            for index, key in enumerate(settings.keys):
                if secrets.compare_digest(tag, key.tag(network, instance)):
                    return index
            return None

        self._mdns = Mdns(
            settings.bound,
            node,
            self._network.join_port,
            settings.keys[0].tag(network, node),
            match,
            self._hint,
            self._log,
        )
        await self._mdns.start()

    def _remind(self) -> None:
        """Hint again at whoever is announced and not linked: a cable may have been out for long."""
        if self._mdns is None:
            return
        neighbours = self._network.membership.neighbours.values()
        linked = {(neighbour.address, neighbour.join_port) for neighbour in neighbours}
        for hint in self._mdns.known():
            if not any((address, hint.port) in linked for address in hint.addresses):
                self._hint(hint)

    def _hint(self, hint: Hint) -> None:
        now = time.monotonic()
        self._network.dial_targets.hint(hint.addresses, hint.port, hint.node, hint.key_index, now)
        self._network.dial_soon()

    def _moved(self, address: str) -> None:
        if address != self._core.node.address:
            self._programs.registry.change_address(address)
            self._flusher.flush()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(self._loop.create_task(work))
