"""One request's journey: to a backend, perhaps to another, and its answer back to the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.connect import connect
from arke_proxy.backends.connection import BackendConnection, BackendEvents, describe
from arke_proxy.balancing.balancer import BackendBalancer, Outcome
from arke_proxy.balancing.retry import IDEMPOTENT, may_retry
from arke_proxy.balancing.sticky_cookies import StickyCookies
from arke_proxy.connections.hub import Hub
from arke_proxy.errors import (
    AllTried,
    BackendBroke,
    BadRequest,
    BadResponse,
    Exhausted,
    NoneReachable,
    NoRoute,
    ProxyError,
    TooLate,
)
from arke_proxy.http.messages import RequestHead, ResponseHead, with_cookie
from arke_proxy.http.response_handler import Requester
from arke_proxy.http.websocket import Splice
from arke_proxy.http1 import serializer as writing
from arke_proxy.http1.body import chunk, last_chunk
from arke_proxy.observability.request_record import RequestRecord

_ATTEMPTS: Final = 3
_AT_HAND: Final = 64 * 1024  # octets of a body kept for a further attempt
_UNAVAILABLE: Final = frozenset((502, 503, 504))
_NOBODY: Final[Mapping[BackendAddress, str]] = MappingProxyType({})
_ANSWERED: Final = Outcome.ANSWERED  # an enum's member is slow to look up


class Exchange(BackendEvents):
    """Sends one request and returns its answer; the steps that never wait are plain calls.

    A task exists only while the exchange looks for a backend or connects to it.
    """

    # What most requests never touch costs them nothing here.
    _sticky: StickyCookies | None = None
    _preferred: BackendAddress | None = None  # where this visitor was before
    told = False  # the client has been sent part of the final answer
    _at_hand: list[bytes] | None = None  # the payload so far, if all of it is still here
    _trailer = b""
    _failures = 0
    _again = False  # it goes, or has gone, a second time
    _search: asyncio.Task[None] | None = None
    _backend: BackendConnection | None = None  # that has been sent the request
    _backend_slow = False  # to read
    _client_slow = False  # likewise; it may have become so while there was no backend to pause

    def __init__(self, requester: Requester, head: RequestHead, hub: Hub, now: float) -> None:
        self._requester = requester
        self._head = head
        self._hub = hub
        self._balancer: BackendBalancer
        self._tried = _NOBODY
        record = self.record = RequestRecord(requester.peer, head, now, requester.version)
        self._passed_on, record.request_id = requester.origin.passed_on(head)
        self.uploaded = not (head.chunked or head.length)  # the whole request has arrived
        if not self.uploaded:
            self._at_hand = []

    # From the client.

    def start(self, now: float) -> None:
        """Send the request at once where a backend and a connection are at hand."""
        hub = self._hub
        head = self._head
        hub.budget.requests += 1
        if hub.limits_whole:
            hub.whole.start(self, now)
        route = hub.routes.find(head.host, head.target)
        if route is None:
            self._fail(NoRoute("This proxy serves nothing under that name and path."))
            return
        self.record.cluster = route.cluster
        self._balancer = route.balancer
        if route.sticky:
            self._sticky = route.sticky
            cookies = [value for name, value in head.fields if name.lower() == b"cookie"]
            self._preferred = route.sticky.read(cookies)
        self._go(now)

    def upload(self, payload: bytes, *, done: bool, trailer: bytes) -> None:
        """Take a piece of the body. `trailer`: the lines that follow it, with the last piece."""
        self.uploaded = done
        self._trailer = trailer
        record = self.record
        record.bytes_in += len(payload)
        if self._at_hand is not None:
            self._at_hand.append(payload)
        if self._backend:
            self._let_go()
            self._backend.write(self._framed(payload))
        elif record.bytes_in > _AT_HAND:
            self._requester.pause()

    def client_full(self) -> None:
        self._client_slow = True
        if self._backend:
            self._backend.pause()

    def client_ready(self) -> None:
        self._client_slow = False
        if self._backend:
            self._backend.resume()

    def late(self, *, whole: bool = False) -> None:
        """End an exchange in which nothing has moved for too long; `whole`: it took too long."""
        times = self._hub.times
        seconds = f"{times.whole if whole else times.silence:g} s"
        backend = self._backend
        to_blame = (
            backend is not None
            and not self._client_slow
            and (
                self.uploaded
                or self._backend_slow
                or (backend.owes_100 and not self.record.bytes_in)
            )
        )
        self._stop(Outcome.TIMED_OUT if to_blame and not self.told else Outcome.ABANDONED)
        if not backend:
            self._fail(TooLate(f"No backend was reached within {seconds}."))
        elif self.told:
            fault = f"or its client stood still for {seconds} in mid-answer"
            if whole:
                fault = f"had not ended its answer when the request had taken {seconds}"
            self._cut(backend.address, fault)
        elif to_blame:
            self._fail(TooLate(f"Backend {backend.address} did not answer within {seconds}."))
        elif whole:
            self._fail(BadRequest(f"The request took longer than {seconds} in all.", 408))
        elif self._client_slow:  # and the backend may well have answered
            self._fail(BadRequest(f"The client took no answers for {seconds}.", 408))
        else:
            self._fail(BadRequest(f"The request's body stood still for {seconds}.", 408))

    def abandon(self, why: str = "client left", detail: str = "") -> None:
        """Stop: nobody waits for the answer any more. `detail` says in a sentence `why`."""
        self._stop(Outcome.ABANDONED)
        self._note(why, self._hub.clock(), detail)

    def refuse(self, error: BadRequest) -> None:
        """Stop: what comes is no body. The client is to be told, unless it has been `told` more."""
        self.record.status = self.record.status or error.status
        self.abandon("malformed body", str(error))

    # Towards a backend.

    def _go(self, now: float) -> None:
        self.record.chosen = 0.0  # which was that of an attempt before
        try:
            address = self._balancer.pick_now(self._tried, self._preferred)
        except ProxyError as error:
            self._fail(error)
            return
        backend = self._pooled(address) if address else None
        if backend:
            self._send(backend, now)
        else:
            self._search = self._hub.loop.create_task(self._reach(address))

    def _pooled(self, address: BackendAddress) -> BackendConnection | None:
        while backend := self._hub.pool.take(address):
            # What cannot be sent twice is not risked on a connection that has just been closed.
            if self._head.method in IDEMPOTENT or not backend.is_dead():
                return backend
            backend.close()
        return None

    async def _reach(self, address: BackendAddress | None, *, afresh: bool = False) -> None:
        try:
            backend = await self._connected(address, afresh=afresh)
        except ProxyError as error:
            self._fail(error)
        else:
            self._send(backend, self._hub.clock())

    async def _connected(
        self, address: BackendAddress | None, *, afresh: bool
    ) -> BackendConnection:
        while True:
            if address is None:
                address = await self._balancer.pick(self._tried, self._preferred)
            self.record.chosen = self._hub.clock()
            if not afresh and (backend := self._pooled(address)):
                return backend
            try:
                return await connect(address, self._hub)
            except OSError as error:
                self._balancer.connect_failed(address)
                self._count_failure(address, describe(error))
            address = None

    def _send(self, backend: BackendConnection, now: float) -> None:
        self._search = None
        self._backend = backend
        head = self._head
        address = backend.address
        record = self.record
        record.backend = address
        record.attempts += 1
        record.sent = now
        self._balancer.request_started(address)
        backend.start_request(self, head)
        if self._client_slow:
            backend.pause()
        data = writing.request_head(head, self._passed_on, address)
        if head.chunked or head.length:
            assert self._at_hand is not None
            data += self._framed(b"".join(self._at_hand))
            self._let_go()
            self._requester.resume()
        backend.write(data)

    def _framed(self, payload: bytes) -> bytes:
        if not self._head.chunked:
            return payload
        return chunk(payload) + (last_chunk(self._trailer) if self.uploaded else b"")

    def _has_all(self) -> bool:
        return self._at_hand is not None or not (self._head.chunked or self._head.length)

    def _let_go(self) -> None:
        """Keep no body that will not be sent again."""
        if self.record.bytes_in > _AT_HAND or self._head.method not in IDEMPOTENT:
            self._at_hand = None

    # From the backend.

    def on_response(self, head: ResponseHead | None, payload: bytes, *, done: bool) -> None:
        now = self._hub.clock()
        record = self.record
        record.bytes_out += len(payload)
        backend = self._backend
        assert backend
        if head:
            if head.status < 200:
                self._requester.interim(head)
                return  # and the time goes on: a backend that only promises is silent
            self.told = True
            if not self.uploaded:
                backend.prevent_reuse()  # who answers early may take the rest for a request
            record.status = head.status
            record.answered = now
            if self._sticky:
                head = self._remembered(head, self._sticky, backend.address)
        trailer = b""
        if done:
            trailer = backend.trailer
            self._release(_ANSWERED)
            if self.uploaded:
                backend.finish(now)
            else:
                backend.abort()
            self._note("", now)
        if head:
            self._requester.answer(head, payload, done=done, trailer=trailer)
        else:
            self._requester.piece(payload, done=done, trailer=trailer)

    def _remembered(
        self, head: ResponseHead, sticky: StickyCookies, address: BackendAddress
    ) -> ResponseHead:
        """Add the cookie by which the visitor comes back to this backend, if it is another."""
        if address == self._preferred:
            return head
        return with_cookie(head, sticky.cookie(address, secure=self._requester.origin.tls))

    def on_backend_failed(
        self, reason: str, *, sent: bool, answering: bool, host_dead: bool
    ) -> None:
        backend = self._backend
        assert backend
        address = backend.address
        self._backend_slow = False
        # An idle connection that the backend was just closing says nothing about the backend.
        stale = backend.used and not answering and not host_dead
        self._release(Outcome.ABANDONED if stale else Outcome.FAILED)
        if host_dead:
            self._balancer.connect_failed(address)
            for idle in self._hub.pool.purge(address):
                idle.abort()
        if self.told:
            self._cut(address, reason)
            return
        if not may_retry(self._head.method, sent=sent, body_buffered=self._has_all()):
            fault = f"Backend {address} {reason}, and the request may not be sent twice."
            self._fail(BackendBroke(fault))
            return
        try:
            self._count_failure(address, reason, stale=stale)
        except NoneReachable as error:
            self._fail(error)
            return
        if stale:
            self._search = self._hub.loop.create_task(self._reach(address, afresh=True))
        else:
            self._go(self._hub.clock())

    def on_bad_response(self, error: BadResponse) -> None:
        assert self._backend
        address = self._backend.address
        self._release(Outcome.FAILED)
        if self.told:
            self._cut(address, f"was cut off: {error}")
        else:
            self._fail(error)

    def on_switch_protocols(self, head: ResponseHead, rest: bytes) -> None:
        """Leave HTTP; `rest` is what the backend has sent behind its 101."""
        backend = self._backend
        assert backend
        self._backend = None
        record = self.record
        record.status = head.status
        record.answered = self._hub.clock()
        record.upgraded = True
        self._hub.whole.stop(self)
        self._went_again_no_more()
        # The backend has answered, which is known now, not after the hours that may follow.
        self._balancer.request_ended(backend.address, Outcome.ANSWERED)
        self._balancer.request_started(backend.address)
        if self._sticky:
            head = self._remembered(head, self._sticky, backend.address)
        splice = Splice(self._hub, backend.detach(), rest, self._parted(backend))
        self._requester.switch(head, splice)

    def _parted(self, backend: BackendConnection) -> Callable[[int, int], None]:
        def parted(bytes_in: int, bytes_out: int) -> None:
            self.record.bytes_in, self.record.bytes_out = bytes_in, bytes_out
            backend.mark_closed()
            self._balancer.request_ended(backend.address, Outcome.ABANDONED)
            self._note("", self._hub.clock())

        return parted

    def on_backend_full(self) -> None:
        self._backend_slow = True
        if not self.uploaded:
            self._requester.pause()

    def on_backend_ready(self) -> None:
        self._backend_slow = False
        self._requester.moved()
        if not self.uploaded:
            self._requester.resume()

    # The end.

    def _stop(self, outcome: Outcome) -> None:
        if self._search:
            self._search.cancel()
            self._search = None
        if backend := self._backend:
            self._release(outcome)
            backend.abort()

    def _release(self, outcome: Outcome) -> None:
        """Be done with the backend, and tell what became of the request there."""
        assert self._backend
        address = self._backend.address
        self._backend = None
        if outcome is _ANSWERED and self.record.status in _UNAVAILABLE:
            outcome = Outcome.UNAVAILABLE
        self._balancer.request_ended(address, outcome)

    def _cut(self, address: BackendAddress, reason: str) -> None:
        self._warn(address, reason)
        self._note("cut off", self._hub.clock(), f"Backend {address} {reason}.")
        self._requester.cut()

    def _fail(self, error: ProxyError) -> None:
        """Answer in the backends' stead. Nothing of a final answer has been sent."""
        self._search = None
        if isinstance(error, AllTried):
            error = self._none_reachable()
        if error.status >= 500 and not isinstance(error, Exhausted):  # who has said it, and more
            self._hub.complaints.warn(str(error), str(error))
        self.record.status = error.status
        self._note(error.name, self._hub.clock(), str(error))
        self._requester.fail(error)

    def _note(self, outcome: str, now: float, detail: str = "") -> None:
        hub = self._hub
        record = self.record
        if record.ended:
            return
        if outcome:
            record.outcome = outcome
            record.detail = detail
        record.ended = now
        if self._again:
            self._went_again_no_more()
        if hub.limits_whole:
            hub.whole.stop(self)
        hub.recorder.record(record)

    def _went_again_no_more(self) -> None:
        if self._again:
            self._again = False
            self._hub.budget.release()

    def _count_failure(self, address: BackendAddress, reason: str, *, stale: bool = False) -> None:
        """Remember a failed attempt. Raises NoneReachable if it was the last one."""
        self._failures += 1
        if stale:
            return
        self._warn(address, reason)
        self._tried = {**self._tried, address: reason}
        if self._failures >= _ATTEMPTS:
            raise self._none_reachable()
        if not self._again:
            self._again = self._hub.budget.acquire()
            if not self._again:
                raise self._none_reachable()

    def _none_reachable(self) -> NoneReachable:
        story = "; ".join(f"{address} {reason}" for address, reason in self._tried.items())
        return NoneReachable(f"No backend answered: {story}.")

    def _warn(self, address: BackendAddress, reason: str) -> None:
        self._hub.complaints.warn(address, f"backend {address} {reason}")
