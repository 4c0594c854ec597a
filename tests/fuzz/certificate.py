"""Certificates, introductions and the messages of a join: from strangers, and from key holders."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from msgpack import packb

from arke_relay.errors import CertificateError, JoinRefused
from arke_relay.peers.certificate import Certificate, Role, unseal
from arke_relay.peers.join_handshake import Initiator, NodeIdentity, Responder
from arke_relay.peers.join_messages import MAX_MESSAGE_BYTES, pack_refusal
from arke_relay.peers.keys import NetworkKey
from arke_relay.peers.node_info import NodeInfo
from arke_relay.peers.validation import unpack
from fuzz.finding import Finding, promise
from fuzz.grammar import anything, of
from fuzz.loop import FakeLoop
from fuzz.mutator import Mutator
from fuzz.script import steps
from fuzz.target import Target

# What stands before each of these is …
SEALED = 0x10  # a sealed certificate
SIGNED = 0x11  # what a key holder has signed as one
FIRST = 0x12  # what a responder hears first
PROOF = 0x13  # what it hears behind a good hello
SIGNED_PROOF = 0x14  # the certificate in a proof, signed
INTRODUCTION = 0x15  # the introduction in a good proof
CHALLENGE = 0x16  # what an initiator hears first
SIGNED_CHALLENGE = 0x17  # the certificate in a challenge, signed
WELCOME = 0x18  # what it hears behind a good challenge

_DOMAIN = b"arke 1 node certificate\0"
_NOW = 1000.0
_MOST = 12  # messages of one input: signing takes a while
_NETWORK = "cluster"
_NONCE = b"n" * 32
_ME, _THEM = b"m" * 32, b"t" * 32
_MY_NODE, _THEIR_NODE = "0123456789abcdef", "fedcba9876543210"
_PLACE = (55556, 55557, "10.1.1.1", "0.1.0", 1 << 24)


@cache
def _key() -> NetworkKey:
    return NetworkKey(generate_private_key(public_exponent=65537, key_size=2048))


def _sealed(encoded: bytes) -> bytes:
    return bytes(packb([encoded, _key().sign(_DOMAIN + encoded)]))


@cache
def _good(role: Role) -> bytes:
    return Certificate(_NETWORK, _THEIR_NODE, _THEM, _ME, _NONCE, role, 3600).seal(_key())


def _identity(node: str, curve_key: bytes) -> NodeIdentity:
    return NodeIdentity(_NETWORK, node, curve_key, (_key(),), 3600)


def _responder() -> Responder:
    me = _identity(_MY_NODE, _ME)
    return Responder(me, NodeInfo(*_PLACE), lambda _: _NONCE, _NOW, peer_key=_THEM)


def _initiator() -> Initiator:
    return Initiator(_identity(_MY_NODE, _ME), NodeInfo(*_PLACE), lambda _: _NONCE, _NOW)


def _greeted() -> Responder:
    responder = _responder()
    responder.receive(packb([1, 1, _NONCE]), _NOW)
    return responder


def _challenged() -> Initiator:
    initiator = _initiator()
    initiator.receive(packb([2, 1, _NONCE, _good(Role.RESPONDER)]), _NOW)
    return initiator


def _unsealed(data: bytes) -> None:
    try:
        certificate, signer = unseal(data, (_key(),))
    except CertificateError as error:
        promise(str(error).isprintable(), "an error that is no line")
        return
    promise(unseal(certificate.seal(signer), (signer,)) == (certificate, signer), "not canonical")


def _heard(side: Responder | Initiator, message: bytes) -> None:
    """Whatever it was, it is a step or a refusal, and the side has but one life."""
    try:
        step = side.receive(message, _NOW)
    except JoinRefused as error:
        promise(error.text.isprintable(), "a refusal text that is not printable")
        promise(len(pack_refusal(error)) < 1024, "a refusal over the limit")
        _over(side)
        return
    promise(step.send is None or len(step.send) <= MAX_MESSAGE_BYTES, "a message over the bound")
    if step.admitted is not None:
        admitted = step.admitted
        promise(admitted.curve_key == _THEM, "somebody else was admitted")
        promise(1 <= admitted.lifetime <= 24 * 3600, "admitted for too long")
        _over(side)


def _over(side: Responder | Initiator) -> None:
    try:
        side.receive(packb([4, list(_PLACE)]), _NOW)
    except JoinRefused:
        return
    raise Finding("a join goes on behind its end")


def _introduced(octets: bytes) -> bytes:
    try:
        introduction: Any = unpack(octets, limit=MAX_MESSAGE_BYTES)
    except ValueError:
        introduction = octets[:1024]
    return bytes(packb([3, _good(Role.INITIATOR), introduction]))


_CHECKS: dict[int, Callable[[bytes], None]] = {
    SEALED: _unsealed,
    SIGNED: lambda octets: _unsealed(_sealed(octets)),
    FIRST: lambda octets: _heard(_responder(), octets),
    PROOF: lambda octets: _heard(_greeted(), octets),
    SIGNED_PROOF: lambda octets: _heard(_greeted(), packb([3, _sealed(octets), list(_PLACE)])),
    INTRODUCTION: lambda octets: _heard(_greeted(), _introduced(octets)),
    CHALLENGE: lambda octets: _heard(_initiator(), octets),
    SIGNED_CHALLENGE: lambda octets: _heard(_initiator(), packb([2, 1, _NONCE, _sealed(octets)])),
    WELCOME: lambda octets: _heard(_challenged(), octets),
}


async def run(loop: FakeLoop, data: bytes) -> None:
    for number, (reads, happening) in enumerate(steps(data)):
        if number == _MOST:
            break
        check = _CHECKS.get(happening, _unsealed)
        for octets in reads[:_MOST]:
            check(octets)
    admitted = _greeted().receive(packb([3, _good(Role.INITIATOR), list(_PLACE)]), _NOW).admitted
    promise(admitted and admitted.node == _THEIR_NODE, "an honest relay is not admitted")


def _messages(random: Random) -> Any:
    octets = of(_NONCE, _ME, _THEM, b"", b"x" * 33)
    number = of(0, 1, 55556, 65535, 65536, 86_400, 86_401, 2**62, 2**63)
    label = of("", "10.1.1.1", "fe80::1", "::", "x" * 65, "0.1.0", "\n", "1.2.3")
    introduction = [number, number, label, label, number]
    kinds: list[list[Any]] = [
        [of(1), of(1, 1, 2), octets],
        [of(2), of(1, 1, 2), octets, of(b"", _good(Role.RESPONDER))],
        [of(3), of(b"", _good(Role.INITIATOR)), lambda random: _made(introduction, random)],
        [of(4), lambda random: _made(introduction, random)],
        [of(5), of(0, 1, 12, 99, 65_535, 65_536), of("", "why", "x" * 900, "\x00")],
        introduction,
        [
            of(_NETWORK, "other", ""),
            of(_THEIR_NODE, _MY_NODE, "0123456789ABCDEF", ""),
            octets,
            octets,
            octets,
            of("initiator", "responder", "observer"),
            number,
        ],
    ]
    if random.random() < 0.3:
        role = random.choice(("initiator", "responder"))
        return [_NETWORK, _THEIR_NODE, _THEM, _ME, _NONCE, role, 3600]
    return _made(random.choice(kinds), random)


def _made(makers: list[Any], random: Random) -> list[Any]:
    return [anything(random) if random.random() < 0.08 else make(random) for make in makers]


TARGET = Target(run, Mutator(_messages, tuple(_CHECKS)))
