"""Arke: programs find and call each other by cluster name, through the relay of their machine.

async with arke.connect() as mesh:
    reply = await mesh.request("cluster", b"ip", timeout=5.0)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
else:
    _MODULES = (
        "errors",
        "limits",
        "mesh",
        "request",
        "service",
        "subscription",
        "tunnel",
        "values",
    )

    def __getattr__(name: str) -> object:
        """Import a public name at its first use.

        The relay and the proxy's master process import only parts of this package, such as
        `arke.program`. They need neither the time nor the 10 MB of memory that all of it takes.
        """
        from importlib import import_module  # noqa: PLC0415

        if name == "blocking":
            return import_module("arke.blocking")
        if name in __all__:
            for module in _MODULES:
                names = vars(import_module(f"arke.{module}"))
                if name in names:
                    globals()[name] = names[name]
                    return names[name]
        raise AttributeError(f"module 'arke' has no attribute {name!r}")


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
