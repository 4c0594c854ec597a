"""What a program says to many, and hears: broadcasts, events, who comes to a cluster and goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from arke.wire.messages import Op
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.program import Program


class Listener:
    """Casts carry their sender, the name they are for, and their number among those."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._numbers: Counter[tuple[int, str]] = Counter()
        self._heard: dict[tuple[int, str, str], int] = {}
        self.pictures: dict[str, dict[str, dict[str, str]]] = {}
        """The members of the clusters that it watches, with what they say of themselves."""
        self.named: Counter[str] = Counter()
        self._topics: dict[str, None] = {}
        self._once_watched: set[str] = set()
        self._once_heard: set[str] = set()

    @property
    def handlers(self) -> dict[int, Callable[..., object]]:
        return {
            Op.DELIVER_BROADCAST: self._on_told,
            Op.DELIVER_EVENT: self._on_event,
            Op.MEMBER_JOINED: self._on_came,
            Op.MEMBER_LEFT: self._on_went,
            Op.MEMBERS_LISTED: self._on_named,
        }

    @property
    def topics(self) -> list[str]:
        return list(self._topics)

    def heard(self, op: int, name: str, sender: str) -> int:
        """The number of the last cast of a sender that arrived; 0: none has."""
        return self._heard.get((op, name, sender), 0)

    # Telling.

    def cast(self, op: int, name: str, size: int = 0, *, shared: bool = False) -> int:
        """Broadcast or publish; small ones may share a message. Returns its number."""
        program = self._program
        self._numbers[op, name] += 1
        number = self._numbers[op, name]
        body = f"{program.key} {name} {number} ".encode()
        body += bytes(max(0, size - len(body)))
        if shared:
            program.outbox.put_fanout(op, name, body)
        else:
            program.outbox.put_body((op, name, body, None), 2, (op, name))
        program.world.trace.note(program.key, Op(op).name, "to", name, number, len(body))
        return number

    # Listening.

    def subscribe(self, topic: str) -> None:
        self._topics[topic] = None
        self._once_heard.add(topic)
        self._program.outbox.put((Op.SUBSCRIBE.value, topic))

    def unsubscribe(self, topic: str) -> None:
        del self._topics[topic]
        self._program.outbox.put((Op.UNSUBSCRIBE.value, topic))

    def watch(self, cluster: str) -> None:
        """Once for each cluster: what is under way for an earlier watch cannot be told apart."""
        if cluster not in self._once_watched:
            self._once_watched.add(cluster)
            self.pictures[cluster] = {}
            self._program.outbox.put((Op.WATCH.value, cluster))

    def unwatch(self, cluster: str) -> None:
        del self.pictures[cluster]
        self._program.outbox.put((Op.UNWATCH.value, cluster))

    # What the relay says.

    def _on_told(self, body: object, sender: str, headers: object) -> None:
        self._hear(Op.BROADCAST, self._program.cluster_of_old, body, sender)

    def _on_event(self, topic: str, body: object, sender: str, headers: object) -> None:
        if topic not in self._once_heard:
            raise Violation("events reach subscribers", topic, self._program.key)
        self._hear(Op.PUBLISH, topic, body, sender)

    def _hear(self, op: int, name: str | None, body: object, sender: str) -> None:
        program = self._program
        cast = program.inbox.take_fanout(body)
        if cast is None:
            raise Violation("honest bodies find room", str(name), program.key)
        for each in cast if type(cast) is tuple else (cast,):
            key, named, text, _ = bytes(each).split(b" ", 3)
            who, number = key.decode(), int(text)
            if named.decode() != name or program.world.senders.get(who) != sender:
                text = f"{who}'s for {named.decode()} came to {name} as {sender}'s"
                raise Violation("a cast arrives as it was sent", text, who, program.key)
            last = self._heard.get((op, name, who), 0)
            if number <= last:
                text = f"{program.key} heard {number} of {who} for {name} behind {last}"
                raise Violation("casts in order, each at most once", text, program.key, who)
            self._heard[op, name, who] = number
            program.world.tally.seen["casts heard"] += 1

    def _on_came(self, cluster: str, member: str, address: str, metadata: dict[str, str]) -> None:
        picture = self.pictures.get(cluster)
        if picture is None:
            return
        if member in picture:
            text = f"{member} came to {cluster} and was there"
            raise Violation("a watcher is told of changes", text, self._program.key)
        picture[member] = metadata
        self._program.world.tally.seen["watched comings"] += 1

    def _on_went(self, cluster: str, member: str) -> None:
        picture = self.pictures.get(cluster)
        if picture is not None and picture.pop(member, None) is None:
            text = f"{member} left {cluster} and was not there"
            raise Violation("a watcher is told of changes", text, self._program.key)

    def _on_named(self, cluster: str) -> None:
        self.named[cluster] += 1
