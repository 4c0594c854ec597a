"""Keeps a program attached to its relay: attaches, and again, and tells what rides on it."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from arke.errors import MeshClosed, ProtocolError, RelayUnreachable
from arke.runtime.relay_connection import Handler, Message, RelayLink
from arke.runtime.send_queue import Turn, call
from arke.values import Node
from arke.wire.limits import MAX_MAP_ENTRIES, MAX_NAME, is_name
from arke.wire.malformed import Malformed
from arke.wire.messages import Op

log = logging.getLogger("arke")

_HANDSHAKE = 5.0
_RETRY_FIRST = 0.05
_RETRY_MOST = 1.0
_SOUND = 5.0  # seconds after which a link was a good one

_NAMES = 1024


class Part(Protocol):
    """What rides on an attachment: calls, topics, a service."""

    @property
    def handlers(self) -> Mapping[int, Handler]:
        """Which messages are for this part."""

    def attached(self, link: RelayLink) -> None:
        """There is a link, the first or another one: say again what must be known there."""

    def relieved(self) -> None:
        """A link that was full has room again."""

    def detached(self, reason: str, last_accepted: int | None) -> None:
        """The link is gone. `last_accepted` is the last call that a leaving relay accepted."""

    def closed(self) -> None:
        """There will be no other link."""


class Attachment:
    """One program's place at its relay. Starts with `open`, ends with `close`."""

    def __init__(self, port: int | None, path: str | os.PathLike[str] | None) -> None:
        self.loop = asyncio.get_running_loop()
        self._port = _port(port) if path is None else 0
        self._path = path
        self._identity = secrets.token_bytes(16)
        self._parts: list[Part] = []
        self._link: RelayLink | None = None
        self.link: RelayLink | None = None
        """The link that takes new messages; None while detached, or while the relay is leaving."""
        self.line: dict[Turn, asyncio.Future[None] | None] = {}
        """Who waits for a link with room, in the order of coming."""
        self._supervisor: asyncio.Task[None] | None = None
        self._closing = False
        self.names: set[str] = set()
        """Names of clusters and topics that are known to be good ones; no more than a few."""
        self.node = Node("", "", "")
        self._handlers: dict[int, Handler] = {
            Op.NODE_ADDRESS: self._on_node,
            Op.DRAINING: self._on_goodbye,
        }

    @property
    def where(self) -> str:
        return str(self._path) if self._path is not None else f"127.0.0.1:{self._port}"

    def carry(self, part: Part) -> None:
        """From now on the part is told of every link, and handed its messages."""
        self._parts.append(part)
        self._handlers.update(part.handlers)
        if self._link:
            for op, handler in part.handlers.items():
                self._link.handle(op, handler)
            part.attached(self._link)

    # Life.

    async def open(self, wait: float) -> None:
        """Attach; keep trying for `wait` seconds. Raises RelayUnreachable or ProtocolError."""
        until = self.loop.time() + wait
        pause = _RETRY_FIRST
        said = False
        while True:
            try:
                link = await self._attach()
                break
            except (OSError, ProtocolError) as error:
                if self.loop.time() + pause > until:
                    if isinstance(error, ProtocolError):
                        raise
                    raise RelayUnreachable(
                        f"no relay at {self.where}: start one with `relay -net NAME -rsa KEYFILE`"
                    ) from error
                if not said:
                    log.warning("no relay at %s yet; trying for %g s", self.where, wait)
                    said = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, _RETRY_MOST)
        self._supervisor = self.loop.create_task(self._supervise(link))

    async def close(self) -> None:
        """Detach. Calls that are open fail with MeshClosed."""
        self._closing = True
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.wait((self._supervisor,))
        link, self._link, self.link = self._link, None, None
        for part in self._parts:
            part.closed()
        self._wake()
        if link:
            link.close()
            done, _ = await asyncio.wait((link.closed,), timeout=1.0)
            if not done:
                link.abort("closed by this program")
                await asyncio.wait((link.closed,))

    async def ready(self, deadline: float | None = None) -> RelayLink:
        """The link, as soon as there is one with room.

        Raises MeshClosed, or RequestTimeout when the relay is away until `deadline`, or for long.
        """
        with self.turn(deadline) as turn:
            return await turn.link()

    def turn(self, deadline: float | None) -> Turn:
        """A place in the line of those who wait for `ready`."""
        return Turn(self, deadline)

    def check_open(self) -> None:
        """Raises MeshClosed."""
        if self._closing or self._supervisor is None:
            raise MeshClosed("the mesh is not open: use `async with`")

    def check_name(self, name: str, what: str) -> None:
        """Raises ValueError for what cannot name a cluster or a topic."""
        check_name(name, what)
        if len(self.names) >= _NAMES:
            self.names.clear()
        self.names.add(name)

    async def _supervise(self, link: RelayLink) -> None:
        pause = _RETRY_FIRST
        while True:
            began = time.monotonic()
            await asyncio.wait((link.closed,))
            self._detached(link)
            # A relay that ends every link at once, for whatever reason, is not to be besieged.
            if time.monotonic() - began > _SOUND:
                pause = _RETRY_FIRST
            while True:
                await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 — spreads load
                pause = min(2 * pause, _RETRY_MOST)
                try:
                    link = await self._attach()
                    break
                except (OSError, ProtocolError) as error:
                    log.debug("cannot attach to %s: %s", self.where, error)
                except Exception:
                    log.exception("cannot attach to %s", self.where)
            log.warning("attached again to the relay at %s", self.where)

    async def _attach(self) -> RelayLink:
        made = RelayLink(self.loop, self._handlers, self._relieved, _program(), self._identity)

        def link() -> asyncio.Protocol:
            return cast("asyncio.Protocol", made)

        async with asyncio.timeout(_HANDSHAKE):
            if self._path is not None:
                await self.loop.create_unix_connection(link, os.fspath(self._path))
            else:
                await self.loop.create_connection(link, "127.0.0.1", self._port)
            try:
                self.node = await made.welcomed
                if made.last_accepted is not None:
                    raise ProtocolError("the relay is leaving")
                self._link = self.link = made
                for part in self._parts:
                    part.attached(made)
            except BaseException:
                self._link = self.link = None
                made.abort("the handshake did not end well")
                raise
        self._wake()
        return made

    def _detached(self, link: RelayLink) -> None:
        self._link = self.link = None
        reason = link.closed.result()
        log.warning("detached from the relay at %s: %s", self.where, reason)
        for part in self._parts:
            part.detached(reason, link.last_accepted)

    def _relieved(self) -> None:
        self._wake()
        for part in self._parts:
            part.relieved()

    def _wake(self) -> None:
        for waiting in self.line.values():
            call(waiting)

    # What the relay says.

    def _on_node(self, message: Message, link: RelayLink) -> None:
        self.node = self.node._replace(address=message[1])

    def _on_goodbye(self, message: Message, link: RelayLink) -> None:
        last_accepted = message[1]
        if type(last_accepted) is not int:
            raise Malformed("a call is a number")
        link.last_accepted = last_accepted
        if link is self._link:
            self.link = None


