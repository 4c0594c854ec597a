"""Compare what each relay and each watching program knows with what is true."""

from __future__ import annotations

from collections.abc import Iterator

from simulation.relay import Relay


def differences(relay: Relay, others: list[Relay]) -> Iterator[str]:
    """Yield what `relay` does not know correctly about `others` (all relays, itself included)."""
    yield from _links(relay, others)
    yield from _members(relay, others)
    yield from _subscribers(relay, others)


def _links(relay: Relay, others: list[Relay]) -> Iterator[str]:
    for other in (each for each in others if each is not relay):
        there = relay.membership.neighbours.get(other.node)
        back = other.membership.neighbours.get(relay.node)
        link = f"{relay.node} to {other.node}:"
        if there is None or back is None:
            yield f"{link} not linked"
        elif there.peer is None or not there.peer.synced:
            yield f"{link} not synchronised"
        elif there.peer_session != back.session or not back.acknowledged:
            yield f"{link} receives session {there.peer_session}, not {back.session}"
    known = {other.node for other in others}
    for neighbour in relay.membership.neighbours.values():
        if neighbour.node not in known:
            yield f"{relay.node} is linked with {neighbour.node}, which has stopped"


def _members(relay: Relay, others: list[Relay]) -> Iterator[str]:
    known = {
        member: candidate.cluster for member, candidate in relay.core.directory.members.items()
    }
    true = {
        attachment.endpoint.sender: attachment.program.cluster
        for other in others
        for attachment in other.attachments
        if attachment.program.cluster is not None
    }
    metadata = {
        each.endpoint.sender: each.program.metadata
        for other in others
        for each in other.attachments
    }
    if known != true:
        yield f"{relay.node} has wrong members: {sorted(known.items() ^ true.items())}"
    for attachment in relay.attachments:
        fanout = attachment.program.fanout
        for cluster, members in fanout.watched_members.items():
            if members != {m: metadata[m] for m, name in true.items() if name == cluster}:
                yield f"{attachment.program.key} sees {sorted(members)} in {cluster}"
            elif fanout.listings[cluster] != 1:
                count = fanout.listings[cluster]
                yield f"{attachment.program.key} got {count} lists of all members of {cluster}"


def _subscribers(relay: Relay, others: list[Relay]) -> Iterator[str]:
    true = _topics(others, relay)
    for topic in dict.fromkeys((*relay.core.directory.topics, *true)):
        endpoints = relay.core.directory.topics.get(topic, {})
        known = sorted(endpoint.node for endpoint in endpoints)
        if known != sorted(true.get(topic, [])):
            yield f"{relay.node} has wrong subscribers of {topic}: {known}"


def _topics(relays: list[Relay], at: Relay) -> dict[str, list[str]]:
    """Return the subscribers by topic: each program at relay `at`, and each other relay once."""
    found: dict[str, list[str]] = {}
    for relay in relays:
        topics = [topic for each in relay.attachments for topic in each.program.fanout.topics]
        for topic in topics if relay is at else dict.fromkeys(topics):
            found.setdefault(topic, []).append(relay.node)
    return found
