"""One request's journey: to a back end, perhaps to another, and its answer back to the client."""

from __future__ import annotations

import asyncio
import errno
import time
from typing import TYPE_CHECKING

from arke_proxy.answers import own_response
from arke_proxy.back_ends.connection import BackEnd, connect, describe
from arke_proxy.choosing.address import Address
from arke_proxy.errors import (
    AllTried,
    BackEndBroke,
    BadRequest,
    BadResponse,
    Exhausted,
    NoneReachable,
    ProxyError,
    TooLate,
)
from arke_proxy.http1 import writing
from arke_proxy.http1.body import Body, chunk, last_chunk
from arke_proxy.http1.head import RequestHead, ResponseHead
from arke_proxy.hub import Hub
from arke_proxy.retry import IDEMPOTENT, may_go_again

if TYPE_CHECKING:
    from arke_proxy.clients.http1 import Client

_ATTEMPTS = 3
_NO_DESCRIPTOR = frozenset((errno.EMFILE, errno.ENFILE))
_AT_HAND = 64 * 1024  # bytes of a body kept for a further attempt


class Exchange:
    """Sends one request and returns its answer; the steps that never wait are plain calls.

    A task exists only while the exchange looks for a back end or connects to it.
    """

    __slots__ = (
        "_at_hand",
        "_back_end",
        "_back_end_slow",
        "_body",
        "_chooser",
        "_chunks",
        "_client",
        "_failures",
        "_head",
        "_hub",
        "_keep_alive",
        "_search",
        "_size",
        "_tried",
        "told",
        "uploaded",
    )

    def __init__(self, client: Client, head: RequestHead, body: Body | None, hub: Hub) -> None:
        self._client = client
        self._head = head
        route = hub.routes.find(head.host, head.target)
        assert route
        self._chooser = route.chooser
        self._body = body
        self._hub = hub
        self.uploaded = body is None  # the whole request has arrived
        self.told = False  # the client has been sent part of the final answer
        self._at_hand: list[bytes] | None = []  # the payload so far; None once it is not all here
        self._size = 0  # of the payload so far
        self._tried: dict[Address, str] = {}  # and what became of it
        self._failures = 0
        self._search: asyncio.Task[None] | None = None
        self._back_end: BackEnd | None = None  # that has been sent the request
        self._back_end_slow = False  # to read
        self._chunks = False  # the client gets the answer's body in chunks
        self._keep_alive = False  # the client's connection goes on after the answer

    @property
    def with_body(self) -> bool:
        """Whether an answer may have a body: not to HEAD."""
        return self._head.method != b"HEAD"

    # From the client.

    def start(self) -> None:
        """Send the request at once where a back end and a connection are at hand."""
        try:
            address = self._chooser.ready(self._tried)
        except ProxyError as error:
            self._fail(error)
            return
        back_end = self._pooled(address) if address else None
        if back_end:
            self._send(back_end)
        else:
            self._search = self._hub.loop.create_task(self._reach(address))

    def receive(self, data: bytes) -> bytes:
        """Take a piece of the body; return what follows the body. Raises Malformed."""
        assert self._body
        payload, rest = self._body.feed(data)
        self.uploaded = self._body.done
        self._size += len(payload)
        if self._at_hand is not None:
            self._at_hand.append(payload)
        if self._back_end:
            self._let_go()
            self._back_end.write(self._framed(payload))
        elif self._size > _AT_HAND:
            self._client.pause()
        return rest

    def client_full(self) -> None:
        if self._back_end:
            self._back_end.pause()

    def client_ready(self) -> None:
        if self._back_end:
            self._back_end.resume()

    def late(self) -> None:
        """End an exchange in which nothing has moved for too long."""
        seconds = f"{self._hub.times.silence:g} s"
        back_end = self._back_end
        self.abandon()
        if not back_end:
            self._fail(TooLate(f"No back end was reached within {seconds}."))
        elif self.told:
            self._cut(back_end.address, f"or its client stood still for {seconds} in mid-answer")
        elif self.uploaded or self._back_end_slow:
            self._fail(TooLate(f"Back end {back_end.address} did not answer within {seconds}."))
        else:
            self._fail(BadRequest(f"The request's body stood still for {seconds}.", 408))

    def abandon(self) -> None:
        """Stop: nobody waits for the answer any more."""
        if self._search:
            self._search.cancel()
            self._search = None
        if self._back_end:
            self._back_end.abandon()
            self._back_end = None

    # Towards a back end.

    def _pooled(self, address: Address) -> BackEnd | None:
        while back_end := self._hub.pool.take(address):
            # What cannot be sent twice is not risked on a connection that has just been closed.
            if self._head.method in IDEMPOTENT or not back_end.gone():
                return back_end
            back_end.close()
        return None

    async def _reach(self, address: Address | None, *, afresh: bool = False) -> None:
        try:
            back_end = await self._connected(address, afresh=afresh)
        except ProxyError as error:
            self._fail(error)
        else:
            self._send(back_end)

    async def _connected(self, address: Address | None, *, afresh: bool) -> BackEnd:
        while True:
            if address is None:
                address = await self._chooser.choose(self._tried)
            if not afresh and (back_end := self._pooled(address)):
                return back_end
            try:
                return await connect(address, self._hub)
            except OSError as error:
                if error.errno in _NO_DESCRIPTOR:
                    sentence = "The proxy has no descriptor left for a connection to a back end."
                    raise Exhausted(sentence) from None
                self._chooser.unreachable(address)
                self._count_failure(address, describe(error))
            address = None

    def _send(self, back_end: BackEnd) -> None:
        self._search = None
        self._back_end = back_end
        back_end.begin(self, self._head.method)
        data = writing.request_head(self._head, self._client.forwarded, back_end.address)
        if self._body:
            assert self._at_hand is not None
            data += self._framed(b"".join(self._at_hand))
            self._let_go()
            self._client.resume()
        back_end.write(data)

    def _framed(self, payload: bytes) -> bytes:
        if not self._head.chunked:
            return payload
        assert self._body
        end = last_chunk(self._body.trailer) if self._body.done else b""
        return chunk(payload) + end

    def _let_go(self) -> None:
        """Keep no body that will not be sent again."""
        if self._size > _AT_HAND or self._head.method not in IDEMPOTENT:
            self._at_hand = None

    # From the back end.

    def answered(self, head: ResponseHead | None, payload: bytes, *, done: bool) -> None:
        client = self._client
        if head is None:
            data = chunk(payload) if self._chunks else payload
        elif head.status < 200:
            if not self._head.is_1_0:  # which has no 1xx
                client.write(writing.response_head(head, b"", b""))
            return  # and the time goes on: a back end that only promises is silent
        else:
            data = self._begin_answer(head, payload)
        assert self._back_end
        if done and self._chunks:
            data += last_chunk(self._back_end.trailer)
        client.write(data)
        if done:
            self._finish()
        else:
            client.moved()

    def broke(self, reason: str, *, answering: bool, host_dead: bool) -> None:
        back_end = self._back_end
        assert back_end
        self._back_end = None
        address = back_end.address
        if host_dead:
            self._chooser.unreachable(address)
            for idle in self._hub.pool.purge(address):
                idle.abandon()
        if self.told:
            self._cut(address, reason)
            return
        if not may_go_again(self._head.method, body_at_hand=self._at_hand is not None):
            fault = f"Back end {address} {reason}, and the request may not be sent twice."
            self._fail(BackEndBroke(fault))
            return
        # An idle connection that the back end was just closing says nothing about the back end.
        stale = back_end.used and not answering and not host_dead
        try:
            self._count_failure(address, reason, stale=stale)
        except NoneReachable as error:
            self._fail(error)
            return
        if stale:
            self._search = self._hub.loop.create_task(self._reach(address, afresh=True))
        else:
            self.start()

    def malformed(self, error: BadResponse) -> None:
        back_end = self._back_end
        assert back_end
        self._back_end = None
        if self.told:
            self._cut(back_end.address, f"was cut off: {error}")
        else:
            self._fail(error)

    def back_end_full(self) -> None:
        self._back_end_slow = True
        if not self.uploaded:
            self._client.pause()

    def back_end_ready(self) -> None:
        self._back_end_slow = False
        self._client.moved()
        if not self.uploaded:
            self._client.resume()

    def _begin_answer(self, head: ResponseHead, payload: bytes) -> bytes:
        request = self._head
        to_1_0 = request.is_1_0
        framing = writing.response_framing(head, request.method, to_1_0=to_1_0)
        self.told = True
        self._chunks = framing.chunks
        self._keep_alive = not framing.closes and self._may_keep_alive()
        connection = writing.connection_line(keep_alive=self._keep_alive, to_1_0=to_1_0)
        begin = writing.response_head(head, framing.line, connection)
        return begin + (chunk(payload) if framing.chunks else payload)

    def _may_keep_alive(self) -> bool:
        return self._head.keep_alive and self.uploaded and not self._hub.draining

    # The end.

    def _finish(self) -> None:
        back_end = self._back_end
        assert back_end
        self._back_end = None
        if self.uploaded:
            back_end.finish()
        else:
            back_end.abandon()
        self._client.finished(keep_alive=self._keep_alive)

    def _cut(self, address: Address, reason: str) -> None:
        self._warn(address, reason)
        self._client.cut()

    def _fail(self, error: ProxyError) -> None:
        """Answer in the back ends' stead. Nothing of a final answer has been sent."""
        self._search = None
        if isinstance(error, AllTried):
            error = self._none_reachable()
        if error.status >= 500:
            self._hub.complaints.warn(str(error), str(error))
        keep_alive = self._may_keep_alive()
        connection = writing.connection_line(keep_alive=keep_alive, to_1_0=self._head.is_1_0)
        self._client.write(own_response(error, time.time(), connection, with_body=self.with_body))
        self._client.finished(keep_alive=keep_alive)

    def _count_failure(self, address: Address, reason: str, *, stale: bool = False) -> None:
        """Remember a failed attempt. Raises NoneReachable if it was the last one."""
        self._failures += 1
        if not stale:
            self._warn(address, reason)
            self._tried[address] = reason
        if self._failures == _ATTEMPTS:
            raise self._none_reachable()

    def _none_reachable(self) -> NoneReachable:
        story = "; ".join(f"{address} {reason}" for address, reason in self._tried.items())
        return NoneReachable(f"No back end answered: {story}.")

    def _warn(self, address: Address, reason: str) -> None:
        self._hub.complaints.warn(address, f"back end {address} {reason}")
