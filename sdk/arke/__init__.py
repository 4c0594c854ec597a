"""Arke: programs find and call each other by cluster name, through the relay of their machine.

async with arke.connect() as mesh:
    reply = await mesh.request("cluster", b"ip", timeout=5.0)
"""

from arke import blocking
from arke.errors import (
    ArkeError,
    ConnectionLost,
    MemberLost,
    MeshClosed,
    MessageTooLarge,
    NoSuchCluster,
    NoSuchMember,
    Overloaded,
    ProtocolError,
    RelayUnreachable,
    RemoteError,
    RequestError,
    RequestTimeout,
    TunnelClosed,
)
from arke.limits import Limits
from arke.mesh import Mesh, connect
from arke.request import Request
from arke.service import Service
from arke.subscription import Subscription
from arke.tunnel import Tunnel
from arke.values import Answer, Broadcast, Change, Event, Member, Node

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "ArkeError",
    "Broadcast",
    "Change",
    "ConnectionLost",
    "Event",
    "Limits",
    "Member",
    "MemberLost",
    "Mesh",
    "MeshClosed",
    "MessageTooLarge",
    "NoSuchCluster",
    "NoSuchMember",
    "Node",
    "Overloaded",
    "ProtocolError",
    "RelayUnreachable",
    "RemoteError",
    "Request",
    "RequestError",
    "RequestTimeout",
    "Service",
    "Subscription",
    "Tunnel",
    "TunnelClosed",
    "__version__",
    "blocking",
    "connect",
]
