"""The exchange of one request: choose a backend, send, retry, forward the response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from arke_proxy.backends.address import BackendAddress
from arke_proxy.backends.connection import BackendConnection, BackendEvents, describe
from arke_proxy.balancing.balancer import BackendBalancer, Outcome
from arke_proxy.balancing.retry import may_retry
from arke_proxy.balancing.sticky_cookies import StickyCookies
from arke_proxy.context import ProxyContext
from arke_proxy.errors import (
    AllBackendsTried,
    BackendFailed,
    BackendsUnreachable,
    BadRequest,
    BadResponse,
    FailureCode,
    NoRoute,
    ProxyError,
    TooManyConnections,
)
from arke_proxy.http.attempts import FailedAttempts
from arke_proxy.http.messages import RequestHead, ResponseHead, with_cookie
from arke_proxy.http.request_body import RequestBody
from arke_proxy.http.response_handler import ResponseHandler
from arke_proxy.http.timeout_errors import stalled_response, timeout_error
from arke_proxy.http.websocket import Splice
from arke_proxy.http1 import serializer
from arke_proxy.log import warn_limited
from arke_proxy.observability.request_record import RequestRecord

_UNAVAILABLE: Final = frozenset((502, 503, 504))
_NONE_TRIED: Final[Mapping[BackendAddress, str]] = MappingProxyType({})
_ANSWERED: Final = Outcome.ANSWERED  # an enum's member is slow to look up
_SUCCESS: Final = ""


class Exchange(BackendEvents):
    """Sends one request to a backend, and its response to the client.

    Steps that do not wait are plain calls. A task exists only while the exchange looks for a
    backend or connects to it.
    """

    # Class attributes: what most requests never set costs them nothing.
    response_started = False  # part of the final response has been sent to the client
    _sticky: StickyCookies | None = None
    _preferred: BackendAddress | None = None  # from the client's cookie
    _body: RequestBody | None = None  # None if the request has no body
    _failed: FailedAttempts | None = None
    _connecting: asyncio.Task[None] | None = None
    _backend: BackendConnection | None = None  # which has been sent the request
    _backend_slow = False  # the backend is slow to read the request
    _client_slow = False  # the client is slow to read; may be set before there is a backend

    def __init__(
        self, client: ResponseHandler, head: RequestHead, context: ProxyContext, now: float
    ) -> None:
        self._client = client
        self._head = head
        self._context = context
        self._balancer: BackendBalancer
        record = self.record = RequestRecord(client.peer, head, now, client.version)
        self._forwarded_lines, record.request_id = client.origin.forwarded_lines(head)
        self.uploaded = not (head.chunked or head.length)  # the whole request has arrived
        if not self.uploaded:
            self._body = RequestBody(head)

    # Called by the client side.

    def start(self, now: float) -> None:
        """Send the request: at once, if a backend and a connection are available."""
        context = self._context
        head = self._head
        context.retry_budget.requests += 1
        timeouts = context.timeouts
        if timeouts.has_total:
            timeouts.total.start(self, now)
        route = context.routes.find(head.host, head.target)
        if route is None:
            self._fail(NoRoute(NoRoute.public_text))
            return
        self.record.cluster = route.cluster
        self._balancer = route.balancer
        if route.sticky:
            self._sticky = route.sticky
            cookies = [value for name, value in head.fields if name.lower() == b"cookie"]
            self._preferred = route.sticky.read(cookies)
        self._attempt(now)

    def upload(self, payload: bytes, *, done: bool, trailer: bytes) -> None:
        """Take a part of the body. `trailer`: the trailer lines, with the last part."""
        body = self._body
        assert body
        self.uploaded = done
        self.record.bytes_in += len(payload)
        if not self._context.request_trailers:
            trailer = b""
        body.add(payload, done=done, trailer=trailer)
        if self._backend:
            body.forget()
            self._backend.write(body.framed(payload))
        elif body.too_large_to_keep:
            self._client.pause_upload()

    def on_client_full(self) -> None:
        """Stop reading the response: the client is slow."""
        self._client_slow = True
        if self._backend:
            self._backend.pause()

    def on_client_ready(self) -> None:
        """Read the response again."""
        self._client_slow = False
        if self._backend:
            self._backend.resume()

    def timed_out(self) -> None:
        """End the exchange: it has made no progress within the limit."""
        self._time_out(self._context.timeouts.limits.progress, total=False)

    def total_timed_out(self) -> None:
        """End the exchange: it has exceeded the limit on its total time."""
        self._time_out(self._context.timeouts.limits.total, total=True)

    def cancel(self, code: FailureCode = FailureCode.CLIENT_DISCONNECTED, detail: str = "") -> None:
        """Stop, and record `code` as the outcome. `detail` is a sentence that explains it."""
        self._stop(Outcome.ABANDONED)
        self._finish(code, self._context.clock(), detail)

    def reject(self, error: BadRequest) -> None:
        """Stop: the body is malformed. The client side sends the error unless response_started."""
        self.record.status = self.record.status or error.status
        self.cancel(FailureCode.MALFORMED_BODY, str(error))

    # Sending to a backend.

    def _attempt(self, now: float) -> None:
        self.record.chosen = 0.0  # an earlier attempt may have set it
        tried = self._failed.tried if self._failed else _NONE_TRIED
        try:
            address = self._balancer.pick_now(tried, self._preferred)
        except ProxyError as error:
            self._fail(error)
            return
        backend = self._context.backends.take_idle(address, self._head.method) if address else None
        if backend:
            self._send(backend, now)
        else:
            self._connecting = self._context.loop.create_task(self._connect_and_send(address))

    async def _connect_and_send(
        self, address: BackendAddress | None, *, new_connection: bool = False
    ) -> None:
        try:
            backend = await self._connect(address, new_connection=new_connection)
        except ProxyError as error:
            self._fail(error)
        else:
            self._send(backend, self._context.clock())

    async def _connect(
        self, address: BackendAddress | None, *, new_connection: bool
    ) -> BackendConnection:
        """Return a connection to `address`; if it is None or fails, to another backend."""
        backends = self._context.backends
        while True:
            if address is None:
                tried = self._failed.tried if self._failed else _NONE_TRIED
                address = await self._balancer.pick(tried, self._preferred)
            self.record.chosen = self._context.clock()
            if not new_connection:
                idle = backends.take_idle(address, self._head.method)
                if idle:
                    return idle
            try:
                return await backends.connect(address)
            except OSError as error:
                self._balancer.connect_failed(address)
                self._count_failure(address, describe(error))
            address = None

    def _send(self, backend: BackendConnection, now: float) -> None:
        self._connecting = None
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
        data = serializer.request_head(head, self._forwarded_lines, address)
        if body := self._body:
            data += body.framed_so_far()
            body.forget()
            self._client.resume_upload()
        backend.write(data)

    # Called by the backend connection.

    def on_response(self, head: ResponseHead | None, payload: bytes, *, done: bool) -> None:
        now = self._context.clock()
        record = self.record
        record.bytes_out += len(payload)
        backend = self._backend
        assert backend
        if head:
            if head.status < 200:
                self._client.send_interim(head)
                return  # a 1xx response does not restart the time limit
            self.response_started = True
            if not self.uploaded:
                # The backend may take the rest of the body for another request.
                backend.prevent_reuse()
            record.status = head.status
            record.answered = now
            if self._sticky:
                head = self._with_sticky_cookie(head, self._sticky, backend.address)
        trailer = b""
        if done:
            trailer = backend.trailer
            self._release(_ANSWERED)
            if self.uploaded:
                backend.finish(now)
            else:
                backend.abort()
            self._finish(_SUCCESS, now)
        if head:
            self._client.send_response(head, payload, done=done, trailer=trailer)
        else:
            self._client.send_body(payload, done=done, trailer=trailer)

    def _with_sticky_cookie(
        self, head: ResponseHead, sticky: StickyCookies, address: BackendAddress
    ) -> ResponseHead:
        """Add the cookie that selects this backend, unless the client has it."""
        if address == self._preferred:
            return head
        return with_cookie(head, sticky.cookie(address, secure=self._client.origin.tls))

    def on_backend_failed(
        self, reason: str, *, sent: bool, answering: bool, host_dead: bool
    ) -> None:
        backend = self._backend
        assert backend
        address = backend.address
        self._backend_slow = False
        # A backend that was just closing an idle connection has not failed.
        stale = backend.used and not answering and not host_dead
        self._release(Outcome.ABANDONED if stale else Outcome.FAILED)
        if host_dead:
            self._balancer.connect_failed(address)
            self._context.backends.abort_idle(address)
        if self.response_started:
            self._abort_response(address, reason)
            return
        if not may_retry(
            self._head.method, sent=sent, body_buffered=not self._body or self._body.can_replay
        ):
            self._fail(
                BackendFailed(f"Backend {address} {reason}, and the request may not be retried.")
            )
            return
        if stale:
            self._attempts().add_stale()
            task = self._connect_and_send(address, new_connection=True)
            self._connecting = self._context.loop.create_task(task)
            return
        try:
            self._count_failure(address, reason)
        except BackendsUnreachable as error:
            self._fail(error)
        else:
            self._attempt(self._context.clock())

    def on_bad_response(self, error: BadResponse) -> None:
        assert self._backend
        address = self._backend.address
        self._release(Outcome.FAILED)
        if self.response_started:
            self._abort_response(address, f"sent a malformed response: {error}")
        else:
            self._fail(error)

    def on_switch_protocols(self, head: ResponseHead, rest: bytes) -> None:
        """Relay bytes from now on; `rest` is what the backend has sent after its 101."""
        context = self._context
        backend = self._backend
        assert backend
        record = self.record
        record.status = head.status
        record.answered = context.clock()
        record.upgraded = True
        context.timeouts.total.stop(self)
        if self._failed:
            self._failed.release()
        self._release(_ANSWERED)  # now: the connection may last for hours
        self._balancer.request_started(backend.address)
        if self._sticky:
            head = self._with_sticky_cookie(head, self._sticky, backend.address)
        splice = Splice(context, backend.detach(), rest, self._on_splice_closed(backend))
        self._client.switch_protocols(head, splice)

    def _on_splice_closed(self, backend: BackendConnection) -> Callable[[int, int], None]:
        def on_closed(bytes_in: int, bytes_out: int) -> None:
            self.record.bytes_in, self.record.bytes_out = bytes_in, bytes_out
            backend.mark_closed()
            self._balancer.request_ended(backend.address, Outcome.ABANDONED)
            self._finish(_SUCCESS, self._context.clock())

        return on_closed

    def on_backend_full(self) -> None:
        self._backend_slow = True
        if not self.uploaded:
            self._client.pause_upload()

    def on_backend_ready(self) -> None:
        self._backend_slow = False
        self._client.progressed()
        if not self.uploaded:
            self._client.resume_upload()

    # The end.

    def _time_out(self, limit: float, *, total: bool) -> None:
        backend = self._backend
        silent = backend is not None and self._waits_for(backend)
        counts = silent and not self.response_started
        self._stop(Outcome.TIMED_OUT if counts else Outcome.ABANDONED)
        if backend and self.response_started:
            self._abort_response(backend.address, stalled_response(limit, total=total))
            return
        self._fail(
            timeout_error(
                backend.address if backend else None,
                limit,
                backend_silent=silent,
                client_slow=self._client_slow,
                total=total,
            )
        )

    def _waits_for(self, backend: BackendConnection) -> bool:
        """Say whether it is the backend's turn: to answer, to read, or to ask for the body."""
        if self._client_slow:
            return False
        if self.uploaded or self._backend_slow:
            return True
        return backend.owes_100 and not self.record.bytes_in

    def _stop(self, outcome: Outcome) -> None:
        if self._connecting:
            self._connecting.cancel()
            self._connecting = None
        if backend := self._backend:
            self._release(outcome)
            backend.abort()

    def _release(self, outcome: Outcome) -> None:
        """Detach from the backend, and report the outcome of the attempt to the balancer."""
        assert self._backend
        address = self._backend.address
        self._backend = None
        if outcome is _ANSWERED and self.record.status in _UNAVAILABLE:
            outcome = Outcome.UNAVAILABLE
        self._balancer.request_ended(address, outcome)

    def _abort_response(self, address: BackendAddress, reason: str) -> None:
        self._warn(address, reason)
        detail = f"Backend {address} {reason}."
        self._finish(FailureCode.RESPONSE_ABORTED, self._context.clock(), detail)
        self._client.abort()

    def _fail(self, error: ProxyError) -> None:
        """Send the proxy's own response. Nothing of a final response has been sent."""
        self._connecting = None
        if isinstance(error, AllBackendsTried):
            error = self._attempts().error()
        # Connection limits are logged where they are found, with the fix.
        request_id = self.record.request_id
        if error.status >= 500 and not isinstance(error, TooManyConnections):
            warn_limited(
                str(error),
                "request failed",
                status=error.status,
                reason=str(error),
                request_id=request_id.decode("latin-1"),
            )
        self.record.status = error.status
        self._finish(error.code, self._context.clock(), str(error))
        self._client.send_error(error, request_id)

    def _finish(self, outcome: str, now: float, detail: str = "") -> None:
        """Complete the request's record, once. `outcome` is a FailureCode, or _SUCCESS."""
        record = self.record
        if record.ended:
            return
        if outcome:
            record.outcome = outcome
            record.detail = detail
        record.ended = now
        if self._failed:
            self._failed.release()
        context = self._context
        if context.timeouts.has_total:
            context.timeouts.total.stop(self)
        context.recorder.record(record)

    # Failed attempts.

    def _attempts(self) -> FailedAttempts:
        if self._failed is None:
            self._failed = FailedAttempts(self._context.retry_budget)
        return self._failed

    def _count_failure(self, address: BackendAddress, reason: str) -> None:
        """Record and log a failed attempt. Raises BackendsUnreachable if no other may follow."""
        self._warn(address, reason)
        self._attempts().add(address, reason)

    def _warn(self, address: BackendAddress, reason: str) -> None:
        warn_limited(address, "backend failed", backend=str(address), reason=reason)
