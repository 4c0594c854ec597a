"""What must hold of a relay's tables at any moment, and what may be left in them at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain

from arke.wire.flow_scheduler import LargeMessage
from arke.wire.limits import CHUNK
from arke.wire.outbox import Outbox
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
    directory = relay.core.directory
    tables = {
        "clusters": directory.clusters,
        "members": directory.members,
        "topics": directory.topics,
        "watchers": directory.watchers,
        "programs": relay.core.programs.by_number,
    }
    for name, table in tables.items():
        if table:
            text = f"{name}: {list(table)}"
            raise Violation("nothing is left when all are gone", text, relay.node)
    for peer, entries in directory._peer_entries.items():
        if entries or relay.core.peers.by_node.get(peer.node) is not peer:
            text = f"{entries} entries of {peer}"
            raise Violation("nothing is left when all are gone", text, relay.node)


def _calls(relay: Relay) -> Iterator[str]:
    core = relay.core
    router = core.router
    endpoints = [*core.programs.by_number.values(), *core.peers.by_node.values()]
    of_parties = {id(call) for endpoint in endpoints for call in endpoint.requests.values()}
    tables = (router._assigned, router._waiting)
    in_tables = {id(call) for table in tables for call in table.values()}
    if of_parties != in_tables:
        yield f"{len(of_parties)} calls of endpoints, {len(in_tables)} in the tables"
    if router.settled and router._waiting:
        yield f"{len(router._waiting)} calls wait for members though all peers have told"
    for endpoint in endpoints:
        held = sum(call.held_bytes for call in endpoint.requests.values())
        if endpoint.held_bytes != held:
            yield f"{endpoint} holds {held} octets, counted as {endpoint.held_bytes}"
        if held > HELD + LARGEST:
            yield f"{endpoint} holds {held} octets"


def _candidates(relay: Relay) -> Iterator[str]:
    core = relay.core
    outstanding = Counter(id(call.candidate) for call in core.router._assigned.values())
    if outstanding[id(None)]:
        yield "an open call that nobody has"
    for cluster in core.directory.clusters.values():
        for candidate in cluster.candidates.values():
            if candidate.outstanding != outstanding[id(candidate)]:
                yield f"{candidate.endpoint} of {cluster.name}: {candidate.outstanding} outstanding"
        draws = sum(len(candidate.members) for candidate in cluster.candidates.values())
        if len(cluster.draws) != draws:
            yield f"{cluster.name} has {draws} members and {len(cluster.draws)} draws"
        here = sum(not candidate.endpoint.is_peer for candidate in cluster.draws)
        if len(cluster.here) != here:
            yield f"{cluster.name} has {here} members here, and lists {len(cluster.here)}"


def _openings(relay: Relay) -> Iterator[str]:
    opening: Counter[int] = Counter()
    for call in relay.core.router._assigned.values():
        if call.opens and call.candidate is not None:
            opening.update((id(call.origin), id(call.candidate.endpoint)))
    for endpoint in (*relay.core.programs.by_number.values(), *relay.core.peers.by_node.values()):
        if endpoint.opening_tunnels != opening[id(endpoint)]:
            counted = endpoint.opening_tunnels
            yield f"{endpoint} is opening {opening[id(endpoint)]} tunnels, counted as {counted}"


def _tunnels(relay: Relay) -> Iterator[str]:
    core = relay.core
    drops = core.counters.drops
    for cause in ("credit_exceeded", "announcement_limit_exceeded", "broadcast_buffer_full"):
        if drops[cause]:
            yield f"{drops[cause]} drops {cause} among honest programs and peers"
    answers = 0
    for endpoint in (*core.programs.by_number.values(), *core.peers.by_node.values()):
        for name, end in endpoint.tunnels.items():
            answers += end.carries_reply
            other = end.other
            if other.endpoint.tunnels.get(-other.id) is not other:
                yield f"tunnel {name} of {endpoint} has no other end"
            if not 0 <= end.credit <= 2 * WINDOWS[-1]:
                yield f"tunnel {name} of {endpoint} has a credit of {end.credit}"
    if answers != 2 * core.tunnels.reply_tunnels:
        yield f"{answers} ends of answers in parts, {core.tunnels.reply_tunnels} counted"


def _outboxes(relay: Relay) -> Iterator[str]:
    for who, outbox, limit, tunnels in _all_outboxes(relay):
        content = _content(outbox)
        scheduler = outbox._scheduler
        waiting = sum(map(len, scheduler.flows.values())) + len(scheduler._behind_bodies)
        if scheduler.message_count != waiting:
            yield f"outbox for {who}: {scheduler.message_count} messages counted, {waiting} waiting"
        if outbox.size != content:
            yield f"the outbox for {who} counts {outbox.size} octets and has {content}"
        bound = limit + RESERVE + LARGEST + CHUNK + _OVERHEAD + tunnels * 2 * WINDOWS[-1]
        if outbox.size > bound:
            yield f"the outbox for {who} has {outbox.size} octets, over {bound}"


def _all_outboxes(relay: Relay) -> Iterator[tuple[str, Outbox, int, int]]:
    for attachment in relay.attachments:
        tunnels = len(attachment.endpoint.tunnels)
        yield attachment.program.key, attachment.outbox, PROGRAM_OUTBOX, tunnels
    for neighbour in relay.membership.neighbours.values():
        if isinstance(neighbour.link, Link):
            tunnels = len(neighbour.peer.tunnels) if neighbour.peer else 0
            yield neighbour.node, neighbour.link.outbox, LINK_OUTBOX, tunnels


def _content(outbox: Outbox) -> int:
    octets = sum(map(len, outbox._ready)) + outbox._fanout_size
    octets += sum(len(data) for _, data in outbox._scheduler._behind_bodies)
    for flow in outbox._flows.values():
        for item in flow:
            if isinstance(item, LargeMessage):
                octets += len(item.final) or len(item.body) - item.sent
            else:
                octets += len(item)
    return octets


def _left(relay: Relay) -> Iterator[str]:
    core = relay.core
    if len(core.router):
        calls = [*core.router._assigned.values(), *core.router._waiting.values()]
        yield f"calls {[(call.origin, call.origin_id, bytes(call.body)[:9]) for call in calls]}"
    for endpoint in (*core.programs.by_number.values(), *core.peers.by_node.values()):
        if endpoint.requests or endpoint.held_bytes or endpoint.tunnels:
            left = endpoint.requests, endpoint.held_bytes, endpoint.tunnels
            yield f"{endpoint}: requests, bytes, tunnels left: {left}"
    for who, outbox, _, _ in _all_outboxes(relay):
        flows = outbox._scheduler
        leftover = [len(table) for table in (flows.flows, flows._bodies_waiting, flows.active)]
        leftover += [len(flows._tunnels_waiting), flows.partial_bytes, outbox.size]
        if any(leftover):
            yield f"the outbox for {who}: {leftover}"


def _half_bodies(relay: Relay) -> Iterator[str]:
    inboxes = {each.program.key: each.inbox for each in relay.attachments}
    inboxes |= {peer.node: peer.inbox for peer in relay.core.peers.by_node.values() if peer.inbox}
    for who, inbox in inboxes.items():
        if inbox.size or inbox._streams:
            yield f"the inbox of {who}: {inbox.size} octets of {len(inbox._streams)} bodies"
    if relay.batches.receiving:
        yield "somebody is said to be in the middle of a large body"


_LOOKS = (_calls, _candidates, _openings, _tunnels, _outboxes)
