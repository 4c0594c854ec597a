"""Who sent a request, as the exchange knows them: an HTTP/1 connection, or a stream of HTTP/2."""

from __future__ import annotations

from abc import ABC, abstractmethod

from arke_proxy.errors import ProxyError
from arke_proxy.http.forwarded import Origin
from arke_proxy.http.messages import ResponseHead
from arke_proxy.http.websocket import Splice


class Requester(ABC):
    """Writes an answer in its own framing.

    Each request gets any number of `interim`, then one `answer` and its `piece`s until one is
    `done`; or `fail`, or `cut`, or `switch`. After the last of these the exchange is over, and the
    requester may begin the next before it returns.
    """

    __slots__ = ()

    peer: str
    """The client's address."""

    version: str
    """The protocol it speaks, as a log writes it."""

    origin: Origin
    """What backends are told about this client."""

    @abstractmethod
    def interim(self, head: ResponseHead) -> None:
        """Pass on an answer 1xx."""

    @abstractmethod
    def answer(self, head: ResponseHead, payload: bytes, *, done: bool, trailer: bytes) -> None:
        """Begin the answer; `payload` is what has come of its body. `trailer` is as in `piece`."""

    @abstractmethod
    def piece(self, payload: bytes, *, done: bool, trailer: bytes) -> None:
        """Go on with the body. `trailer`: the lines that follow it, with the last piece."""

    @abstractmethod
    def fail(self, error: ProxyError) -> None:
        """Answer in the backends' stead. Nothing of an answer has been written."""

    @abstractmethod
    def cut(self) -> None:
        """End the answer such that what was sent cannot pass for a whole one."""

    @abstractmethod
    def switch(self, head: ResponseHead, splice: Splice) -> None:
        """Pass on the answer 101, and become an end of the splice."""

    @abstractmethod
    def pause(self) -> None:
        """Read no more of the request's body for now."""

    @abstractmethod
    def resume(self) -> None:
        """Read on."""

    @abstractmethod
    def moved(self) -> None:
        """Note that the exchange is making progress."""
