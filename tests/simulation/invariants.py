"""What must hold of a relay's tables at any moment, and what may be left in them at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain

from arke.wire.limits import CHUNK
from arke.wire.outbox import Outbox, _Large
from simulation.bounds import HELD, LARGEST, LINK_OUTBOX, PROGRAM_OUTBOX, RESERVE, WINDOWS
from simulation.lines import Link
from simulation.relay import Relay
from simulation.trace import Violation

_OVERHEAD = 64 * 1024
"""What messages are beside their bodies, of all that fit into an outbox."""


def check_relay(relay: Relay) -> None:
    """What must hold of a relay that may be in the middle of anything. Raises Violation."""
    for text in chain(*(look(relay) for look in _LOOKS)):
        raise Violation("tables agree and buffers keep their bounds", text, relay.node)


def check_over(relay: Relay) -> None:
    """What must hold when all calls, tunnels and casts are over."""
    for text in chain(_left(relay), _half_bodies(relay)):
        raise Violation("nothing is left when all has ended", text, relay.node)


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
        held = sum(call.size for call in party.calls.values())
        if party.held != held:
            yield f"{party} holds {held} octets, counted as {party.held}"
        if held > HELD + LARGEST:
            yield f"{party} holds {held} octets"


def _candidates(relay: Relay) -> Iterator[str]:
    exchange = relay.exchange
    outstanding = Counter(id(call.candidate) for call in exchange.router._open.values())
    if outstanding[id(None)]:
        yield "an open call that nobody has"
    for cluster in exchange.directory.clusters.values():
        for candidate in cluster.candidates.values():
            if candidate.outstanding != outstanding[id(candidate)]:
                yield f"{candidate.party} of {cluster.name}: {candidate.outstanding} outstanding"
        draws = sum(len(candidate.members) for candidate in cluster.candidates.values())
        if len(cluster.draws) != draws:
            yield f"{cluster.name} has {draws} members and {len(cluster.draws)} draws"
        here = sum(not candidate.party.is_peer for candidate in cluster.draws)
        if len(cluster.here) != here:
            yield f"{cluster.name} has {here} members here, and lists {len(cluster.here)}"


def _openings(relay: Relay) -> Iterator[str]:
    opening: Counter[int] = Counter()
    for call in relay.exchange.router._open.values():
        if call.opens and call.candidate is not None:
            opening.update((id(call.origin), id(call.candidate.party)))
    for party in (*relay.exchange.programs.values(), *relay.exchange.peers.values()):
        if party.openings != opening[id(party)]:
            yield f"{party} has {opening[id(party)]} openings, counted as {party.openings}"


def _tunnels(relay: Relay) -> Iterator[str]:
    exchange = relay.exchange
    drops = exchange.counters.drops
    for cause in ("beyond_credit", "announcement_over_limit", "cast_too_large_for_now"):
        if drops[cause]:
            yield f"{drops[cause]} drops {cause} among honest programs and peers"
    answers = 0
    for party in (*exchange.programs.values(), *exchange.peers.values()):
        for name, end in party.tunnels.items():
            answers += end.is_answer
            other = end.other
            if other.party.tunnels.get(-other.name) is not other:
                yield f"tunnel {name} of {party} has no other end"
            if not 0 <= end.credit <= 2 * WINDOWS[-1]:
                yield f"tunnel {name} of {party} has a credit of {end.credit}"
    if answers != 2 * exchange.tunnels.answers:
        yield f"{answers} ends of answers in parts, {exchange.tunnels.answers} counted"


def _outboxes(relay: Relay) -> Iterator[str]:
    for who, outbox, limit, tunnels in _all_outboxes(relay):
        content = _content(outbox)
        behind = sum(map(len, outbox._flows.values()))
        if outbox._behind != behind:
            yield f"the outbox for {who} counts {outbox._behind} messages in flows of {behind}"
        if outbox.size != content:
            yield f"the outbox for {who} counts {outbox.size} octets and has {content}"
        bound = limit + RESERVE + LARGEST + CHUNK + _OVERHEAD + tunnels * 2 * WINDOWS[-1]
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
    octets += sum(len(data) for _, data in outbox._late)
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
        yield f"calls {[(call.origin, call.origin_id, bytes(call.body)[:9]) for call in calls]}"
    for party in (*exchange.programs.values(), *exchange.peers.values()):
        if party.calls or party.held or party.tunnels:
            yield f"{party}: {len(party.calls)} calls, {party.held} octets, {party.tunnels}"
    for who, outbox, _, _ in _all_outboxes(relay):
        leftover = [len(table) for table in (outbox._flows, outbox._waiting, outbox._turn)]
        leftover += [len(outbox._coming), outbox._half_sent, outbox.size]
        if any(leftover):
            yield f"the outbox for {who}: {leftover}"


def _half_bodies(relay: Relay) -> Iterator[str]:
    inboxes = {each.program.key: each.inbox for each in relay.attachments}
    inboxes |= {peer.node: peer.inbox for peer in relay.exchange.peers.values() if peer.inbox}
    for who, inbox in inboxes.items():
        if inbox.size or inbox._streams:
            yield f"the inbox of {who}: {inbox.size} octets of {len(inbox._streams)} bodies"
    if relay.batches.receiving:
        yield "somebody is said to be in the middle of a large body"


_LOOKS = (_calls, _candidates, _openings, _tunnels, _outboxes)
