"""Everything Arke raises, as one tree.

ArkeError
├── RelayUnreachable      no relay could be attached to
├── ConnectionLost        the relay went away while a call was under way: its fate is unknown
├── MeshClosed            the mesh was closed by this program
├── MessageTooLarge       the body is over the relay's limit; nothing was sent
├── ProtocolError         the other end does not speak as it should
├── TunnelClosed          the tunnel has ended, at this end or at the other
└── RequestError          the request has an outcome, and it is not an answer
    ├── NoSuchCluster     nobody in the network serves the cluster
    ├── NoSuchMember      the member that was asked for is not there, or not any more
    ├── MemberLost        the member died before it answered
    ├── Overloaded        every member refused; no handler was started
    ├── RequestTimeout    (also a TimeoutError) the deadline passed
    └── RemoteError       the member's handler raised
"""

from __future__ import annotations


class ArkeError(Exception):
    """The root of everything Arke raises."""


class RelayUnreachable(ArkeError):
    """No relay could be attached to: is one running on this machine?"""


class ConnectionLost(ArkeError):
    """The relay went away while a call was under way. It may have been handled, or not."""


class MeshClosed(ArkeError):
    """The mesh was closed by this program."""


class MessageTooLarge(ArkeError):
    """The body is over the relay's limit. Raised at the sender, before anything is sent."""


class ProtocolError(ArkeError):
    """The other end does not speak the protocol, or another version of it."""


class TunnelClosed(ArkeError):
    """The tunnel has ended, at this end or at the other; the text says how.

    `type` is the class name of the exception that ended it at the other end, or empty.
    """

    def __init__(self, text: str, type: str = "") -> None:  # noqa: A002 — the name users read
        super().__init__(f"{type}: {text}" if type else text)
        self.type = type
        self.text = text


class RequestError(ArkeError):
    """The request has an outcome, and it is not an answer."""


class NoSuchCluster(RequestError):
    """Nobody in the network serves the cluster."""


class NoSuchMember(RequestError):
    """The member that was asked for is not there, or not any more."""


class MemberLost(RequestError):
    """The member that had the request died, or was cut off, before it answered."""


class Overloaded(RequestError):
    """Every member refused the request before a handler was started."""


class RequestTimeout(RequestError, TimeoutError):
    """The deadline passed before an answer came."""


class RemoteError(RequestError):
    """The member's handler raised. `type` is the exception's class name, `text` what it said."""

    def __init__(self, type: str, text: str) -> None:  # noqa: A002 — the name users read
        super().__init__(f"{type}: {text}" if text else type)
        self.type = type
        self.text = text
