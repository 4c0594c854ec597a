"""What must hold of a relay's tables at any moment, and what must be left of them at the end."""

from __future__ import annotations

from collections.abc import Iterator

from arke.wire.bounds import CHUNK
from arke.wire.outbox import Outbox, _Large
from arke_relay.core.router import HELD_LIMIT
from simulation.bounds import LARGEST, LINK_OUTBOX, PROGRAM_OUTBOX, RESERVE, WINDOW
from simulation.lines import Link
from simulation.relay import Relay
from simulation.trace import Violation

_OVERHEAD = 64 * 1024
"""What messages are beside their bodies, of all that fit into an outbox."""


def check_relay(relay: Relay) -> None:
    """What must hold of a relay that may be in the middle of anything. Raises Violation."""
    for text in (*_calls(relay), *_tunnels(relay), *_outboxes(relay)):
        raise Violation("tables agree and buffers keep their bounds", text, relay.node)


def check_over(relay: Relay) -> None:
    """What must hold when all calls, tunnels and casts are over."""
    for text in _left(relay):
        raise Violation("nothing is left when all has ended", text, relay.node)


def _calls(relay: Relay) -> Iterator[str]:
    exchange = relay.exchange
    router = exchange.router
    parties = [*exchange.programs.values(), *exchange.peers.values()]
    of_parties = {id(call) for party in parties for call in party.calls.values()}
    in_tables = {id(call) for table in (router._open, router._parked) for call in table.values()}
    if of_parties != in_tables:
        yield f"{len(of_parties)} calls of parties, {len(in_tables)} in the tables"
    if router.settled and router._parked:
        yield f"{len(router._parked)} calls wait for members though all peers have told"
    for party in parties:
        held = sum(len(call.body) for call in party.calls.values())
        if party.held != held:
            yield f"{party} holds {held} octets, counted as {party.held}"
        if held > HELD_LIMIT + LARGEST:
            yield f"{party} holds {held} octets"
    outstanding: dict[int, int] = {}
    for call in router._open.values():
        if call.candidate is None:
            yield f"an open call of {call.origin} that nobody has"
        outstanding[id(call.candidate)] = outstanding.get(id(call.candidate), 0) + 1
    for cluster in exchange.directory.clusters.values():
        for candidate in cluster.candidates.values():
            if candidate.outstanding != outstanding.get(id(candidate), 0):
                yield f"{candidate.party} of {cluster.name}: {candidate.outstanding} outstanding"
        draws = sum(len(candidate.members) for candidate in cluster.candidates.values())
        if len(cluster.draws) != draws:
            yield f"{cluster.name} has {draws} members and {len(cluster.draws)} draws"
        here = sum(not candidate.party.is_peer for candidate in cluster.draws)
        if len(cluster.here) != here:
            yield f"{cluster.name} has {here} members here, and lists {len(cluster.here)}"


def _tunnels(relay: Relay) -> Iterator[str]:
    exchange = relay.exchange
    drops = exchange.counters.drops
    for cause in ("beyond_credit", "announcement_beyond_bound", "cast_too_large_for_now"):
        if drops[cause]:
            yield f"{drops[cause]} drops {cause} among honest programs and peers"
    for party in (*exchange.programs.values(), *exchange.peers.values()):
        for name, end in party.tunnels.items():
            other = end.other
            if other.party.tunnels.get(-other.name) is not other:
                yield f"tunnel {name} of {party} has no other end"
            if not 0 <= end.credit <= 2 * WINDOW:
                yield f"tunnel {name} of {party} has a credit of {end.credit}"


def _outboxes(relay: Relay) -> Iterator[str]:
    for who, outbox, limit, tunnels in _all_outboxes(relay):
        content = _content(outbox)
        if outbox.size != content:
            yield f"the outbox for {who} counts {outbox.size} octets and has {content}"
        bound = limit + RESERVE + LARGEST + CHUNK + _OVERHEAD + tunnels * 2 * WINDOW
        if outbox.size > bound:
            yield f"the outbox for {who} has {outbox.size} octets, over {bound}"


def _all_outboxes(relay: Relay) -> Iterator[tuple[str, Outbox, int, int]]:
    for attachment in relay.attachments:
        tunnels = len(attachment.party.tunnels)
        yield attachment.program.key, attachment.outbox, PROGRAM_OUTBOX, tunnels
    for neighbour in relay.membership.neighbours.values():
        if isinstance(neighbour.link, Link):
            tunnels = len(neighbour.peer.tunnels) if neighbour.peer else 0
            yield neighbour.node, neighbour.link.outbox, LINK_OUTBOX, tunnels


