"""The mesh: send requests, broadcasts and events, open tunnels, subscribe and watch."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from arke.errors import (
    ArkeError,
    MemberLost,
    NoSuchCluster,
    RemoteError,
    RequestTimeout,
    TunnelClosed,
)
from arke.runtime.arguments import (
    check_body,
    check_headers,
    check_name,
    check_timeout,
    check_tunnel_sizes,
    too_large,
)
from arke.runtime.deadlines import PendingRequest
from arke.runtime.mesh_lifecycle import MeshLifecycle
from arke.subscription import Subscription
from arke.tunnel import Tunnel
from arke.values import Answer, Change, Member
from arke.wire.limits import HTTP_SEGMENT, HTTP_WINDOW, MAX_HEADERS, MAX_TIMEOUT, WINDOW
from arke.wire.messages import Op, Purpose

_REQUEST_MEMBER = Op.REQUEST_MEMBER.value
_BROADCAST = Op.BROADCAST.value
_PUBLISH = Op.PUBLISH.value
_MAX_TUNNEL_MESSAGE = 64 * 1024 * 1024
_MAX_CACHED_NAMES = 1024
_SEND_TIMEOUT = 30.0  # longer than that of a request: it includes the wait for other senders


class Mesh(MeshLifecycle):
    """A program's attachment to the network, made by `connect`; use it with `async with`.

    Methods may be called from any number of tasks of the event loop that opened it. While the relay
    is away, requests wait for it within their deadline.
    """

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
        """Send a request to one member of the cluster and return its reply.

        `timeout` is in seconds. An `idempotent` request may be handled twice: it is also resent
        after its member or relay was lost. `member` is the id of the member that must reply.
        Cancelling the call cancels the handler. Raises NoSuchCluster, NoSuchMember, MemberLost,
        Overloaded, RequestTimeout, RemoteError, ConnectionLost, MessageTooLarge; TypeError or
        ValueError for an invalid argument.
        """
        request = self._begin(cluster, body, timeout, headers, idempotent, member)
        try:
            reply: bytes = await request.future
        except asyncio.CancelledError:
            self.runtime.requests.cancel(request)
            raise
        return reply

    def begin_request(
        self, cluster: str, body: bytes, *, timeout: float = 5.0, idempotent: bool = False
    ) -> asyncio.Future[bytes]:
        """Send a request and return the future of its reply.

        For programs with many pending requests: `request` needs a task for each. Cancelling the
        future does not cancel the handler. Raises MeshClosed, MessageTooLarge, and TypeError or
        ValueError for an invalid argument; other errors are set on the future.
        """
        request = self._begin(cluster, body, timeout, None, idempotent, None)
        future: asyncio.Future[bytes] = request.future
        return future

    def _begin(
        self,
        cluster: str,
        body: bytes,
        timeout: float,
        headers: Mapping[str, str] | None,
        idempotent: bool,
        member: str | None,
    ) -> PendingRequest:
        if type(timeout) is not float or not 0 <= timeout <= MAX_TIMEOUT:
            check_timeout(timeout)
        runtime = self._runtime or self.runtime
        if self._scope is not None:
            timeout = min(timeout, self._scope[0] - monotonic())
        if (
            headers is not None
            or self._scope is not None
            or cluster not in self._checked_names
            or type(body) is not bytes
        ):
            self._check("cluster", cluster, body)
            headers = self._headers(headers)
        if member is None:
            return runtime.requests.begin(cluster, body, timeout, idempotent, headers)
        check_name(member, "member")
        rest = idempotent, headers
        return runtime.requests.begin_directed(
            _REQUEST_MEMBER, member, body, timeout, rest, idempotent=idempotent
        )

    async def request_many(
        self,
        cluster: str,
        body: bytes,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 — for each part; it travels with the request
        headers: Mapping[str, str] | None = None,
        member: str | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Send a request to one member and yield its multipart reply, part by part.

        The handler is ahead of the reader by a window of 4 MiB at most, and is cancelled when the
        iteration ends. `timeout` applies to the opening, and again to each part, in seconds. Raises
        what `request` raises.
        """
        opening = self._open_tunnel(
            cluster,
            body,
            timeout=timeout,
            member=member,
            purpose=Purpose.MULTIPART_REPLY,
            headers=headers,
        )
        async with await opening as tunnel:
            try:
                while True:
                    try:
                        async with asyncio.timeout(timeout):
                            part = await anext(tunnel)
                    except TimeoutError:
                        raise RequestTimeout("no further part within the timeout") from None
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
        """Send a request to every member of the cluster and return an Answer for each.

        Raises NoSuchCluster when the cluster has no members; RequestTimeout when they are not known
        in time; TypeError or ValueError for an invalid argument.
        """
        deadline = self._deadline(timeout)
        check_body(body)
        members = await self.members(cluster, timeout=timeout)
        if not members:
            raise NoSuchCluster(f"cluster {cluster!r} has no members")
        remaining = max(0.0, deadline - monotonic())

        async def answer_of(member: Member) -> Answer:
            try:
                reply = await self.request(
                    cluster, body, timeout=remaining, headers=headers, member=member.id
                )
            except ArkeError as error:
                return Answer(member, b"", error)
            return Answer(member, reply, None)

        return list(await asyncio.gather(*(answer_of(member) for member in members)))

    @asynccontextmanager
    async def tunnel(
        self,
        cluster: str,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 — the deadline travels with the request
        headers: Mapping[str, str] | None = None,
        member: str | None = None,
        window: int = WINDOW,
        max_message: int = _MAX_TUNNEL_MESSAGE,
    ) -> AsyncIterator[Tunnel]:
        """Open a stream of messages with one member: `async with mesh.tunnel("chat") as tunnel`.

        `timeout` applies to the opening, in seconds. `window` is how many bytes may arrive before
        they are read; `max_message` is the largest message accepted, in bytes. Leaving the block
        closes the tunnel; an exception aborts it. Raises what `request` raises.
        """
        opening = self._open_tunnel(
            cluster,
            b"",
            timeout=timeout,
            member=member,
            purpose=Purpose.TUNNEL,
            window=window,
            max_message=max_message,
            headers=headers,
        )
        async with await opening as tunnel:
            yield tunnel

    async def http_tunnel(
        self,
        member: str,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 — the deadline travels with the request
    ) -> Tunnel:
        """Open a connection to the HTTP server of a member; the member connects to it.

        The address is the one that the member's service registered as `http`. Messages of up to 64
        KiB carry the bytes of the connection; message boundaries have no meaning. `close_send`
        half-closes the connection. `timeout` applies to the opening, in seconds. The caller closes
        or aborts the tunnel. Raises what `request` raises: RemoteError when the member could not
        connect, Overloaded when it did not try.
        """
        return await self._open_tunnel(
            "",
            b"",
            timeout=timeout,
            member=member,
            purpose=Purpose.HTTP,
            window=HTTP_WINDOW,
            max_message=HTTP_SEGMENT,
        )

    async def _open_tunnel(
        self,
        cluster: str,
        body: bytes,
        *,
        timeout: float,  # noqa: ASYNC109 — the deadline travels with the request
        member: str | None,
        purpose: Purpose,
        window: int = WINDOW,
        max_message: int = _MAX_TUNNEL_MESSAGE,
        headers: Mapping[str, str] | None = None,
    ) -> Tunnel:
        check_timeout(timeout)
        check_tunnel_sizes(window, max_message)
        if member is None or cluster:
            self._check("cluster", cluster, body)
        if member is not None:
            check_name(member, "member")
        sent_headers = self._headers(headers)
        if self._scope is not None:
            timeout = min(timeout, self._scope[0] - monotonic())
        request = self._open_runtime().tunnels.open(
            cluster,
            body,
            timeout=timeout,
            member=member,
            purpose=purpose,
            window=window,
            max_message=max_message,
            headers=sent_headers,
        )
        future = request.future
        try:
            tunnel: Tunnel = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and not future.exception():
                future.result().abort("the caller was cancelled")
            self.runtime.requests.cancel(request)
            raise
        return tunnel

    async def members(
        self,
        cluster: str,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 — as in the other calls
    ) -> list[Member]:
        """Return the members of the cluster that the relay knows.

        Raises RequestTimeout when the relay has not listed them within `timeout` seconds, and
        TypeError or ValueError for an invalid argument.
        """
        check_name(cluster, "cluster")
        deadline = self._deadline(timeout)
        return await self._open_runtime().watches.members(cluster, deadline)

    def watch(self, cluster: str) -> AsyncGenerator[Change, None]:
        """Yield the current members of the cluster as joined, then each change as it happens.

        A slow reader misses only changes that cancelled out between two reads.
        """
        check_name(cluster, "cluster")
        return self._open_runtime().watches.watch(cluster)

    async def broadcast(
        self,
        cluster: str,
        body: bytes,
        *,
        timeout: float = _SEND_TIMEOUT,  # noqa: ASYNC109 — as in the other calls
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a message to every member of the cluster: at most once each, in the order sent.

        Returns once the message is queued for the relay. Raises RequestTimeout when the relay is
        away or congested for `timeout` seconds; then the message is not sent.
        """
        if (
            headers is not None
            or timeout != _SEND_TIMEOUT
            or not self._send_now(_BROADCAST, cluster, body)
        ):
            await self._send_fanout(_BROADCAST, "cluster", cluster, body, headers, timeout)

    async def publish(
        self,
        topic: str,
        body: bytes,
        *,
        timeout: float = _SEND_TIMEOUT,  # noqa: ASYNC109 — as in the other calls
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a message to every subscriber of the topic: at most once each, in the order sent.

        Returns once the message is queued for the relay. Raises RequestTimeout when the relay is
        away or congested for `timeout` seconds; then the message is not sent.
        """
        if (
            headers is not None
            or timeout != _SEND_TIMEOUT
            or not self._send_now(_PUBLISH, topic, body)
        ):
            await self._send_fanout(_PUBLISH, "topic", topic, body, headers, timeout)

    def subscribe(self, topic: str, *, timeout: float = 5.0) -> Subscription:
        """Subscribe to a topic during a block: `async with mesh.subscribe("news") as events`.

        `timeout` is how many seconds to wait for the relay at the start of the block; then
        RequestTimeout is raised. While the program is not attached, the block starts at once.
        """
        check_name(topic, "topic")
        check_timeout(timeout)
        return Subscription(self._open_runtime().topics, topic, timeout)

    async def status(
        self,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 — as in the other calls
    ) -> dict[str, Any]:
        """Return what the relay knows: its node, peers, clusters and topics.

        Raises RequestTimeout when there is no reply within `timeout` seconds.
        """
        deadline = self._deadline(timeout)
        reply = await self._open_runtime().requests.request_relay(Op.STATUS, deadline)
        document: dict[str, Any] = json.loads(reply)
        return document

    def _send_now(self, op: int, name: str, body: bytes) -> bool:
        """Queue a broadcast or event on the fast path. False: it must be checked, or wait."""
        runtime = self._runtime or self.runtime
        if self._scope is not None or name not in self._checked_names or type(body) is not bytes:
            return False
        return runtime.fanout.send_now(op, name, body)

    async def _send_fanout(
        self,
        op: int,
        what: str,
        name: str,
        body: bytes,
        headers: Mapping[str, str] | None,
        timeout: float,  # noqa: ASYNC109 — as in the other calls
    ) -> None:
        deadline = self._deadline(timeout)
        self._check(what, name, body)
        await self.runtime.fanout.send(op, name, body, self._headers(headers), deadline)

    def _deadline(self, timeout: float) -> float:
        """Return when a call ends. Raises TypeError or ValueError for an invalid `timeout`."""
        check_timeout(timeout)
        deadline = monotonic() + timeout
        return deadline if self._scope is None else min(deadline, self._scope[0])

    def _check(self, what: str, name: str, body: bytes) -> None:
        """Check the arguments that need no check once the name is cached."""
        connection = self.runtime.attachment.connection
        check_name(name, what)
        if len(self._checked_names) >= _MAX_CACHED_NAMES:
            self._checked_names.clear()
        self._checked_names.add(name)
        check_body(body)
        if connection is not None and len(body) > connection.max_message:
            raise too_large(body, connection.max_message)

    def _headers(self, headers: Mapping[str, str] | None) -> dict[str, str] | None:
        traceparent = self._scope[1] if self._scope else None
        if not headers and traceparent is None:
            return None
        sent = dict(headers) if headers else {}
        if traceparent is not None:
            sent.setdefault("traceparent", traceparent)
        return check_headers(sent, "headers", MAX_HEADERS)


def connect(
    *,
    port: int | None = None,
    path: str | os.PathLike[str] | None = None,
    wait: float = 5.0,
) -> Mesh:
    """Attach to the relay of this machine: `async with arke.connect() as mesh`.

    The relay is at 127.0.0.1:`port` ($ARKE_PORT, else 55555), or at the Unix socket `path`. `wait`
    is how many seconds to retry the first time; then RelayUnreachable is raised. After a loss the
    mesh reconnects by itself.
    """
    return Mesh(port, path, wait)
