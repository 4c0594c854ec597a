"""Composition root of the relay: builds the parts, starts them, and stops them in order."""

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

_SEED_INTERVAL = 5.0
"""Seconds between two lookups of the static seeds."""

_MDNS_CHECK_INTERVAL = 10.0
"""Seconds between two checks for relays that mDNS knows and that are not linked."""

_DEADLINE_INTERVAL = 0.05
"""Seconds between two checks of request deadlines. Callers check their own more precisely."""

_DRAIN_INTERVAL = 0.01
"""Seconds between two checks whether running work has finished."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of a relay. Times are in seconds, sizes in bytes."""

    network: str
    keys: Sequence[NetworkKey]
    """The first key signs; each key admits peers."""
    bind_addresses: Sequence[Address]
    port: int
    """Loopback port for programs; 0: none, only `socket`."""
    socket: Path | None
    peer_port: int
    seeds: Sequence[tuple[str, int]]
    mdns: bool
    metrics: tuple[str, int] | None
    metrics_names: Sequence[str]
    """Host names under which the metrics may be requested, besides the usual ones."""
    max_message: int
    admission_lifetime: int
    """How long peers admit this relay after a join."""
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
        self._core.node.address = settings.bind_addresses[0].ip
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
            status_document=self._status_document,
        )
        self._local_listeners = LocalListeners(self._loop, self._programs)
        self._network = PeerNetwork(
            environment,
            NodeIdentity(
                settings.network, node, curve.public, settings.keys, settings.admission_lifetime
            ),
            curve,
            PeerSettings(settings.bind_addresses, settings.max_message, settings.version),
            self._core,
            self._flusher,
            self._address_changed,
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
            addresses=[address.ip for address in settings.bind_addresses],
            pid=os.getpid(),
        )
        self._network.start()
        self._start_task(self._every(_DEADLINE_INTERVAL, self._expire))
        self._start_task(self._every(1.0, self._tick))
        self._start_task(self._every(_MDNS_CHECK_INTERVAL, self._repeat_hints))
        if settings.seeds:
            self._start_task(self._resolve_seeds())
        if settings.mdns:
            self._start_task(self._start_mdns())

    async def stop(self) -> None:
        """Drain: accept nothing new, finish running requests, close the links, stop."""
        self._log.info("relay draining", requests=len(self._core.router))
        self._local_listeners.close()
        self._core.router.draining = True
        self._programs.registry.send_draining()
        self._core.peers.announce_draining()
        self._flusher.flush()
        deadline = self._loop.time() + self._settings.grace
        while self._busy and self._loop.time() < deadline:  # noqa: ASYNC110 — many parts are polled
            await asyncio.sleep(_DRAIN_INTERVAL)
        left = len(self._core.router)
        if left:
            self._log.warning("requests aborted", requests=left, after_s=self._settings.grace)
        await self._release()
        self._log.info("relay stopped")

    async def _release(self) -> None:
        """Close everything in order: programs, background tasks, peers, mDNS and metrics."""
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

    def _status_document(self) -> bytes:
        return self._status.document()

    @property
    def _busy(self) -> bool:
        return bool(
            len(self._core.router)
            or self._core.tunnels.reply_tunnels
            or self._programs.registry.delivering(time.monotonic())
            or self._network.queued
            or self._programs.registry.receiving
            or self._network.batches.receiving
        )

    async def _serve_metrics(self, host: str, port: int) -> None:
        # Slow to import, and most relays serve no metrics.
        from arke_relay.metrics.server import MetricsServer  # noqa: PLC0415
        from arke_relay.metrics.snapshot import snapshot  # noqa: PLC0415

        def take_snapshot() -> Snapshot:
            return snapshot(
                self._core,
                self._network.membership,
                {"program": self._programs.registry.queued, "peer": self._network.queued},
                self._ignored_hints,
                self._settings.version,
            )

        names = (host, *self._settings.metrics_names)
        self._metrics = MetricsServer(take_snapshot, self._unready_reason, self._log, names)
        where = await self._metrics.start(host, port)
        self._log.info("metrics served", address=f"{where[0]}:{where[1]}")

    @property
    def _ignored_hints(self) -> dict[str, int]:
        """The number of unused hints, by cause."""
        counts = dict(self._mdns.counts) if self._mdns else {}
        refused = self._network.dial_targets.refused
        return counts | ({"table_full": refused} if refused else {})

    def _unready_reason(self) -> str | None:
        if self._core.router.draining:
            return "draining"
        return None if self._core.router.settled else "looking for peers"

    # Background work.

    async def _every(self, seconds: float, work: Callable[[], None]) -> None:
        """Call `work` at this interval, also after it has failed."""
        while True:
            await asyncio.sleep(seconds)
            try:
                work()
                self._flusher.flush()
            except Exception:  # noqa: BLE001 — it is logged, and the relay continues
                self._log.exception("background work failed")

    def _expire(self) -> None:
        self._core.router.expire(time.monotonic())

    def _tick(self) -> None:
        self._programs.keepalive.tick(time.monotonic())
        self._status.tick()

    async def _resolve_seeds(self) -> None:
        while True:
            async for hint in self._seeds.round():
                self._hint(hint)
            await asyncio.sleep(_SEED_INTERVAL)

    async def _start_mdns(self) -> None:
        settings = self._settings
        network, node = settings.network, self._core.node.id

        def match(tag: bytes, instance: str) -> int | None:
            for index, key in enumerate(settings.keys):
                if secrets.compare_digest(tag, key.tag(network, instance)):
                    return index
            return None

        self._mdns = Mdns(
            settings.bind_addresses,
            node,
            self._network.join_port,
            settings.keys[0].tag(network, node),
            match,
            self._hint,
            self._log,
        )
        await self._mdns.start()

    def _repeat_hints(self) -> None:
        """Repeat the hints of relays that are not linked: they may be reachable again."""
        if self._mdns is None:
            return
        neighbours = self._network.membership.neighbours.values()
        linked = {(neighbour.address, neighbour.join_port) for neighbour in neighbours}
        for hint in self._mdns.known():
            if not any((address, hint.port) in linked for address in hint.addresses):
                self._hint(hint)

    def _hint(self, hint: Hint) -> None:
        now = time.monotonic()
        self._network.dial_targets.hint(
            hint.addresses,
            hint.port,
            hint.node,
            hint.key_index,
            now,
            trusted=hint.source != "mdns",
        )
        self._network.dial_soon()

    def _address_changed(self, address: str) -> None:
        if address != self._core.node.address:
            self._programs.registry.change_address(address)
            self._flusher.flush()

    def _start_task(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(self._loop.create_task(work))