def _content(outbox: Outbox) -> int:
    octets = sum(map(len, outbox._ready)) + outbox._casts_size
    for flow in outbox._flows.values():
        for item in flow:
            if isinstance(item, _Large):
                octets += len(item.last) or len(item.body) - item.sent
            else:
                octets += len(item)
    return octets


def _left(relay: Relay) -> Iterator[str]:
    exchange = relay.exchange
    if len(exchange.router):
        calls = [*exchange.router._open.values(), *exchange.router._parked.values()]
        yield f"calls {[(call.origin, call.origin_id, call.body[:9]) for call in calls]}"
    for party in (*exchange.programs.values(), *exchange.peers.values()):
        if party.calls or party.held or party.tunnels:
            yield f"{party}: {len(party.calls)} calls, {party.held} octets, {party.tunnels}"
    for who, outbox, _, _ in _all_outboxes(relay):
        leftover = [len(table) for table in (outbox._flows, outbox._waiting, outbox._turn)]
        leftover += [len(outbox._coming), outbox._half_sent, outbox.size]
        if any(leftover):
            yield f"the outbox for {who}: {leftover}"
    for attachment in relay.attachments:
        if attachment.inbox.size or attachment.inbox._streams:
            yield f"the inbox of {attachment.program.key}"
    for node, peer in exchange.peers.items():
        if peer.inbox and (peer.inbox.size or peer.inbox._streams):
            yield f"the inbox of {node}"
    if relay.batches.receiving:
        yield "somebody is said to be in the middle of a large body"


def check_empty(relay: Relay) -> None:
    """What must hold when all programs everywhere are gone."""
    directory = relay.exchange.directory
    tables = {
        "clusters": directory.clusters,
        "members": directory.members,
        "topics": directory.topics,
        "watchers": directory.watchers,
        "programs": relay.exchange.programs,
    }
    for name, table in tables.items():
        if table:
            text = f"{name}: {list(table)}"
            raise Violation("nothing is left when all are gone", text, relay.node)
    for peer, entries in directory._peer_entries.items():
        if entries or relay.exchange.peers.get(peer.node) is not peer:
            text = f"{entries} entries of {peer}"
            raise Violation("nothing is left when all are gone", text, relay.node)


def disagreements(relay: Relay, others: list[Relay]) -> Iterator[str]:
    """What a relay does not know of others as it is."""
    for other in (each for each in others if each is not relay):
        there = relay.membership.neighbours.get(other.node)
        back = other.membership.neighbours.get(relay.node)
        who = f"{relay.node} of {other.node}:"
        if there is None or back is None:
            yield f"{who} not linked"
        elif there.peer is None or not there.peer.synced:
            yield f"{who} not synchronised"
        elif there.heard_session != back.session or not back.confirmed:
            yield f"{who} hears {there.heard_session}, not {back.session}"
    known = {other.node for other in others}
    for neighbour in relay.membership.neighbours.values():
        if neighbour.node not in known:
            yield f"{relay.node} is linked with {neighbour.node}, who is gone"
    believed = {
        member: candidate.cluster for member, candidate in relay.exchange.directory.members.items()
    }
    true = {
        attachment.party.sender: attachment.program.cluster
        for other in others
        for attachment in other.attachments
        if attachment.program.cluster is not None
    }
    if believed != true:
        yield f"{relay.node} believes {sorted(believed.items() ^ true.items())}"
    for topic in dict.fromkeys((*relay.exchange.directory.topics, *_topics(others))):
        parties = relay.exchange.directory.topics.get(topic, {})
        listening = sorted(party.node for party in parties)
        if listening != sorted(_topics(others, relay).get(topic, [])):
            yield f"{relay.node} believes that {listening} listen to {topic}"
    for attachment in relay.attachments:
        listener = attachment.program.listener
        for cluster, picture in listener.pictures.items():
            if set(picture) != {member for member, name in true.items() if name == cluster}:
                yield f"{attachment.program.key} sees {sorted(picture)} in {cluster}"
            elif listener.named[cluster] != 1:
                yield f"{attachment.program.key} was told {listener.named[cluster]} times of all"


def _topics(relays: list[Relay], at: Relay | None = None) -> dict[str, list[str]]:
    """Who listens, by topic: each program `at` one relay, and each other relay once."""
    found: dict[str, list[str]] = {}
    for relay in relays:
        topics = [topic for each in relay.attachments for topic in each.program.listener.topics]
        for topic in topics if relay is at else dict.fromkeys(topics):
            found.setdefault(topic, []).append(relay.node)
    return found
