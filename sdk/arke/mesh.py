"""The mesh as a program sees it: call, tell, listen."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from copy import copy
from time import monotonic
from types import TracebackType
from typing import Any, Self

from arke.attachment import Attachment, check_name
from arke.caller import Caller, too_large
from arke.errors import MeshClosed
from arke.subscription import Subscription
from arke.topics import Topics
from arke.values import Node
from arke.wire.bounds import LONGEST_CALL, MAX_HEADERS
from arke.wire.messages import Op

_BROADCAST = Op.BROADCAST.value
_PUBLISH = Op.PUBLISH.value


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
        self._scope: tuple[float, str | None] | None = None
        """The deadline and the `traceparent` of the request whose handler makes further calls."""

    async def __aenter__(self) -> Self:
        attachment = Attachment(self._port, self._path)
        self._caller = Caller(attachment)
        self._topics = Topics(attachment)
        attachment.carry(self._caller)
        attachment.carry(self._topics)
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
    ) -> bytes:
        """One member of the cluster answers; `timeout` is in seconds.

        An `idempotent` request may be handled twice: it is also sent again after its member or
        relay died. Raises NoSuchCluster, MemberLost, Overloaded, RequestTimeout, RemoteError,
        ConnectionLost, MessageTooLarge; ValueError for a bad name, time-out or header.
        """
        if not 0 <= timeout <= LONGEST_CALL:
            raise ValueError(f"a time-out is from 0 to {LONGEST_CALL:g} seconds, not {timeout}")
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
        caller = self._caller
        call = caller.begin(cluster, body, timeout, idempotent, headers)
        try:
            return await call.future
        except asyncio.CancelledError:
            caller.cancel(call)
            raise

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
        document: dict[str, Any] = json.loads(await self.caller.status())
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
        while True:
            link = await self.attachment.ready(self._scope[0] if self._scope else None)
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
        size = 0
        for key, value in made.items():
            if type(key) is not str or type(value) is not str:
                raise ValueError(f"header {key!r:.60} is not text")
            size += len(key.encode()) + len(value.encode())
        if size > MAX_HEADERS or len(made) > 64:
            raise ValueError(f"headers over 64 entries or {MAX_HEADERS} octets")
        return made


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
