"""Whether relays, and the programs that watch through them, know everybody as they are."""

from __future__ import annotations

from collections.abc import Iterator

from simulation.relay import Relay


def disagreements(relay: Relay, others: list[Relay]) -> Iterator[str]:
    """What a relay does not know of others, itself among them, as it is."""
    yield from _links(relay, others)
    yield from _members(relay, others)
    yield from _listeners(relay, others)


def _links(relay: Relay, others: list[Relay]) -> Iterator[str]:
    for other in (each for each in others if each is not relay):
        there = relay.membership.neighbours.get(other.node)
        back = other.membership.neighbours.get(relay.node)
        who = f"{relay.node} of {other.node}:"
        if there is None or back is None:
            yield f"{who} not linked"
        elif there.peer is None or not there.peer.synced:
            yield f"{who} not synchronised"
        elif there.peer_session != back.session or not back.acknowledged:
            yield f"{who} hears {there.peer_session}, not {back.session}"
    known = {other.node for other in others}
    for neighbour in relay.membership.neighbours.values():
        if neighbour.node not in known:
            yield f"{relay.node} is linked with {neighbour.node}, who is gone"


def _members(relay: Relay, others: list[Relay]) -> Iterator[str]:
    believed = {
        member: candidate.cluster for member, candidate in relay.core.directory.members.items()
    }
    true = {
        attachment.endpoint.sender: attachment.program.cluster
        for other in others
        for attachment in other.attachments
        if attachment.program.cluster is not None
    }
    says = {
        each.endpoint.sender: each.program.says for other in others for each in other.attachments
    }
    if believed != true:
        yield f"{relay.node} believes {sorted(believed.items() ^ true.items())}"
    for attachment in relay.attachments:
        listener = attachment.program.listener
        for cluster, picture in listener.pictures.items():
            if picture != {m: says[m] for m, name in true.items() if name == cluster}:
                yield f"{attachment.program.key} sees {sorted(picture)} in {cluster}"
            elif listener.named[cluster] != 1:
                yield f"{attachment.program.key} was told {listener.named[cluster]} times of all"


def _listeners(relay: Relay, others: list[Relay]) -> Iterator[str]:
    true = _topics(others, relay)
    for topic in dict.fromkeys((*relay.core.directory.topics, *true)):
        endpoints = relay.core.directory.topics.get(topic, {})
        listening = sorted(endpoint.node for endpoint in endpoints)
        if listening != sorted(true.get(topic, [])):
            yield f"{relay.node} believes that {listening} listen to {topic}"


def _topics(relays: list[Relay], at: Relay) -> dict[str, list[str]]:
    """Who listens, by topic: each program `at` one relay, and each other relay once."""
    found: dict[str, list[str]] = {}
    for relay in relays:
        topics = [topic for each in relay.attachments for topic in each.program.listener.topics]
        for topic in topics if relay is at else dict.fromkeys(topics):
            found.setdefault(topic, []).append(relay.node)
    return found
