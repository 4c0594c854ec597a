"""Who is in a cluster: watched through every relay that this program comes to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from arke.errors import MeshClosed
from arke.runtime.relay_connection import Handler, Message, RelayLink
from arke.values import Change, Member
from arke.wire.limits import MAX_WATCHES
from arke.wire.messages import Op

if TYPE_CHECKING:
    from arke.runtime.reconnect import Attachment


class _Cluster:
    """A cluster that somebody watches."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.watchers: list[_Watcher] = []
        self.named: set[str] | None = set()
        """Whom a relay has named since it was asked; None once it has named all."""

    def changed(self, member_id: str) -> None:
        for watcher in self.watchers:
            watcher.look_at(member_id)


class _Watcher:
    """Somebody who is told of changes at their own pace: never more than they have missed."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self._members = members
        self._told: dict[str, Member] = {}
        self._due = dict.fromkeys(members)
        self._waiter: asyncio.Future[None] | None = None
        self._over = False

    def look_at(self, member_id: str) -> None:
        self._due[member_id] = None
        self.wake()

    def end(self) -> None:
        self._over = True
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Change:
        """The next change. Raises MeshClosed when the mesh was closed."""
        while True:
            change = self._change()
            if change is not None:
                return change
            await self.wait()

    async def wait(self) -> None:
        if self._over:
            raise MeshClosed("the mesh was closed")
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _change(self) -> Change | None:
        while self._due:
            member_id = next(iter(self._due))
            known, now = self._told.get(member_id), self._members.get(member_id)
            if known is not None and known != now:
                del self._told[member_id]  # what it has become is told next
                return Change(joined=False, member=known)
            del self._due[member_id]
            if now is not None and known is None:
                self._told[member_id] = now
                return Change(joined=True, member=now)
        return None


class Watches:
    """The clusters that a program watches."""

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._clusters: dict[str, _Cluster] = {}

    async def watch(self, name: str) -> AsyncIterator[Change]:
        """The members there are, as joined; then who joins and who leaves.

        Raises MeshClosed when the mesh is closed, ValueError beyond what one program may watch.
        """
        with self._watching(name) as (_, watcher):
            while True:
                yield await watcher.next()

    async def members(self, name: str) -> list[Member]:
        """The members that the relay knows, once its peers have told it theirs."""
        with self._watching(name) as (cluster, watcher):
            while cluster.named is not None:
                await watcher.wait()
            return list(cluster.members.values())

    @contextmanager
    def _watching(self, name: str) -> Iterator[tuple[_Cluster, _Watcher]]:
        self._attachment.check_open()
        link = self._attachment.link
        cluster = self._clusters.get(name)
        if cluster is None:
            if len(self._clusters) >= MAX_WATCHES:
                raise ValueError(f"more than {MAX_WATCHES} watches")
            cluster = self._clusters[name] = _Cluster()
            if link:
                link.send((Op.WATCH.value, name))
        watcher = _Watcher(cluster.members)
        cluster.watchers.append(watcher)
        try:
            yield cluster, watcher
        finally:
            cluster.watchers.remove(watcher)
            if not cluster.watchers:
                del self._clusters[name]
                link = self._attachment.link
                if link:
                    link.send((Op.UNWATCH.value, name))

    # A part of the attachment.

    @property
    def handlers(self) -> Mapping[int, Handler]:
        return {
            Op.MEMBER_JOINED: self._on_came,
            Op.MEMBER_LEFT: self._on_went,
            Op.MEMBERS_LISTED: self._on_named,
        }

    def attached(self, link: RelayLink) -> None:
        for name, cluster in self._clusters.items():
            cluster.named = set()
            link.send((Op.WATCH.value, name))

    def relieved(self) -> None:
        """Nothing waits for room."""

    def detached(self, reason: str, last_accepted: int | None) -> None:
        """Who was known stays known: most are still there when a relay is found again."""

    def closed(self) -> None:
        for cluster in self._clusters.values():
            for watcher in cluster.watchers:
                watcher.end()

    # What the relay says.

    def _on_came(self, message: Message, link: RelayLink) -> None:
        _, name, member_id, address, metadata = message
        cluster = self._clusters.get(name)
        if cluster is not None:
            cluster.members[member_id] = Member(member_id, address, metadata)
            if cluster.named is not None:
                cluster.named.add(member_id)
            cluster.changed(member_id)

    def _on_went(self, message: Message, link: RelayLink) -> None:
        _, name, member_id = message
        cluster = self._clusters.get(name)
        if cluster is not None and member_id in cluster.members:
            del cluster.members[member_id]
            cluster.changed(member_id)

    def _on_named(self, message: Message, link: RelayLink) -> None:
        """The relay has named every member: who was known and was not named is gone."""
        cluster = self._clusters.get(message[1])
        if cluster is None or cluster.named is None:
            return
        for member_id in cluster.members.keys() - cluster.named:
            del cluster.members[member_id]
            cluster.changed(member_id)
        cluster.named = None
        for watcher in cluster.watchers:
            watcher.wake()
