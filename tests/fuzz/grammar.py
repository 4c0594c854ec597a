"""Generate messages that are valid, or nearly valid: mutations of bytes rarely reach these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, nan
from random import Random
from typing import Any

from arke.wire.limits import CHUNK, MAX_METADATA, MIN_WINDOW
from arke.wire.messages import MAGIC, VERSION, Op, PeerOp

Field = Callable[[Random], Any]

_INVALID_FIELD_RATE = 0.4
"""Share of messages in which one field has a value of any type."""

_DEEP_RATE = 0.15
"""Share of values of any type that are arrays nested tens to a thousand deep."""

_EDGES = (0, 1, 2, 127, 128, 255, 65535, 65536, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
_NAMES = ("c", "t", "d", "x", "", "n" * 255, "n" * 256, "ß" * 127, "\U000e0001" * 63, "\n", "aa/1")


def choice(*values: Any) -> Field:
    return lambda random: random.choice(values)


def request_id(random: Random) -> int:
    if random.random() < 0.9:
        return random.randrange(1, 9)
    return max(-(2**63), random.choice(_EDGES) * random.choice((1, 1, -1)))


def tunnel(random: Random) -> int:
    return max(-(2**63), random.choice((1, -1)) * request_id(random))


def size(random: Random) -> int:
    return random.choice((0, 1, 100, CHUNK, CHUNK + 1, MIN_WINDOW, 4 * CHUNK, *_EDGES))


def data(random: Random) -> bytes:
    some = random.randbytes(random.randrange(200))
    return random.choice((b"", b"x", b"\xc4\x01x", b"\xc4\x00", some))


def body(random: Random) -> Any:
    return data(random) if random.random() < 0.8 else random.randrange(3)


def fanout_body(random: Random) -> Any:
    if random.random() < 0.6:
        return body(random)
    return [data(random) for _ in range(random.randrange(1, 17))]


def name(random: Random) -> str:
    return random.choice(("c", "t") if random.random() < 0.7 else _NAMES)


def member(random: Random) -> str:
    return "aaaaaaaaaaaaaaaa/" + str(random.randrange(1, 6))


def headers(random: Random) -> Any:
    if random.random() < 0.6:
        return None
    entries = random.choice((0, 1, 3, 60))
    return {str(number): random.choice(("", "v", "x" * 300)) for number in range(entries)}


def metadata(random: Random) -> Any:
    return random.choice((None, {}, {"k": "v"}, {"k": "x" * MAX_METADATA}, {"k": 1}))


def text(random: Random) -> str:
    return random.choice(("", "why", "x" * 300, "\n\x00", "Overloaded"))


def anything(random: Random, depth: int = 0) -> Any:
    """Any value that MessagePack can encode."""
    if depth == 0 and random.random() < _DEEP_RATE:
        deep: Any = None
        for _ in range(random.choice((20, 500, 1000, 1010, 1020))):
            deep = [deep]
        return deep
    kind = random.randrange(10 if depth < 3 else 8)
    if kind == 8:
        return [anything(random, depth + 1) for _ in range(random.randrange(4))]
    if kind == 9:
        return {name(random): anything(random, depth + 1) for _ in range(random.randrange(3))}
    makers: Sequence[Field] = (
        choice(None, True, False),
        choice(0.0, 1.5, nan, inf, -inf),
        tunnel,
        size,
        data,
        name,
        text,
        lambda _: -(2**63),
    )
    return makers[kind](random)


_NATIVE: Mapping[int, Sequence[Field]] = {
    Op.HELLO: (choice(MAGIC), choice(VERSION, VERSION, VERSION, 2), name, data),
    Op.PING: (request_id,),
    Op.PONG: (request_id,),
    Op.CLOSE: (text,),
    Op.CHUNK: (choice(0, 1, 2), size, data),
    Op.REGISTER: (name, metadata),
    Op.UNREGISTER: (),
    Op.SUBSCRIBE: (name,),
    Op.UNSUBSCRIBE: (name,),
    Op.REQUEST: (request_id, name, body, size, choice(True, False), headers),
    Op.CANCEL: (request_id,),
    Op.BROADCAST: (name, fanout_body, headers),
    Op.PUBLISH: (name, fanout_body, headers),
    Op.STATUS: (request_id,),
    Op.REQUEST_MEMBER: (request_id, member, body, size, choice(True, False), headers),
    Op.WATCH: (name,),
    Op.UNWATCH: (name,),
    Op.REPLY: (request_id, body),
    Op.FAULT: (request_id, text, text),
    Op.REFUSED: (request_id, text),
    Op.OPEN: (
        request_id,
        name,
        body,
        choice(1000, 60_000, 60_000, 0),
        lambda random: member(random) if random.random() < 0.3 else None,
        choice(0, 0, 0, 1, 2),
        choice(MIN_WINDOW, MIN_WINDOW, 4 * CHUNK, 0, 2**64 - 1),
        size,
        headers,
    ),
    Op.ACCEPT: (request_id, size, size),
    Op.DATA: (tunnel, choice(None, None, 0, 2 * CHUNK, -1, 2**64 - 1), data),
    Op.CREDIT: (tunnel, size),
    Op.END: (tunnel, choice(0, 1, 2, 3), text, text),
}

_RELAYED: Mapping[int, Sequence[Field]] = {
    Op.WELCOME: (choice(VERSION, VERSION, 2), name, name, name, size),
    Op.PING: (request_id,),
    Op.PONG: (request_id,),
    Op.CLOSE: (text,),
    Op.CHUNK: (choice(0, 1, 2), size, data),
    Op.DELIVER_REQUEST: (request_id, body, size, request_id, member, headers),
    Op.DELIVER_BROADCAST: (fanout_body, member, headers),
    Op.DELIVER_EVENT: (name, fanout_body, member, headers),
    Op.NODE_ADDRESS: (name,),
    Op.MEMBER_JOINED: (name, member, name, metadata),
    Op.MEMBER_LEFT: (name, member),
    Op.MEMBERS_LISTED: (name,),
    Op.REQUEST_CANCELLED: (request_id,),
    Op.DRAINING: (request_id, text),
    Op.REPLY: (request_id, body),
    Op.FAULT: (request_id, text, text),
    Op.FAILED: (request_id, choice(1, 2, 3, 4, 5, 6, 7), text),
    Op.OFFER: (request_id, body, size, request_id, choice(0, 0, 1, 2), size, size, member, headers),
    Op.ACCEPT: (request_id, size, size),
    Op.DATA: (tunnel, choice(None, None, 0, 1, 2 * CHUNK, -1), data),
    Op.CREDIT: (tunnel, size),
    Op.END: (tunnel, choice(0, 1, 2, 3), text, text),
}

_PEER: Mapping[int, Sequence[Field]] = {
    Op.CHUNK: (choice(0, 1, 2), size, data),
    Op.REPLY: (request_id, body),
    Op.FAULT: (request_id, text, text),
    Op.REFUSED: (request_id, text),
    Op.FAILED: (request_id, choice(1, 2, 3, 4, 5, 6, 7), text),
    Op.ACCEPT: (request_id, size, size),
    Op.DATA: (tunnel, choice(None, None, 0, 2 * CHUNK, -1), data),
    Op.CREDIT: (tunnel, size),
    Op.END: (tunnel, choice(0, 1, 2, 3), text, text),
    PeerOp.MEMBER_JOINED: (name, request_id, metadata),
    PeerOp.MEMBER_LEFT: (name, request_id),
    PeerOp.SUBSCRIBED: (name,),
    PeerOp.UNSUBSCRIBED: (name,),
    PeerOp.SYNCED: (),
    PeerOp.KNOWN_PEER: (name, name, size),
    PeerOp.CLOSE: (),
    PeerOp.DRAINING: (request_id,),
    PeerOp.REQUEST: (request_id, name, body, size, request_id, headers),
    PeerOp.CANCEL: (request_id,),
    PeerOp.BROADCAST: (name, fanout_body, request_id, headers),
    PeerOp.PUBLISH: (name, fanout_body, request_id, headers),
    PeerOp.OPEN: (
        request_id,
        name,
        body,
        size,
        request_id,
        choice(0, 0, 1, 2),
        choice(0, 1, 2),
        size,
        size,
        headers,
    ),
    PeerOp.REQUEST_MEMBER: (request_id, name, body, size, request_id, choice(1, 2, 3), headers),
}


def native_messages(random: Random) -> Any:
    """A message from a program to its relay."""
    return _message(random, _NATIVE)


def relayed_messages(random: Random) -> Any:
    """A message from a relay to its program."""
    return _message(random, _RELAYED)


def peer_messages(random: Random) -> Any:
    """A message from a relay to a peer."""
    return _message(random, _PEER)


def _message(random: Random, kinds: Mapping[int, Sequence[Field]]) -> Any:
    if random.random() < 0.02:
        return anything(random)
    # Messages with more fields come more often: they have more wrong combinations.
    op = random.choices(list(kinds), [1 + len(fields) for fields in kinds.values()])[0]
    fields = [make(random) for make in kinds[op]]
    if fields and random.random() < _INVALID_FIELD_RATE:
        fields[random.randrange(len(fields))] = anything(random)
    if random.random() < 0.03:
        fields = fields[:-1] if random.random() < 0.5 else [*fields, anything(random)]
    return [int(op), *fields]
