"""Invariants of a relay's tables: at any time, and after all requests and programs have ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain

from arke.wire.flow_scheduler import LargeMessage
from arke.wire.limits import CHUNK
from arke.wire.outbox import Outbox
from simulation.bounds import (
    CONTROL_RESERVE,
    HELD_BYTES,
    LINK_OUTBOX,
    MAX_BODY,
    PROGRAM_OUTBOX,
    WINDOWS,
)
from simulation.links import Link
from simulation.relay import Relay
from simulation.trace import Violation

_OVERHEAD = 64 * 1024
"""Bytes of all messages in an outbox without their bodies, at most."""


def check_relay(relay: Relay) -> None:
    """Check what is true of a relay at any time. Raises Violation."""
    for text in chain(*(check(relay) for check in _TABLE_CHECKS)):
        raise Violation("tables agree and buffers keep their limits", text, relay.node)


def check_idle(relay: Relay) -> None:
    """Check a relay after all requests, tunnels and fan-out have ended. Raises Violation."""
    for text in chain(_leftovers(relay), _partial_bodies(relay)):
        raise Violation("an idle relay keeps no request", text, relay.node)


def check_no_programs(relay: Relay) -> None:
    """Check a relay after all programs of the network have detached. Raises Violation."""
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
            raise Violation("a relay keeps nothing of detached programs", text, relay.node)
    for peer, entries in directory._peer_entries.items():
        if entries or relay.core.peers.by_node.get(peer.node) is not peer:
            text = f"{entries} entries of {peer}"
            raise Violation("a relay keeps nothing of detached programs", text, relay.node)


def _requests(relay: Relay) -> Iterator[str]:
    core = relay.core
    router = core.router
    endpoints = [*core.programs.by_number.values(), *core.peers.by_node.values()]
    by_endpoint = {id(request) for endpoint in endpoints for request in endpoint.requests.values()}
    tables = (router._assigned, router._waiting)
    in_tables = {id(request) for table in tables for request in table.values()}
    if by_endpoint != in_tables:
        yield f"endpoints have {len(by_endpoint)} requests, the router has {len(in_tables)}"
    if router.settled and router._waiting:
        yield f"{len(router._waiting)} requests wait for members of a complete directory"
    for endpoint in endpoints:
        held = sum(request.held_bytes for request in endpoint.requests.values())
        if endpoint.held_bytes != held:
            yield f"{endpoint} holds {held} bytes, counted as {endpoint.held_bytes}"
        if held > HELD_BYTES + MAX_BODY:
            yield f"{endpoint} holds {held} bytes"


def _candidates(relay: Relay) -> Iterator[str]:
    core = relay.core
    outstanding = Counter(id(request.candidate) for request in core.router._assigned.values())
    if outstanding[id(None)]:
        yield "an assigned request has no candidate"
    for cluster in core.directory.clusters.values():
        for candidate in cluster.candidates.values():
            if candidate.outstanding != outstanding[id(candidate)]:
                yield f"{candidate.endpoint} of {cluster.name}: {candidate.outstanding} outstanding"
        draws = sum(len(candidate.members) for candidate in cluster.candidates.values())
        if len(cluster.draws) != draws:
            yield f"{cluster.name} has {draws} members and {len(cluster.draws)} draws"
        here = sum(not candidate.endpoint.is_peer for candidate in cluster.draws)
        if len(cluster.here) != here:
            yield f"{cluster.name} has {here} local members, counted as {len(cluster.here)}"


def _openings(relay: Relay) -> Iterator[str]:
    opening: Counter[int] = Counter()
    for request in relay.core.router._assigned.values():
        if request.opens and request.candidate is not None:
            opening.update((id(request.origin), id(request.candidate.endpoint)))
    for endpoint in (*relay.core.programs.by_number.values(), *relay.core.peers.by_node.values()):
        if endpoint.opening_tunnels != opening[id(endpoint)]:
            counted = endpoint.opening_tunnels
            yield f"{endpoint} is opening {opening[id(endpoint)]} tunnels, counted as {counted}"


def _tunnels(relay: Relay) -> Iterator[str]:
    core = relay.core
    drops = core.counters.drops
    for cause in ("credit_exceeded", "announcement_limit_exceeded", "broadcast_buffer_full"):
        if drops[cause]:
            yield f"{drops[cause]} drops {cause}, though all programs and peers keep the rules"
    reply_ends = 0
    for endpoint in (*core.programs.by_number.values(), *core.peers.by_node.values()):
        for name, end in endpoint.tunnels.items():
            reply_ends += end.carries_reply
            other = end.other
            if other.endpoint.tunnels.get(-other.id) is not other:
                yield f"tunnel {name} of {endpoint} has no other end"
            if not 0 <= end.credit <= 2 * WINDOWS[-1]:
                yield f"tunnel {name} of {endpoint} has a credit of {end.credit}"
    if reply_ends != 2 * core.tunnels.reply_tunnels:
        count = core.tunnels.reply_tunnels
        yield f"{reply_ends} tunnel ends of multipart replies, {count} tunnels counted"


def _outboxes(relay: Relay) -> Iterator[str]:
    for receiver, outbox, limit, tunnels in _all_outboxes(relay):
        content = _content(outbox)
        scheduler = outbox._scheduler
        waiting = sum(map(len, scheduler.flows.values())) + len(scheduler._behind_bodies)
        if scheduler.message_count != waiting:
            counted = scheduler.message_count
            yield f"outbox for {receiver}: {waiting} messages, counted as {counted}"
        if outbox.size != content:
            yield f"outbox for {receiver}: {content} bytes, counted as {outbox.size}"
        bound = limit + CONTROL_RESERVE + MAX_BODY + CHUNK + _OVERHEAD + tunnels * 2 * WINDOWS[-1]
        if outbox.size > bound:
            yield f"outbox for {receiver}: {outbox.size} bytes, over {bound}"


def _all_outboxes(relay: Relay) -> Iterator[tuple[str, Outbox, int, int]]:
    for attachment in relay.attachments:
        tunnels = len(attachment.endpoint.tunnels)
        yield attachment.program.key, attachment.outbox, PROGRAM_OUTBOX, tunnels
    for neighbour in relay.membership.neighbours.values():
        if isinstance(neighbour.link, Link):
            tunnels = len(neighbour.peer.tunnels) if neighbour.peer else 0
            yield neighbour.node, neighbour.link.outbox, LINK_OUTBOX, tunnels


def _content(outbox: Outbox) -> int:
    size = sum(map(len, outbox._ready)) + outbox._fanout_size
    size += sum(len(data) for _, data in outbox._scheduler._behind_bodies)
    for flow in outbox._flows.values():
        for item in flow:
            if isinstance(item, LargeMessage):
                size += len(item.final) or len(item.body) - item.sent
            else:
                size += len(item)
    return size


def _leftovers(relay: Relay) -> Iterator[str]:
    core = relay.core
    if len(core.router):
        requests = [*core.router._assigned.values(), *core.router._waiting.values()]
        left = [
            (request.origin, request.origin_id, bytes(request.body)[:9]) for request in requests
        ]
        yield f"requests left: {left}"
    for endpoint in (*core.programs.by_number.values(), *core.peers.by_node.values()):
        if endpoint.requests or endpoint.held_bytes or endpoint.tunnels:
            left = endpoint.requests, endpoint.held_bytes, endpoint.tunnels
            yield f"{endpoint}: requests, bytes, tunnels left: {left}"
    for receiver, outbox, _, _ in _all_outboxes(relay):
        flows = outbox._scheduler
        leftover = [len(table) for table in (flows.flows, flows._bodies_waiting, flows.active)]
        leftover += [len(flows._tunnels_waiting), flows.partial_bytes, outbox.size]
        if any(leftover):
            yield f"outbox for {receiver}: {leftover}"


def _partial_bodies(relay: Relay) -> Iterator[str]:
    inboxes = {each.program.key: each.inbox for each in relay.attachments}
    inboxes |= {peer.node: peer.inbox for peer in relay.core.peers.by_node.values() if peer.inbox}
    for sender, inbox in inboxes.items():
        if inbox.size or inbox._streams:
            yield f"inbox of {sender}: {inbox.size} bytes of {len(inbox._streams)} bodies"
    if relay.batches.receiving:
        yield "a peer counts as sending a large body"


_TABLE_CHECKS = (_requests, _candidates, _openings, _tunnels, _outboxes)
