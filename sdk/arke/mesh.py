"""The mesh as a program sees it: call, tell, listen."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from copy import copy
from time import monotonic
from types import TracebackType
from typing import Any, Self

from arke.errors import (
    ArkeError,
    MemberLost,
    MeshClosed,
    NoSuchCluster,
    RemoteError,
    RequestTimeout,
    TunnelClosed,
)
from arke.runtime.cluster_watch import Watches
from arke.runtime.deadlines import Call
from arke.runtime.reconnect import Attachment, check_headers, check_name
from arke.runtime.resend import Caller, too_large
from arke.runtime.topic_subscriptions import Topics
from arke.runtime.tunnel_table import Tunnels
from arke.subscription import Subscription
from arke.tunnel import Tunnel
from arke.values import Answer, Change, Member, Node
from arke.wire.limits import (
    HTTP_SEGMENT,
    HTTP_WINDOW,
    MAX_HEADERS,
    MAX_TIMEOUT,
    MIN_WINDOW,
    WINDOW,
)
from arke.wire.messages import Op, Purpose

_ASK = Op.REQUEST_MEMBER.value
_BROADCAST = Op.BROADCAST.value
_PUBLISH = Op.PUBLISH.value
_MAX_PARTS = 64 * 1024 * 1024  # largest message of a tunnel, unless set otherwise


class Mesh:
    """An attachment to the network, made by `connect`; use it with `async with`.

    Methods may be called from any number of tasks of the loop that opened it. While the relay is
    away, calls wait for it within their deadline.
    """

    def __init__(
        self,
        port: int | None = None,
        path: str | os.PathLike[str] | None = None,
        wait: float = 5.0,
    ) -> None:
        self._port = port
        self._path = path
        self._wait = wait
        self._attachment: Attachment | None = None  # since it was opened
        self._caller: Caller
        self._topics: Topics
        self._watches: Watches
        self._tunnels: Tunnels
        self._scope: tuple[float, str | None] | None = None
        """The deadline and the `traceparent` of the request whose handler makes further calls."""

    async def __aenter__(self) -> Self:
        attachment = Attachment(self._port, self._path)
        self._caller = Caller(attachment)
        self._topics = Topics(attachment)
        self._watches = Watches(attachment)
        self._tunnels = Tunnels(attachment, self._caller)
        for part in (self._caller, self._topics, self._watches, self._tunnels):
            attachment.carry(part)
        await attachment.open(self._wait)
        self._attachment = attachment
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Detach. What was told before still leaves; open requests raise MeshClosed."""
        attachment = self._attachment
        if attachment is not None:
            try:
                if attachment.link:
                    await attachment.link.settled()
            finally:
                await attachment.close()

    @property
    def node(self) -> Node:
        """The node this program runs on; its address is always the latest."""
        return self.attachment.node

    @property
    def attached(self) -> bool:
        """Whether the relay is there at this moment; while it is not, calls wait for it."""
        return self.attachment.link is not None

    @property
    def late(self) -> int:
        """Answers that were dropped: they came after nobody waited for them any more."""
        return self.caller.calls.late

    async def request(
        self,
        cluster: str,
        body: bytes,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 — the deadline travels with the request
        headers: Mapping[str, str] | None = None,
        idempotent: bool = False,
        member: str | None = None,
    ) -> bytes:
        """One member of the cluster answers; `timeout` is in seconds.

        An `idempotent` request may be handled twice: it is also sent again after its member or
        relay died. `member` is the id of the only one that may answer. Whoever stops waiting, by
        cancelling this, stops the handler too. Raises NoSuchCluster, NoSuchMember, MemberLost,
        Overloaded, RequestTimeout, RemoteError, ConnectionLost, MessageTooLarge; ValueError for a
        bad name, time-out or header.
        """
        call = self._begin(cluster, body, timeout, headers, idempotent, member)
        try:
            reply: bytes = await call.future
        except asyncio.CancelledError:
            self._caller.cancel(call)
            raise
        return reply

    def begin_request(
        self, cluster: str, body: bytes, *, timeout: float = 5.0, idempotent: bool = False
    ) -> asyncio.Future[bytes]:
        """Begin what `request` does, and return what will be its outcome.

        For programs that have many under way and wait for none: each costs no coroutine, but a
        callback. Cancelling it does not stop the handler. Raises MeshClosed, MessageTooLarge, and
        ValueError for a bad name or time-out; the rest comes as the outcome.
        """
        call = self._begin(cluster, body, timeout, None, idempotent, None)
        future: asyncio.Future[bytes] = call.future
        return future

    def _begin(
        self,
        cluster: str,
        body: bytes,
        timeout: float,
        headers: Mapping[str, str] | None,
        idempotent: bool,
        member: str | None,
    ) -> Call:
        if not 0 <= timeout <= MAX_TIMEOUT:
            raise ValueError(f"a time-out is from 0 to {MAX_TIMEOUT:g} seconds, not {timeout}")
        attachment = self._attachment or self.attachment
        if self._scope is not None:
            timeout = min(timeout, self._scope[0] - monotonic())
        if (
            headers is not None
            or self._scope is not None
            or cluster not in attachment.names
            or type(body) is not bytes
        ):
            self._check("cluster", cluster, body)
            headers = self._headers(headers)
        if member is None:
            return self._caller.begin(cluster, body, timeout, idempotent, headers)
        check_name(member, "member")
        rest = idempotent, headers
        return self._caller.begin_special(_ASK, member, body, timeout, rest, idempotent=idempotent)

    async def request_many(
        self,
        cluster: str,
        body: bytes,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 — for each part, and told to the member
        headers: Mapping[str, str] | None = None,
        member: str | None = None,
    ) -> AsyncIterator[bytes]:
        """One member answers in parts, as many as its handler yields.

        The handler goes on only as parts are taken, and is ended when the iteration is. `timeout`
        is for the first part, and again for each further one, in seconds. Raises what `request`
        does.
        """
        opened = self._open(
            cluster, body, timeout, member, Purpose.MULTIPART_REPLY, WINDOW, _MAX_PARTS, headers
        )
        async with await opened as tunnel:
            try:
                while True:
                    try:
                        async with asyncio.timeout(timeout):
                            part = await anext(tunnel)
                    except TimeoutError:
                        raise RequestTimeout("no further part in time") from None
                    yield part
            except StopAsyncIteration:
                return
            except TunnelClosed as error:
                if error.type:
                    raise RemoteError(error.type, error.text) from None
                raise MemberLost(str(error)) from None

    async def request_all(
        self,
        cluster: str,
        body: bytes,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 — the deadline travels with the requests
        headers: Mapping[str, str] | None = None,
    ) -> list[Answer]:
        """Every member of the cluster is asked; what each answered, or why it did not.

        Raises NoSuchCluster when there is none; ValueError for a bad name, time-out or header.
        """
        began = monotonic()
        members = await self.members(cluster)
        if not members:
            raise NoSuchCluster(f"nobody in the network serves {cluster!r}")
        left = max(0.0, timeout - (monotonic() - began))

        async def ask(each: Member) -> Answer:
            try:
                reply = await self.request(
                    cluster, body, timeout=left, headers=headers, member=each.id
                )
            except ArkeError as error:
                return Answer(each, b"", error)
            return Answer(each, reply, None)

        return list(await asyncio.gather(*(ask(each) for each in members)))

    @asynccontextmanager
    async def tunnel(
        self,
        cluster: str,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 — the deadline travels with the opening
        headers: Mapping[str, str] | None = None,
        member: str | None = None,
        window: int = WINDOW,
        max_message: int = _MAX_PARTS,
    ) -> AsyncIterator[Tunnel]:
        """A stream of messages with one member of the cluster: `async with mesh.tunnel(…) as t`.

        `timeout` is for its opening, in seconds. `window` is how many octets may come before they
        are read, `max_message` the largest message that may come, both octets. Leaving the block
        closes the tunnel; by an exception, it breaks it. Raises what `request` does.
        """
        opened = self._open(
            cluster, b"", timeout, member, Purpose.TUNNEL, window, max_message, headers
        )
        async with await opened as tunnel:
            yield tunnel

    async def http_tunnel(
        self,
        member: str,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 — the deadline travels with the opening
    ) -> Tunnel:
        """A connection to the HTTP server of a member, which the member itself makes.

        It leads where the member's service said with `http`, and nowhere else. Messages of up to
        64 KiB are the octets of the connection, cut anywhere; `close_send` ends one direction of
        it. `timeout` is for the opening, in seconds. The caller closes the tunnel, or breaks it
        off. Raises what `request` does: RemoteError says why the member could not connect,
        Overloaded that it did not try.
        """
        return await self._open(
            "", b"", timeout, member, Purpose.HTTP, HTTP_WINDOW, HTTP_SEGMENT, None
        )

    async def _open(
        self,
        cluster: str,
        body: bytes,
        timeout: float,  # noqa: ASYNC109 — the deadline travels with the opening
        member: str | None,
        purpose: Purpose,
        window: int,
        largest: int,
        headers: Mapping[str, str] | None,
    ) -> Tunnel:
        if not 0 <= timeout <= MAX_TIMEOUT:
            raise ValueError(f"a time-out is from 0 to {MAX_TIMEOUT:g} seconds, not {timeout}")
        if window < MIN_WINDOW or largest < 1:
            raise ValueError(f"a window is {MIN_WINDOW} bytes at least, and a message one")
        if member is None or cluster:
            self._check("cluster", cluster, body)
        if member is not None:
            check_name(member, "member")
        made = self._headers(headers)
        if self._scope is not None:
            timeout = min(timeout, self._scope[0] - monotonic())
        call = self._tunnels.open(cluster, body, timeout, member, purpose, window, largest, made)
        try:
            tunnel: Tunnel = await call.future
        except asyncio.CancelledError:
            if call.future.done() and not call.future.cancelled() and not call.future.exception():
                call.future.result().abort("nobody waits for it any more")
            self._caller.cancel(call)
            raise
        return tunnel

    async def members(self, cluster: str) -> list[Member]:
        """Who serves the cluster, as far as the relay knows."""
        check_name(cluster, "cluster")
        self.attachment.check_open()
        return await self._watches.members(cluster)

    def watch(self, cluster: str) -> AsyncIterator[Change]:
        """The members there are, as joined; then who joins and who leaves, as it happens.

        Who reads slowly misses members that came and went meanwhile, and nothing else.
        """
        check_name(cluster, "cluster")
        self.attachment.check_open()
        return self._watches.watch(cluster)

    async def broadcast(
        self, cluster: str, body: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Every current member of the cluster gets the body at most once, in the order sent.

        Returns once the message is queued for the relay; waits while the relay has more than it
        can read.
        """
        if headers is not None or not self._cast(_BROADCAST, cluster, body):
            await self._tell(_BROADCAST, "cluster", cluster, body, headers)

    async def publish(
        self, topic: str, body: bytes, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Every current subscriber of the topic gets the body at most once, in the order sent.

        Returns once the message is queued for the relay; waits while the relay has more than it
        can read.
        """
        if headers is not None or not self._cast(_PUBLISH, topic, body):
            await self._tell(_PUBLISH, "topic", topic, body, headers)

    def subscribe(self, topic: str) -> Subscription:
        """The events of a topic, inside `async with mesh.subscribe(topic) as events`."""
        check_name(topic, "topic")
        self.attachment.check_open()
        return Subscription(self._topics, topic)

    async def status(self) -> dict[str, Any]:
        """What the relay knows: its node, peers, clusters, topics."""
        document: dict[str, Any] = json.loads(await self.caller.ask_relay(Op.STATUS))
        return document

    def within(self, deadline: float, traceparent: str | None) -> Mesh:
        """This mesh, with every call ending at `deadline` (time.monotonic()) at the latest."""
        mesh = copy(self)
        mesh._scope = deadline, traceparent  # noqa: SLF001 — a copy of our own kind
        return mesh

    @property
    def attachment(self) -> Attachment:
        """The place at the relay behind this face. Raises MeshClosed when there is none."""
        if self._attachment is None:
            raise MeshClosed("the mesh is not open: use `async with`")
        return self._attachment

    @property
    def tunnels(self) -> Tunnels:
        """Its tunnels. Raises MeshClosed."""
        self.attachment.check_open()
        return self._tunnels

    @property
    def caller(self) -> Caller:
        """Its calls. Raises MeshClosed."""
        self.attachment.check_open()
        return self._caller

    def _cast(self, op: int, name: str, body: bytes) -> bool:
        """Queue a message that needs no second look. False: it needs one."""
        attachment = self._attachment or self.attachment
        link = attachment.link
        if (
            link is None
            or link.congested
            or attachment.line
            or self._scope is not None
            or name not in attachment.names
            or type(body) is not bytes
            or len(body) > link.max_message
        ):
            return False
        send_cast = link.send_cast
        return send_cast(op, name, body)

    async def _tell(
        self, op: int, what: str, name: str, body: bytes, headers: Mapping[str, str] | None
    ) -> None:
        """Refuse what the relay would have to; wait for a link with room, and queue the rest."""
        self._check(what, name, body)
        made = self._headers(headers)
        with self.attachment.turn(self._scope[0] if self._scope else None) as turn:
            while True:
                link = await turn.link()
                self._check(what, name, body)  # this link's relay may have another limit
                if link.send_body((op, name, body, made), 2, (op, name)):
                    return
                await asyncio.sleep(0)

    def _check(self, what: str, name: str, body: bytes) -> None:
        self.attachment.check_name(name, what)
        if type(body) is not bytes:
            raise TypeError(f"a body is bytes, not {type(body).__name__}")
        link = self.attachment.link
        if link is not None and len(body) > link.max_message:
            raise too_large(body, link)

    def _headers(self, headers: Mapping[str, str] | None) -> dict[str, str] | None:
        traceparent = self._scope[1] if self._scope else None
        if not headers and traceparent is None:
            return None
        made = dict(headers) if headers else {}
        if traceparent is not None:
            made.setdefault("traceparent", traceparent)
        return check_headers(made, "headers", MAX_HEADERS)


def connect(
    *,
    port: int | None = None,
    path: str | os.PathLike[str] | None = None,
    wait: float = 5.0,
) -> Mesh:
    """Attach to the relay of this machine: `async with arke.connect() as mesh`.

    The relay is at 127.0.0.1:`port` ($ARKE_PORT, else 55555), or at the Unix socket `path`. `wait`
    is how many seconds to keep trying at first; then RelayUnreachable is raised. Later the mesh
    attaches again by itself.
    """
    return Mesh(port, path, wait)