def _port(port: int | None) -> int:
    if port is not None:
        if not 0 < port < 65536:
            raise ValueError(f"a port is from 1 to 65535, not {port}")
        return port
    text = os.environ.get("ARKE_PORT", "55555")
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise RelayUnreachable(f"ARKE_PORT={text} is not a port: set it to the relay's -port")
    return int(text)


def _program() -> str:
    """How the program is called in the relay's log."""
    return f"{Path(sys.argv[0]).name or 'python'}[{os.getpid()}]"[:200]


def check_name(name: str, what: str) -> None:
    """Raises ValueError for what cannot name a cluster or a topic."""
    if not is_name(name):
        raise ValueError(f"a {what} is named by 1 to {MAX_NAME} octets of text, not {name!r:.60}")


def check_headers(given: Mapping[str, str], what: str, most: int) -> dict[str, str]:
    """Headers or metadata as they can be sent. Raises ValueError for more than `most` octets."""
    size = 0
    for key, value in given.items():
        if type(key) is not str or type(value) is not str:
            raise ValueError(f"{what}: {key!r:.60} is not text, or what it is set to")
        size += len(key.encode()) + len(value.encode())
    if size > most or len(given) > MAX_MAP_ENTRIES:
        raise ValueError(f"{what}: over {MAX_MAP_ENTRIES} entries or {most} octets")
    return dict(given)
