"""Resend requests after the connection to the relay was lost, if they cannot run twice by that.

A request is resent if it was never sent, if the relay announced its shutdown before it accepted the
request, or if it is idempotent. Every other request fails with ConnectionLost: a handler may have
run. A resent request keeps its deadline and gets a new request_id, so that a late reply to the
first attempt is ignored.
"""

from __future__ import annotations

import time

from arke.errors import ConnectionLost
from arke.runtime.arguments import too_large
from arke.runtime.deadlines import PendingRequest, PendingRequests
from arke.runtime.reconnect import Attachment
from arke.runtime.relay_connection import RelayConnection


def may_resend(request: PendingRequest, last_accepted: int | None) -> bool:
    """Whether a request can be sent to the next relay.

    `last_accepted` is the last request_id that the old relay accepted, if it announced its
    shutdown.
    """
    if not request.resendable:
        return False
    not_accepted = last_accepted is not None and request.request_id > last_accepted
    return not request.sent or not_accepted or request.idempotent


def requeue_or_fail(pending: PendingRequests, reason: str, last_accepted: int | None) -> None:
    """Mark the requests that are safe to resend as unsent; fail the others with ConnectionLost."""
    resend: list[PendingRequest] = []
    for request in pending.take_all():
        if may_resend(request, last_accepted):
            resend.append(request)
        elif not request.future.done():
            request.future.set_exception(ConnectionLost(reason))
    for request in resend:
        request.sent = False
        pending.add(request)


class Resender:
    """Sends requests that could not be sent at once, and those of a lost connection again."""

    def __init__(self, attachment: Attachment, pending: PendingRequests) -> None:
        self._attachment = attachment
        self._pending = pending
        self.needed = False
        """Whether any pending request is unsent."""

    def on_detached(self, reason: str, last_accepted: int | None) -> None:
        """Decide which requests of a lost connection are resent."""
        requeue_or_fail(self._pending, reason, last_accepted)
        self.needed = True

    def send_unsent(self) -> None:
        """Send the unsent requests until the connection is congested."""
        if not self.needed:
            return
        self.needed = False
        for request in self._pending.unsent():
            connection = self._attachment.connection
            if connection is None or connection.congested:
                self.needed = True
                return
            remaining = request.deadline - time.monotonic()
            if remaining > 0 and not request.future.done():
                self.send(request, connection, remaining)

    def send(self, request: PendingRequest, connection: RelayConnection, remaining: float) -> None:
        """Send a request with the seconds that remain until its deadline."""
        op, _, name, body, _, *rest = request.message
        if len(body) > connection.max_message:
            self._pending.drop(request)
            request.future.set_exception(too_large(body, connection.max_message))
            return
        request_id = request.request_id
        request.message = (op, request_id, name, body, int(remaining * 1000) + 1, *rest)
        request.sent = connection.send_body(request.message, 3, request_id)
        if not request.sent:
            self.needed = True
