"""A client's connection by TLS, until it is known which protocol was agreed on."""

from __future__ import annotations

import asyncio
from typing import cast

from arke_proxy.clients.http1 import Client
from arke_proxy.clients.http2 import Http2Client
from arke_proxy.hub import Hub


class Negotiated(asyncio.Protocol):
    """Hands the connection, once it is encrypted, to who speaks what the client chose."""

    __slots__ = ("_hub",)

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        speaks_2 = tls is not None and tls.selected_alpn_protocol() == "h2"
        client = Http2Client(self._hub) if speaks_2 else Client(self._hub)
        cast("asyncio.Transport", transport).set_protocol(cast("asyncio.Protocol", client))
        client.connection_made(transport)
