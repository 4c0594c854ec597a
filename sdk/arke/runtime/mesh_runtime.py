"""The parts of an open mesh, created together and attached to one relay."""

from __future__ import annotations

import os
from typing import Self

from arke.runtime.cluster_watch import ClusterWatches
from arke.runtime.fanout_sender import FanoutSender
from arke.runtime.reconnect import Attachment
from arke.runtime.request_sender import RequestSender
from arke.runtime.topic_subscriptions import TopicSubscriptions
from arke.runtime.tunnel_table import TunnelTable


class MeshRuntime:
    """An attachment and its components."""

    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment
        self.requests = RequestSender(attachment)
        self.topics = TopicSubscriptions(attachment)
        self.watches = ClusterWatches(attachment)
        self.tunnels = TunnelTable(self.requests)
        self.fanout = FanoutSender(attachment)

    @classmethod
    async def open(cls, port: int | None, path: str | os.PathLike[str] | None, wait: float) -> Self:
        """Attach to the relay. Raises RelayUnreachable or ProtocolError."""
        attachment = Attachment(port, path)
        runtime = cls(attachment)
        for component in (runtime.requests, runtime.topics, runtime.watches, runtime.tunnels):
            attachment.add_component(component)
        await attachment.open(wait)
        return runtime
