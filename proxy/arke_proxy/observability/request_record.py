"""What the proxy remembers of one request until it is counted and logged."""

from __future__ import annotations

from typing import Protocol

from arke_proxy.backends.address import BackendAddress
from arke_proxy.errors import ProxyError
from arke_proxy.http.messages import RequestHead


class RequestRecord:
    """One request and what became of it; whoever carries it fills it in on the way.

    Times are `time.monotonic`, in seconds; 0.0 is a step that was never reached. (The loop's own
    clock counts whole milliseconds, in which many a request is over.) Octets are those of the
    bodies. What only a log wants is read from the head, when it is wanted.
    """

    # What most requests never touch costs them nothing here.
    cluster = ""  # where no route was found
    backend: BackendAddress | None = None  # that was sent the request last
    status = 0  # that the client was sent; 0 if it was sent none
    bytes_in = 0
    bytes_out = 0
    attempts = 0  # how often the request was sent
    request_id = b""
    upgraded = False  # the connection left HTTP; `ended` is the end of what it became
    outcome = ""  # why it did not end as it should, in a word or two: `client left`
    detail = ""  # the same in a sentence, where there is more to say
    chosen = 0.0  # a backend was chosen, the last time
    sent = 0.0  # and was sent the head
    answered = 0.0  # the first octet of the final answer's head came
    ended = 0.0  # the last octet of the answer was written

    def __init__(
        self, client: str, head: RequestHead | None, began: float, version: str = "HTTP/1.1"
    ) -> None:
        self.client = client  # its address, without the port
        self.head = head  # None where the bytes were no request
        self.began = began  # its head was whole
        self.version = version  # as the client spoke it

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
    """Return the record of what was no request, perhaps with a head; `now` is `time.monotonic`."""
    record = RequestRecord(client, head, now, version)
    record.status = error.status if answered else 0
    record.outcome = error.name
    record.detail = str(error)
    record.ended = now
    return record


class RequestRecorder(Protocol):
    """Whoever counts and logs requests."""

    def record(self, record: RequestRecord) -> None:
        """Take the record of a request that has ended; it changes no more. Never raises."""


class NullRecorder:
    """Where nobody wants to know."""

    def record(self, record: RequestRecord) -> None:
        """Nothing is kept."""
