"""Messages that are right, or nearly: guesses that no mutation of octets would make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, nan
from random import Random
from typing import Any

from arke.wire.limits import CHUNK, MAX_METADATA, MIN_WINDOW
from arke.wire.messages import MAGIC, VERSION, Op, PeerOp

Field = Callable[[Random], Any]

_ODD_ONE = 0.12
"""How often a field is anything at all."""

_EDGES = (0, 1, 2, 127, 128, 255, 65535, 65536, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
_NAMES = ("c", "t", "d", "x", "", "n" * 255, "n" * 256, "ß" * 127, "\U000e0001" * 63, "\n", "aa/1")


def of(*values: Any) -> Field:
    return lambda random: random.choice(values)


def call(random: Random) -> int:
    if random.random() < 0.9:
        return random.randrange(1, 9)
    return max(-(2**63), random.choice(_EDGES) * random.choice((1, 1, -1)))


def tunnel(random: Random) -> int:
    return max(-(2**63), random.choice((1, -1)) * call(random))


def size(random: Random) -> int:
    return random.choice((0, 1, 100, CHUNK, CHUNK + 1, MIN_WINDOW, 4 * CHUNK, *_EDGES))


def octets(random: Random) -> bytes:
    some = random.randbytes(random.randrange(200))
    return random.choice((b"", b"x", b"\xc4\x01x", b"\xc4\x00", some))


def body(random: Random) -> Any:
    return octets(random) if random.random() < 0.8 else random.randrange(3)


def cast(random: Random) -> Any:
    if random.random() < 0.6:
        return body(random)
    return [octets(random) for _ in range(random.randrange(1, 17))]


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
    """Whatever MessagePack can say."""
    if depth == 0 and random.random() < 0.05:
        deep: Any = None
        for _ in range(random.choice((20, 500, 600, 1000, 1020))):
            deep = [deep]
        return deep
    kind = random.randrange(10 if depth < 3 else 8)
    if kind == 8:
        return [anything(random, depth + 1) for _ in range(random.randrange(4))]
    if kind == 9:
        return {name(random): anything(random, depth + 1) for _ in range(random.randrange(3))}
    makers: Sequence[Field] = (
        of(None, True, False),
        of(0.0, 1.5, nan, inf, -inf),
        tunnel,
        size,
        octets,
        name,
        text,
        lambda _: -(2**63),
    )
    return makers[kind](random)


_NATIVE: Mapping[int, Sequence[Field]] = {
    Op.HELLO: (of(MAGIC), of(VERSION, VERSION, VERSION, 2), name, octets),
    Op.PING: (call,),
    Op.PONG: (call,),
    Op.CLOSE: (text,),
    Op.CHUNK: (of(0, 1, 2), size, octets),
    Op.REGISTER: (name, metadata),
    Op.UNREGISTER: (),
    Op.SUBSCRIBE: (name,),
    Op.UNSUBSCRIBE: (name,),
    Op.REQUEST: (call, name, body, size, of(True, False), headers),
    Op.CANCEL: (call,),
    Op.BROADCAST: (name, cast, headers),
    Op.PUBLISH: (name, cast, headers),
    Op.STATUS: (call,),
    Op.REQUEST_MEMBER: (call, member, body, size, of(True, False), headers),
    Op.WATCH: (name,),
    Op.UNWATCH: (name,),
    Op.REPLY: (call, body),
    Op.FAULT: (call, text, text),
    Op.REFUSED: (call, text),
    Op.OPEN: (
        call,
        name,
        body,
        of(1000, 60_000, 0),
        lambda random: member(random) if random.random() < 0.3 else None,
        of(0, 0, 1, 2),
        of(MIN_WINDOW, MIN_WINDOW, 4 * CHUNK, 0, 2**64 - 1),
        size,
        headers,
    ),
    Op.ACCEPT: (call, size, size),
    Op.DATA: (tunnel, of(None, None, 0, 2 * CHUNK, -1, 2**64 - 1), octets),
    Op.CREDIT: (tunnel, size),
    Op.END: (tunnel, of(0, 1, 2, 3), text, text),
}

_RELAYED: Mapping[int, Sequence[Field]] = {
    Op.WELCOME: (of(VERSION, VERSION, 2), name, name, name, size),
    Op.PING: (call,),
    Op.PONG: (call,),
    Op.CLOSE: (text,),
    Op.CHUNK: (of(0, 1, 2), size, octets),
    Op.DELIVER_REQUEST: (call, body, size, call, member, headers),
    Op.DELIVER_BROADCAST: (cast, member, headers),
    Op.DELIVER_EVENT: (name, cast, member, headers),
    Op.NODE_ADDRESS: (name,),
    Op.MEMBER_JOINED: (name, member, name, metadata),
    Op.MEMBER_LEFT: (name, member),
    Op.MEMBERS_LISTED: (name,),
    Op.REQUEST_CANCELLED: (call,),
    Op.DRAINING: (call, text),
    Op.REPLY: (call, body),
    Op.FAULT: (call, text, text),
    Op.FAILED: (call, of(1, 2, 3, 4, 5, 6, 7), text),
    Op.OFFER: (call, body, size, call, of(0, 0, 1, 2), size, size, member, headers),
    Op.ACCEPT: (call, size, size),
    Op.DATA: (tunnel, of(None, None, 0, 1, 2 * CHUNK, -1), octets),
    Op.CREDIT: (tunnel, size),
    Op.END: (tunnel, of(0, 1, 2, 3), text, text),
}

_PEER: Mapping[int, Sequence[Field]] = {
    Op.CHUNK: (of(0, 1, 2), size, octets),
    Op.REPLY: (call, body),
    Op.FAULT: (call, text, text),
    Op.REFUSED: (call, text),
    Op.FAILED: (call, of(1, 2, 3, 4, 5, 6, 7), text),
    Op.ACCEPT: (call, size, size),
    Op.DATA: (tunnel, of(None, None, 0, 2 * CHUNK, -1), octets),
    Op.CREDIT: (tunnel, size),
    Op.END: (tunnel, of(0, 1, 2, 3), text, text),
    PeerOp.MEMBER_JOINED: (name, call, metadata),
    PeerOp.MEMBER_LEFT: (name, call),
    PeerOp.SUBSCRIBED: (name,),
    PeerOp.UNSUBSCRIBED: (name,),
    PeerOp.SYNCED: (),
    PeerOp.KNOWN_PEER: (name, name, size),
    PeerOp.CLOSE: (),
    PeerOp.DRAINING: (call,),
    PeerOp.REQUEST: (call, name, body, size, call, headers),
    PeerOp.CANCEL: (call,),
    PeerOp.BROADCAST: (name, cast, call, headers),
    PeerOp.PUBLISH: (name, cast, call, headers),
    PeerOp.OPEN: (call, name, body, size, call, of(0, 0, 1, 2), of(0, 1, 2), size, size, headers),
    PeerOp.REQUEST_MEMBER: (call, name, body, size, call, of(1, 2, 3), headers),
}


def native_messages(random: Random) -> Any:
    """What a program says to its relay."""
    return _message(random, _NATIVE)


def relayed_messages(random: Random) -> Any:
    """What a relay says to its program."""
    return _message(random, _RELAYED)


def peer_messages(random: Random) -> Any:
    """What a relay says to another."""
    return _message(random, _PEER)


def _message(random: Random, kinds: Mapping[int, Sequence[Field]]) -> Any:
    if random.random() < 0.02:
        return anything(random)
    op = random.choice(list(kinds))
    fields = [
        anything(random) if random.random() < _ODD_ONE else make(random) for make in kinds[op]
    ]
    if random.random() < 0.03:
        fields = fields[:-1] if random.random() < 0.5 else [*fields, anything(random)]
    return [int(op), *fields]
