"""Keeps a program attached to its relay: attaches, registers, subscribes, and again."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from arke.calls import Call, Calls
from arke.errors import (
    ArkeError,
    MemberLost,
    MeshClosed,
    MessageTooLarge,
    NoSuchCluster,
    Overloaded,
    ProtocolError,
    RelayUnreachable,
    RemoteError,
    RequestTimeout,
)
from arke.link import Handler, Message, RelayLink
from arke.values import NO_HEADERS, Event, Node
from arke.wire.bounds import MAX_NAME
from arke.wire.messages import Failure, Op

log = logging.getLogger("arke")

_HANDSHAKE = 5.0
_RETRY_FIRST = 0.05
_RETRY_MOST = 1.0
_SOUND = 5.0  # seconds after which a link was a good one

_NAMES = 1024

_AWAY = 30.0
"""Seconds that a message without a deadline waits for a relay that is away."""

_FAILURES: dict[int, type[ArkeError]] = {
    Failure.NO_SUCH_CLUSTER: NoSuchCluster,
    Failure.MEMBER_LOST: MemberLost,
    Failure.OVERLOADED: Overloaded,
    Failure.TIMED_OUT: RequestTimeout,
    Failure.TOO_LARGE: MessageTooLarge,
}

_REQUEST = Op.REQUEST.value
_new = tuple.__new__  # half the price of a named tuple's own constructor


class Listener(Protocol):
    """Who wants the events of a topic."""

    def deliver(self, event: Event) -> None: ...
    def end(self) -> None: ...


class Provider(Protocol):
    """The service behind an attachment."""

    cluster: str

    def on_call(self, message: Message, link: RelayLink) -> None: ...
    def on_told(self, message: Message, link: RelayLink) -> None: ...
    def on_detached(self, reason: str) -> None: ...


class Attachment:
    """One program's place at its relay. Starts with `open`, ends with `close`."""

    def __init__(self, port: int | None, path: str | os.PathLike[str] | None) -> None:
        self.loop = asyncio.get_running_loop()
        self._port = _port(port) if path is None else 0
        self._path = path
        self._link: RelayLink | None = None
        self.link: RelayLink | None = None
        """The link that takes new messages; None while detached, or while the relay is leaving."""
        self._last_accepted: int | None = None
        self._held_back = False  # some call could not be sent yet
        self._attached: list[asyncio.Future[None]] = []
        self._topics: dict[str, list[Listener]] = {}
        self._supervisor: asyncio.Task[None] | None = None
        self._closing = False
        self._served = False
        self.names: set[str] = set()
        """Names of clusters and topics that are known to be good ones; no more than a few."""
        self.calls = Calls(self.loop)
        self.provider: Provider | None = None
        self.node = Node("", "", "")
        self._handlers: dict[int, Handler] = {
            Op.NODE: self._on_node,
            Op.GOODBYE: self._on_goodbye,
            Op.REPLY: self._on_reply,
            Op.FAULT: self._on_fault,
            Op.FAILED: self._on_failed,
            Op.EVENT: self._on_event,
        }

    @property
    def where(self) -> str:
        return str(self._path) if self._path is not None else f"127.0.0.1:{self._port}"

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
        self.calls.fail_all(MeshClosed("the mesh was closed"))
        for listeners in self._topics.values():
            for listener in listeners:
                listener.end()
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
        until = time.monotonic() + _AWAY
        if deadline is not None:
            until = min(until, deadline)
        while True:
            self.check_open()
            link = self.link
            if link is None:
                left = until - time.monotonic()
                future = self.loop.create_future()
                self._attached.append(future)
                try:
                    await asyncio.wait((future,), timeout=max(0.0, left))
                finally:
                    if not future.done():
                        self._attached.remove(future)
                if not future.done():
                    raise RequestTimeout(f"the relay at {self.where} is away")
            elif link.congested:
                await link.room()
            else:
                return link

    def check_open(self) -> None:
        """Raises MeshClosed."""
        if self._closing or self._supervisor is None:
            raise MeshClosed("the mesh is not open: use `async with`")

    async def _supervise(self, link: RelayLink) -> None:
        pause = _RETRY_FIRST
        while True:
            began = time.monotonic()
            await asyncio.wait((link.closed,))
            self._detached(link.closed.result())
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
            log.warning("attached again to the relay at %s", self.where)

    async def _attach(self) -> RelayLink:
        def link() -> RelayLink:
            return RelayLink(self.loop, self._handlers, self._send_held_back, _program())

        async with asyncio.timeout(_HANDSHAKE):
            if self._path is not None:
                _, made = await self.loop.create_unix_connection(link, os.fspath(self._path))
            else:
                _, made = await self.loop.create_connection(link, "127.0.0.1", self._port)
            try:
                self.node = await made.welcomed
            except BaseException:
                made.abort("the handshake did not end well")
                raise
        self._link = self.link = made
        self._last_accepted = None
        for topic in self._topics:
            made.send((Op.SUBSCRIBE.value, topic))
        if self._served and self.provider:
            self._register(made)
        self._wake()
        self._send_held_back()
        return made

    def _detached(self, reason: str) -> None:
        self._link = self.link = None
        log.warning("detached from the relay at %s: %s", self.where, reason)
        self.calls.lost(reason, self._last_accepted)
        self._held_back = True
        if self.provider:
            self.provider.on_detached(reason)

    def _wake(self) -> None:
        attached, self._attached = self._attached, []
        for future in attached:
            if not future.done():
                future.set_result(None)

    # What a program does.

    def begin(
        self,
        cluster: str,
        body: bytes,
        timeout: float,
        idempotent: bool,
        headers: Mapping[str, str] | None,
    ) -> Call:
        """Hand a request to the relay now, or when there is one again and it has room.

        `timeout` is in seconds. Raises MeshClosed, MessageTooLarge.
        """
        link = self.link
        if link is None:
            self.check_open()
        elif len(body) > link.max_message:
            raise too_large(body, link)
        call = Call(self.loop.create_future(), time.monotonic() + timeout, idempotent)
        number = self.calls.add(call)
        # In whole milliseconds, and not less than there are.
        call.message = (
            _REQUEST,
            number,
            cluster,
            body,
            int(timeout * 1000) + 1,
            idempotent,
            headers,
        )
        if link is None or link.congested:
            self._held_back = True
        elif timeout > 0:
            send_body = link.send_body
            call.sent = send_body(call.message, 3)
            if not call.sent:
                self._held_back = True
        return call

    def _send_held_back(self) -> None:
        if not self._held_back:
            return
        self._held_back = False
        for call in self.calls.unsent():
            link = self.link
            if link is None or link.congested:
                self._held_back = True
                return
            left = call.deadline - time.monotonic()
            if left > 0 and not call.future.done():
                self._send_late(call, link, left)

    def _send_late(self, call: Call, link: RelayLink, left: float) -> None:
        """Send a call that waited, or that goes again: with what is left of its time."""
        _, _, cluster, body, _, idempotent, headers = call.message
        if len(body) > link.max_message:
            self.calls.drop(call)
            call.future.set_exception(too_large(body, link))
            return
        timeout = int(left * 1000) + 1
        call.message = (_REQUEST, call.id, cluster, body, timeout, idempotent, headers)
        call.sent = link.send_body(call.message, 3)
        if not call.sent:
            self._held_back = True

    def cancel_call(self, call: Call) -> None:
        self.calls.drop(call)
        if call.sent and self._link:
            self._link.send((Op.CANCEL.value, call.id))

    def check_name(self, name: str, what: str) -> None:
        """Raises ValueError for what cannot name a cluster or a topic."""
        check_name(name, what)
        if len(self.names) >= _NAMES:
            self.names.clear()
        self.names.add(name)

    async def status(self) -> bytes:
        call = Call(self.loop.create_future(), time.monotonic() + 5.0, idempotent=False)
        link = await self.ready(call.deadline)
        call.message = (Op.STATUS.value, self.calls.add(call))
        call.sent = True
        link.send(call.message)
        return await call.future

    def listen(self, topic: str, listener: Listener) -> None:
        self.check_open()
        listeners = self._topics.setdefault(topic, [])
        listeners.append(listener)
        if len(listeners) == 1 and self.link:
            self.link.send((Op.SUBSCRIBE.value, topic))

    def unlisten(self, topic: str, listener: Listener) -> None:
        listeners = self._topics[topic]
        listeners.remove(listener)
        if not listeners:
            del self._topics[topic]
            if self.link:
                self.link.send((Op.UNSUBSCRIBE.value, topic))

    async def serve(self, provider: Provider) -> None:
        """Register the provider's cluster, and again with every new link; wait for the first."""
        self.provider = provider
        self._served = True
        if self.link:
            self._register(self.link)
            await self.link.settled()

    async def unserve(self) -> None:
        """Leave the cluster; when this returns the relay hands over nothing more."""
        self._served = False
        if self.link:
            self.link.send((Op.LEAVE.value,))
            await self.link.settled()

    def _register(self, link: RelayLink) -> None:
        assert self.provider
        link.handle(Op.CALL, self.provider.on_call)
        link.handle(Op.TOLD, self.provider.on_told)
        link.send((Op.REGISTER.value, self.provider.cluster))

    # What the relay says.

    def _on_node(self, message: Message, link: RelayLink) -> None:
        self.node = self.node._replace(address=message[1])

    def _on_goodbye(self, message: Message, link: RelayLink) -> None:
        if link is self._link:
            self.link = None
            self._last_accepted = int(message[1])

    def _on_reply(self, message: Message, link: RelayLink) -> None:
        _, number, body = message
        if type(body) is not bytes:
            body = link.body(message, 2)
            if body is None:
                self._fail(number, Overloaded("no room to join the answer"))
                return
        call = self.calls.take(number)
        if call is not None:
            future = call.future
            if not future.done():
                future.set_result(body)

    def _on_fault(self, message: Message, link: RelayLink) -> None:
        self._fail(message[1], RemoteError(str(message[2]), str(message[3])))

    def _on_failed(self, message: Message, link: RelayLink) -> None:
        _, number, failure, text = message
        if number in self.calls:  # or this program's own clock was the first to tell
            self._fail(number, _FAILURES.get(failure, ProtocolError)(str(text)))

    def _fail(self, call_id: int, error: Exception) -> None:
        call = self.calls.take(call_id)
        if call is not None and not call.future.done():
            call.future.set_exception(error)

    def _on_event(self, message: Message, link: RelayLink) -> None:
        _, topic, body, sender, headers = message
        listeners = self._topics.get(topic)
        if listeners is None:
            return
        if headers is None:
            headers = NO_HEADERS
        for each in (body,) if type(body) is bytes else link.casts(body):
            event = _new(Event, (topic, each, sender, headers))
            for listener in listeners:
                listener.deliver(event)


def too_large(body: bytes, link: RelayLink) -> MessageTooLarge:
    return MessageTooLarge(f"{len(body)} bytes are over the relay's limit of {link.max_message}")


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
    try:
        good = 0 < len(name.encode()) <= MAX_NAME
    except (AttributeError, UnicodeEncodeError):
        good = False
    if not good:
        raise ValueError(f"a {what} is named by 1 to {MAX_NAME} octets of text, not {name!r:.60}")
