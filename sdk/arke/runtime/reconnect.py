"""Reconnect: keep a program attached to its relay, with exponential backoff after each loss."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import sys
import time
from pathlib import Path
from typing import cast

from arke.errors import MeshClosed, ProtocolError, RelayUnreachable
from arke.runtime.component import Component
from arke.runtime.fork import FORKED, close_in_child, observe
from arke.runtime.relay_connection import Message, MessageHandler, RelayConnection
from arke.runtime.send_queue import SendQueue
from arke.values import Node
from arke.wire.malformed import Malformed
from arke.wire.messages import Op

log = logging.getLogger("arke")

_HANDSHAKE_TIMEOUT = 5.0
_MIN_BACKOFF = 0.05
_MAX_BACKOFF = 1.0
_STABLE_AFTER = 5.0  # seconds after which a connection resets the backoff


class Attachment:
    """The attachment of one program to its relay, from `open` to `close`.

    It replaces a lost connection and lets every component restore its state on the new one.
    """

    def __init__(self, port: int | None, path: str | os.PathLike[str] | None) -> None:
        self.loop = asyncio.get_running_loop()
        self._port = _relay_port(port) if path is None else 0
        self._path = path
        self._identity = secrets.token_bytes(16)
        self._components: list[Component] = []
        self._current: RelayConnection | None = None
        self.connection: RelayConnection | None = None
        """The connection for new messages; None while detached or while the relay shuts down."""
        self.send_queue = SendQueue(self)
        self._supervisor: asyncio.Task[None] | None = None
        self._closing = False
        self._closed_text = "the mesh is not open: use `async with`"
        observe(self)
        self.node = Node("", "", "")
        self._handlers: dict[int, MessageHandler] = {
            Op.NODE_ADDRESS: self._on_node_address,
            Op.DRAINING: self._on_draining,
        }

    @property
    def address(self) -> str:
        """Where the relay is expected, for logs and errors."""
        return str(self._path) if self._path is not None else f"127.0.0.1:{self._port}"

    @property
    def closing(self) -> bool:
        """Whether the program has closed the mesh."""
        return self._closing

    def add_component(self, component: Component) -> None:
        """Dispatch messages to the component, and notify it of every connection from now on."""
        self._components.append(component)
        self._handlers.update(component.handlers)
        if self._current:
            for op, handler in component.handlers.items():
                self._current.set_handler(op, handler)
            component.on_attached(self._current)

    async def open(self, wait: float) -> None:
        """Attach; retry for `wait` seconds. Raises RelayUnreachable or ProtocolError."""
        give_up_at = self.loop.time() + wait
        backoff = _MIN_BACKOFF
        logged = False
        while True:
            try:
                connection = await self._connect()
                break
            except (OSError, ProtocolError) as error:
                if self.loop.time() + backoff > give_up_at:
                    if isinstance(error, ProtocolError):
                        raise
                    raise RelayUnreachable(
                        f"no relay at {self.address}: start one with `relay -net NAME -rsa KEYFILE`"
                    ) from error
                if not logged:
                    log.warning("no relay at %s yet; retrying for %g s", self.address, wait)
                    logged = True
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, _MAX_BACKOFF)
        self._supervisor = self.loop.create_task(self._supervise(connection))

    async def close(self) -> None:
        """Detach. Pending requests fail with MeshClosed."""
        self._closing = True
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.wait((self._supervisor,))
        connection, self._current, self.connection = self._current, None, None
        for component in self._components:
            component.on_closed()
        self.send_queue.wake()
        if connection:
            connection.close()
            done, _ = await asyncio.wait((connection.closed,), timeout=1.0)
            if not done:
                connection.abort("closed by this program")
                await asyncio.wait((connection.closed,))

    async def wait_writable(self, deadline: float) -> RelayConnection:
        """Return the connection as soon as it has room, after the senders that wait already.

        Raises MeshClosed, or RequestTimeout when the deadline passes first.
        """
        with self.send_queue.enter(deadline) as place:
            return await place.connection()

    def check_open(self) -> None:
        """Raise MeshClosed unless the attachment is open."""
        if self._closing or self._supervisor is None:
            raise MeshClosed(self._closed_text)

    def on_forked(self) -> None:
        """Leave the connection to the parent: called in a child process."""
        self._closing = True
        self._closed_text = FORKED
        self.connection = None
        if self._current:
            close_in_child(self._current.descriptor)

    async def _supervise(self, connection: RelayConnection) -> None:
        """Replace each connection that is lost, until the task is cancelled."""
        backoff = _MIN_BACKOFF
        while True:
            attached_at = time.monotonic()
            await asyncio.wait((connection.closed,))
            self._on_connection_lost(connection)
            # The backoff goes on growing while the relay closes each new connection at once.
            if time.monotonic() - attached_at > _STABLE_AFTER:
                backoff = _MIN_BACKOFF
            while True:
                # Jitter: many programs lose the same relay at the same time.
                await asyncio.sleep(backoff * random.uniform(0.75, 1.25))  # noqa: S311
                backoff = min(2 * backoff, _MAX_BACKOFF)
                try:
                    connection = await self._connect()
                    break
                except (OSError, ProtocolError) as error:
                    log.debug("cannot attach to the relay at %s: %s", self.address, error)
                except Exception:
                    log.exception("cannot attach to the relay at %s", self.address)
            log.warning("attached again to the relay at %s", self.address)

    async def _connect(self) -> RelayConnection:
        """Connect, wait for the relay's WELCOME and restore every component's state."""
        connection = RelayConnection(
            self.loop, self._handlers, self._on_writable, _program_name(), self._identity
        )

        def protocol() -> asyncio.Protocol:
            return cast("asyncio.Protocol", connection)

        async with asyncio.timeout(_HANDSHAKE_TIMEOUT):
            if self._path is not None:
                await self.loop.create_unix_connection(protocol, os.fspath(self._path))
            else:
                await self.loop.create_connection(protocol, "127.0.0.1", self._port)
            try:
                self.node = await connection.welcomed
                if connection.last_accepted is not None:
                    raise ProtocolError("the relay is shutting down")
                self._current = self.connection = connection
                for component in self._components:
                    component.on_attached(connection)
            except BaseException:
                self._current = self.connection = None
                connection.abort("the handshake failed")
                raise
        self.send_queue.wake()
        return connection

    def _on_connection_lost(self, connection: RelayConnection) -> None:
        self._current = self.connection = None
        reason = connection.closed.result()
        log.warning("detached from the relay at %s: %s", self.address, reason)
        for component in self._components:
            component.on_detached(reason, connection.last_accepted)

    def _on_writable(self) -> None:
        self.send_queue.wake()
        for component in self._components:
            component.on_writable()

    def _on_node_address(self, message: Message, connection: RelayConnection) -> None:
        self.node = self.node._replace(address=message[1])

    def _on_draining(self, message: Message, connection: RelayConnection) -> None:
        last_accepted = message[1]
        if type(last_accepted) is not int:
            raise Malformed("a request_id must be a number")
        connection.last_accepted = last_accepted
        if connection is self._current:
            self.connection = None


def _relay_port(port: int | None) -> int:
    if port is not None:
        if not 0 < port < 65536:
            raise ValueError(f"port must be between 1 and 65535 (got {port})")
        return port
    text = os.environ.get("ARKE_PORT", "55555")
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise RelayUnreachable(f"ARKE_PORT must be the relay's -port, 1 to 65535 (got {text})")
    return int(text)


def _program_name() -> str:
    """Name the program for the relay's log."""
    return f"{Path(sys.argv[0]).name or 'python'}[{os.getpid()}]"[:200]
