"""Watch clusters: which members join and leave, across every relay that the program attaches to."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager

from arke.errors import MeshClosed, RequestTimeout
from arke.runtime.reconnect import Attachment
from arke.runtime.relay_connection import Message, MessageHandler, RelayConnection
from arke.values import Change, Member
from arke.wire.limits import MAX_WATCHES
from arke.wire.messages import Op


class _WatchedCluster:
    """The known members of a cluster, and its watchers."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.watchers: list[_Watcher] = []
        self.listed: set[str] | None = set()
        """Members that the relay has listed since WATCH; None once it has listed all."""

    def notify(self, member_id: str) -> None:
        """Tell every watcher that a member may have changed."""
        for watcher in self.watchers:
            watcher.on_change(member_id)


class _Watcher:
    """One iteration over changes. A slow reader keeps at most one pending change per member."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self._members = members
        self._reported: dict[str, Member] = {}
        # Ordered, because the first entry of a plain dict takes longer to find with each removal.
        self._pending = OrderedDict.fromkeys(members)
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def on_change(self, member_id: str) -> None:
        self._pending[member_id] = None
        self.wake()

    def close(self) -> None:
        self._closed = True
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Change:
        """Wait for the next change. Raises MeshClosed when the mesh is closed."""
        while True:
            change = self._next_change()
            if change is not None:
                return change
            await self.wait()

    async def wait(self) -> None:
        if self._closed:
            raise MeshClosed("the mesh was closed")
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _next_change(self) -> Change | None:
        while self._pending:
            member_id = next(iter(self._pending))
            reported, current = self._reported.get(member_id), self._members.get(member_id)
            if reported is not None and reported != current:
                # The member stays pending: if it has joined again, that is reported next.
                del self._reported[member_id]
                return Change(joined=False, member=reported)
            del self._pending[member_id]
            if current is not None and reported is None:
                self._reported[member_id] = current
                return Change(joined=True, member=current)
        return None


class ClusterWatches:
    """The clusters that a program watches."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._clusters: dict[str, _WatchedCluster] = {}

    async def watch(self, name: str) -> AsyncGenerator[Change, None]:
        """Yield the current members as joined, then each change.

        Raises MeshClosed when the mesh is closed, ValueError for more watches than one program may
        have.
        """
        with self._watching(name) as (_, watcher):
            while True:
                yield await watcher.next()

    async def members(self, name: str, deadline: float) -> list[Member]:
        """Return the members of a cluster, once the relay has listed all of them.

        Raises MeshClosed, or RequestTimeout when the deadline passes first.
        """
        with self._watching(name) as (cluster, watcher):
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    while cluster.listed is not None:
                        await watcher.wait()
            except TimeoutError:
                raise RequestTimeout(
                    f"timed out: the members of {name!r} are not known from the relay at"
                    f" {self._attachment.address}"
                ) from None
            return list(cluster.members.values())

    @contextmanager
    def _watching(self, name: str) -> Iterator[tuple[_WatchedCluster, _Watcher]]:
        """Watch a cluster during the block; the last watcher of a cluster sends UNWATCH."""
        self._attachment.check_open()
        connection = self._attachment.connection
        cluster = self._clusters.get(name)
        if cluster is None:
            if len(self._clusters) >= MAX_WATCHES:
                raise ValueError(f"a program can watch at most {MAX_WATCHES} clusters")
            cluster = self._clusters[name] = _WatchedCluster()
            if connection:
                connection.send((Op.WATCH.value, name))
        watcher = _Watcher(cluster.members)
        cluster.watchers.append(watcher)
        try:
            yield cluster, watcher
        finally:
            cluster.watchers.remove(watcher)
            if not cluster.watchers:
                del self._clusters[name]
                connection = self._attachment.connection
                if connection:
                    connection.send((Op.UNWATCH.value, name))

    # The component interface.

    @property
    def handlers(self) -> Mapping[int, MessageHandler]:
        return {
            Op.MEMBER_JOINED: self._on_member_joined,
            Op.MEMBER_LEFT: self._on_member_left,
            Op.MEMBERS_LISTED: self._on_members_listed,
        }

    def on_attached(self, connection: RelayConnection) -> None:
        for name, cluster in self._clusters.items():
            cluster.listed = set()
            connection.send((Op.WATCH.value, name))

    def on_writable(self) -> None:
        """Nothing waits for room."""

    def on_detached(self, reason: str, last_accepted: int | None) -> None:
        """Known members are kept: most of them are still there at the next relay."""

    def on_closed(self) -> None:
        for cluster in self._clusters.values():
            for watcher in cluster.watchers:
                watcher.close()

    def _on_member_joined(self, message: Message, connection: RelayConnection) -> None:
        _, name, member_id, address, metadata = message
        cluster = self._clusters.get(name)
        if cluster is not None:
            cluster.members[member_id] = Member(member_id, address, metadata)
            if cluster.listed is not None:
                cluster.listed.add(member_id)
            cluster.notify(member_id)

    def _on_member_left(self, message: Message, connection: RelayConnection) -> None:
        _, name, member_id = message
        cluster = self._clusters.get(name)
        if cluster is not None and member_id in cluster.members:
            del cluster.members[member_id]
            cluster.notify(member_id)

    def _on_members_listed(self, message: Message, connection: RelayConnection) -> None:
        """Remove members known from an earlier relay that this relay did not list."""
        cluster = self._clusters.get(message[1])
        if cluster is None or cluster.listed is None:
            return
        for member_id in cluster.members.keys() - cluster.listed:
            del cluster.members[member_id]
            cluster.notify(member_id)
        cluster.listed = None
        for watcher in cluster.watchers:
            watcher.wake()
