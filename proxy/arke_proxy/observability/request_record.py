"""The record of one request: what the access log and the counters need to know of it."""

from __future__ import annotations

from typing import Protocol

from arke_proxy.backends.address import BackendAddress
from arke_proxy.errors import ProxyError
from arke_proxy.http.messages import RequestHead


class RequestRecord:
    """One request and its outcome, filled in while the request is processed.

    Times are `time.monotonic`, in seconds; 0.0 for a step that was not reached. (The loop's clock
    has whole milliseconds only, less than many requests take.) Sizes are those of bodies. Fields
    that only an access log needs are read from the head on demand.
    """

    # Class attributes are defaults: most requests set few of these.
    cluster = ""  # empty if no route matched
    backend: BackendAddress | None = None  # the last one that was sent the request
    status = 0  # sent to the client; 0 if none was
    bytes_in = 0
    bytes_out = 0
    attempts = 0  # how often the request was sent to a backend
    request_id = b""
    upgraded = False  # a WebSocket or the like; `ended` is its end
    outcome = ""  # a code for why the request failed, such as `client_disconnected`
    detail = ""  # a sentence about `outcome`
    chosen = 0.0  # the last backend was picked
    sent = 0.0  # the head was sent to a backend
    answered = 0.0  # the final response head had arrived
    ended = 0.0  # the end of the response arrived, or the request failed

    def __init__(
        self, client: str, head: RequestHead | None, began: float, version: str = "HTTP/1.1"
    ) -> None:
        self.client = client  # the client's IP address
        self.head = head  # None if the request was malformed
        self.began = began  # the head was complete
        self.version = version  # the client's protocol

    @property
    def method(self) -> bytes:
        return self.head.method if self.head else b"-"

    @property
    def target(self) -> bytes:
        return self.head.target if self.head else b"-"

    @property
    def host(self) -> bytes | None:
        return self.head.host if self.head else None

    @property
    def user_agent(self) -> bytes | None:
        return self._field(b"user-agent")

    @property
    def referer(self) -> bytes | None:
        return self._field(b"referer")

    def _field(self, wanted: bytes) -> bytes | None:
        if self.head:
            for name, value in self.head.fields:
                if len(name) == len(wanted) and name.lower() == wanted:
                    return value
        return None


def refusal(
    client: str,
    error: ProxyError,
    now: float,
    head: RequestHead | None = None,
    *,
    version: str = "HTTP/1.1",
    answered: bool = True,
) -> RequestRecord:
    """Return the record of a request that the proxy refused. `now` is `time.monotonic`."""
    record = RequestRecord(client, head, now, version)
    record.status = error.status if answered else 0
    record.outcome = error.code
    record.detail = str(error)
    record.ended = now
    return record


class RequestRecorder(Protocol):
    """Counts or logs requests."""

    def record(self, record: RequestRecord) -> None:
        """Take the record of a request that has ended and will not change. Never raises."""


class NullRecorder:
    """Discards records."""

    def record(self, record: RequestRecord) -> None:
        """Discard the record."""
