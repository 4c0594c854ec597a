"""Arke: programs find and call each other by cluster name, through the relay of their machine.

async with arke.connect() as mesh:
    reply = await mesh.request("cluster", b"ip", timeout=5.0)
"""

from arke.errors import (
    ArkeError,
    ConnectionLost,
    MemberLost,
    MeshClosed,
    MessageTooLarge,
    NoSuchCluster,
    Overloaded,
    ProtocolError,
    RelayUnreachable,
    RemoteError,
    RequestError,
    RequestTimeout,
)
from arke.limits import Limits
from arke.mesh import Mesh, connect
from arke.service import Service
from arke.subscription import Subscription
from arke.values import Broadcast, Event, Node, Request

__version__ = "0.1.0"

__all__ = [
    "ArkeError",
    "Broadcast",
    "ConnectionLost",
    "Event",
    "Limits",
    "MemberLost",
    "Mesh",
    "MeshClosed",
    "MessageTooLarge",
    "NoSuchCluster",
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
    "__version__",
    "connect",
]
