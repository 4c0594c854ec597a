"""Every exception of Arke, as one tree.

ArkeError
├── RelayUnreachable      no relay to attach to
├── ConnectionLost        the relay was lost while a request was pending: its outcome is unknown
├── MeshClosed            the program closed the mesh, or has not opened it
├── MessageTooLarge       the body is over the relay's limit; nothing was sent
├── ProtocolError         the relay or the member broke the protocol
├── TunnelClosed          the tunnel was closed, at this end or at the other
└── RequestError          the request failed
    ├── NoSuchCluster     the cluster has no members
    ├── NoSuchMember      the requested member does not exist any more
    ├── MemberLost        the member was lost before it replied
    ├── Overloaded        every member refused the request; no handler was started
    ├── RequestTimeout    (also a TimeoutError) the deadline passed
    └── RemoteError       the member's handler raised an exception
"""

from __future__ import annotations


class ArkeError(Exception):
    """The base class of every exception of Arke."""


class RelayUnreachable(ArkeError):
    """No relay to attach to: is one running on this machine?"""


class ConnectionLost(ArkeError):
    """The relay was lost while a request was pending. A handler may have processed the request."""


class MeshClosed(ArkeError):
    """The program closed the mesh, or has not opened it."""


class MessageTooLarge(ArkeError):
    """The body is over the relay's limit. Raised at the sender; nothing was sent."""


class ProtocolError(ArkeError):
    """The relay or the member broke the protocol, or uses another version of it."""


class TunnelClosed(ArkeError):
    """The tunnel was closed, at this end or at the other; the text says why.

    `type` is the class name of the exception that closed it at the other end, or empty.
    """

    def __init__(self, text: str, type: str = "") -> None:  # noqa: A002 — the name users read
        super().__init__(f"{type}: {text}" if type else text)
        self.type = type
        self.text = text


class RequestError(ArkeError):
    """The request failed: the base class of its errors."""


class NoSuchCluster(RequestError):
    """The cluster has no members in the network."""


class NoSuchMember(RequestError):
    """The requested member does not exist any more."""


class MemberLost(RequestError):
    """The member that had the request died or was disconnected before it replied."""


class Overloaded(RequestError):
    """Every member refused the request before a handler was started."""


class RequestTimeout(RequestError, TimeoutError):
    """The deadline passed before the reply arrived."""


class RemoteError(RequestError):
    """The member's handler raised. `type` is the exception's class name, `text` its message."""

    def __init__(self, type: str, text: str) -> None:  # noqa: A002 — the name users read
        super().__init__(f"{type}: {text}" if text else type)
        self.type = type
        self.text = text
