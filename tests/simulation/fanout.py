"""A program's broadcasts, publications, subscriptions and watched clusters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from arke.wire.messages import Op
from simulation.trace import Violation

if TYPE_CHECKING:
    from simulation.program import Program


class Fanout:
    """Each body contains its sender, its cluster or topic, and its number among these."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._numbers: Counter[tuple[int, str]] = Counter()
        self._last_received: dict[tuple[int, str, str], int] = {}
        self.watched_members: dict[str, dict[str, dict[str, str]]] = {}
        """The members of each watched cluster, with their metadata."""
        self.listings: Counter[str] = Counter()
        self._topics: dict[str, None] = {}
        self._ever_watched: set[str] = set()
        self._ever_subscribed: set[str] = set()

    @property
    def handlers(self) -> dict[int, Callable[..., object]]:
        return {
            Op.DELIVER_BROADCAST: self._on_broadcast,
            Op.DELIVER_EVENT: self._on_event,
            Op.MEMBER_JOINED: self._on_member_joined,
            Op.MEMBER_LEFT: self._on_member_left,
            Op.MEMBERS_LISTED: self._on_members_listed,
        }

    @property
    def topics(self) -> list[str]:
        return list(self._topics)

    def last_received(self, op: int, name: str, sender: str) -> int:
        """Return the number of the last message received from a sender; 0 if there was none."""
        return self._last_received.get((op, name, sender), 0)

    # Sending.

    def send(self, op: int, name: str, size: int = 0, *, shared: bool = False) -> int:
        """Broadcast or publish, and return the number. `shared` ones are packed with others."""
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

    # Subscribing and watching.

    def subscribe(self, topic: str) -> None:
        self._topics[topic] = None
        self._ever_subscribed.add(topic)
        self._program.outbox.put((Op.SUBSCRIBE.value, topic))

    def unsubscribe(self, topic: str) -> None:
        del self._topics[topic]
        self._program.outbox.put((Op.UNSUBSCRIBE.value, topic))

    def watch(self, cluster: str) -> None:
        """Watch a cluster, at most once: messages of an earlier watch could still arrive."""
        if cluster not in self._ever_watched:
            self._ever_watched.add(cluster)
            self.watched_members[cluster] = {}
            self._program.outbox.put((Op.WATCH.value, cluster))

    def unwatch(self, cluster: str) -> None:
        del self.watched_members[cluster]
        self._program.outbox.put((Op.UNWATCH.value, cluster))

    # Messages from the relay.

    def _on_broadcast(self, body: object, sender: str, headers: object) -> None:
        self._receive(Op.BROADCAST, self._program.last_cluster, body, sender)

    def _on_event(self, topic: str, body: object, sender: str, headers: object) -> None:
        if topic not in self._ever_subscribed:
            raise Violation("events reach only subscribers", topic, self._program.key)
        self._receive(Op.PUBLISH, topic, body, sender)

    def _receive(self, op: int, name: str | None, body: object, sender: str) -> None:
        program = self._program
        bodies = program.inbox.take_fanout(body)
        if bodies is None:
            raise Violation("valid bodies are never dropped by the inbox", str(name), program.key)
        for each in bodies if type(bodies) is tuple else (bodies,):
            sender_key, sent_to, number_text, _ = bytes(each).split(b" ", 3)
            key, number = sender_key.decode(), int(number_text)
            if sent_to.decode() != name or program.world.senders.get(key) != sender:
                text = f"a message of {key} for {sent_to.decode()} arrived at {name} from {sender}"
                raise Violation("fan-out arrives as it was sent", text, key, program.key)
            last = self._last_received.get((op, name, key), 0)
            if number <= last:
                text = f"{program.key} received {number} of {key} for {name} after {last}"
                raise Violation("fan-out is in order, at most once", text, program.key, key)
            self._last_received[op, name, key] = number
            program.world.coverage.seen["fan-out received"] += 1

    def _on_member_joined(
        self, cluster: str, member: str, address: str, metadata: dict[str, str]
    ) -> None:
        members = self.watched_members.get(cluster)
        if members is None:
            return
        if member in members:
            text = f"{member} joined {cluster} twice"
            raise Violation("watchers get each change once", text, self._program.key)
        members[member] = metadata
        self._program.world.coverage.seen["watched joins"] += 1

    def _on_member_left(self, cluster: str, member: str) -> None:
        members = self.watched_members.get(cluster)
        if members is not None and members.pop(member, None) is None:
            text = f"{member} left {cluster} but was no member"
            raise Violation("watchers get each change once", text, self._program.key)

    def _on_members_listed(self, cluster: str) -> None:
        self.listings[cluster] += 1
