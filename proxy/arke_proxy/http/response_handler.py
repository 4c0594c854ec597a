"""The client side of a request, as its exchange sees it: an HTTP/1 connection or HTTP/2 stream."""

from __future__ import annotations

from abc import ABC, abstractmethod

from arke_proxy.errors import ProxyError
from arke_proxy.http.forwarded import ClientOrigin
from arke_proxy.http.messages import ResponseHead
from arke_proxy.http.websocket import Splice


class ResponseHandler(ABC):
    """Writes a response to the client, in the framing of its protocol.

    For each request the exchange calls `send_interim` any number of times, then one of:
    `send_response` with `send_body` until one of them is `done`; `send_error`; `abort`;
    `switch_protocols`. After that the exchange is over; its last call may start
    the exchange of the next request.
    """

    __slots__ = ()

    peer: str
    """The client's IP address."""

    version: str
    """The client's protocol, as the access log writes it."""

    origin: ClientOrigin
    """The client, for the X-Forwarded-* fields."""

    @abstractmethod
    def send_interim(self, head: ResponseHead) -> None:
        """Forward a 1xx response."""

    @abstractmethod
    def send_response(
        self, head: ResponseHead, payload: bytes, *, done: bool, trailer: bytes
    ) -> None:
        """Start the response; `payload` is the first part of its body."""

    @abstractmethod
    def send_body(self, payload: bytes, *, done: bool, trailer: bytes) -> None:
        """Send more of the body. `trailer`: the trailer lines, with the last part."""

    @abstractmethod
    def send_error(self, error: ProxyError, request_id: bytes = b"") -> None:
        """Send the proxy's own response. Nothing of another response has been sent."""

    @abstractmethod
    def abort(self) -> None:
        """Reset, so that the client does not take a truncated response for a complete one."""

    @abstractmethod
    def switch_protocols(self, head: ResponseHead, splice: Splice) -> None:
        """Forward the 101 response, and give the connection to `splice`."""

    @abstractmethod
    def pause_upload(self) -> None:
        """Stop reading the request's body for now."""

    @abstractmethod
    def resume_upload(self) -> None:
        """Read the request's body again."""

    @abstractmethod
    def progressed(self) -> None:
        """Restart the time limit: the exchange made progress."""
