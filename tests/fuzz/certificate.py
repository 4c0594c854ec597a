"""Certificates and join messages, from senders without the network's key and with it."""

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
from fuzz.finding import Finding, require
from fuzz.grammar import anything, choice
from fuzz.mutator import Mutator
from fuzz.script import steps
from fuzz.simulated_loop import SimulatedLoop
from fuzz.target import Target

# Events. Each says what the bytes before it are.
SEALED = 0x10  # a sealed certificate
SIGNED = 0x11  # the content of a certificate, to be signed with the network's key
FIRST = 0x12  # the first message to a responder
PROOF = 0x13  # the message to a responder after a valid hello
SIGNED_PROOF = 0x14  # the certificate in a proof, to be signed
NODE_INFO = 0x15  # the node info in a valid proof
CHALLENGE = 0x16  # the first message to an initiator
SIGNED_CHALLENGE = 0x17  # the certificate in a challenge, to be signed
WELCOME = 0x18  # the message to an initiator after a valid challenge

_DOMAIN = b"arke 1 node certificate\0"
_NOW = 1000.0
_MAX_ENTRIES = 12  # messages of one input: signing is slow
_NETWORK = "cluster"
_NONCE = b"n" * 32
_ME, _THEM = b"m" * 32, b"t" * 32
_MY_NODE, _THEIR_NODE = "0123456789abcdef", "fedcba9876543210"
_NODE_INFO = (55556, 55557, "10.1.1.1", "0.1.0", 1 << 24)


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
    return Responder(me, NodeInfo(*_NODE_INFO), lambda _: _NONCE, _NOW, peer_key=_THEM)


def _initiator() -> Initiator:
    return Initiator(_identity(_MY_NODE, _ME), NodeInfo(*_NODE_INFO), lambda _: _NONCE, _NOW)


def _responder_after_hello() -> Responder:
    responder = _responder()
    responder.receive(packb([1, 1, _NONCE]), _NOW)
    return responder


def _initiator_after_challenge() -> Initiator:
    initiator = _initiator()
    initiator.receive(packb([2, 1, _NONCE, _good(Role.RESPONDER)]), _NOW)
    return initiator


def _check_unseal(data: bytes) -> None:
    try:
        certificate, signer = unseal(data, (_key(),))
    except CertificateError as error:
        require(str(error).isprintable(), "an error that is not printable")
        return
    require(unseal(certificate.seal(signer), (signer,)) == (certificate, signer), "not canonical")


def _check_message(side: Responder | Initiator, message: bytes) -> None:
    """Check that a message leads to a step or a refusal, and that the join then ends."""
    try:
        step = side.receive(message, _NOW)
    except JoinRefused as error:
        require(error.text.isprintable(), "a refusal text that is not printable")
        require(len(pack_refusal(error)) < 1024, "a refusal over the limit")
        _check_ended(side)
        return
    require(step.send is None or len(step.send) <= MAX_MESSAGE_BYTES, "a message over the limit")
    if step.admitted is not None:
        admitted = step.admitted
        require(admitted.curve_key == _THEM, "another key was admitted")
        require(1 <= admitted.lifetime <= 24 * 3600, "admitted for too long")
        _check_ended(side)


def _check_ended(side: Responder | Initiator) -> None:
    try:
        side.receive(packb([4, list(_NODE_INFO)]), _NOW)
    except JoinRefused:
        return
    raise Finding("a join continues after its end")


def _proof_with_node_info(data: bytes) -> bytes:
    try:
        node_info: Any = unpack(data, limit=MAX_MESSAGE_BYTES)
    except ValueError:
        node_info = data[:1024]
    return bytes(packb([3, _good(Role.INITIATOR), node_info]))


_CHECKS: dict[int, Callable[[bytes], None]] = {
    SEALED: _check_unseal,
    SIGNED: lambda data: _check_unseal(_sealed(data)),
    FIRST: lambda data: _check_message(_responder(), data),
    PROOF: lambda data: _check_message(_responder_after_hello(), data),
    SIGNED_PROOF: lambda data: _check_message(
        _responder_after_hello(), packb([3, _sealed(data), list(_NODE_INFO)])
    ),
    NODE_INFO: lambda data: _check_message(_responder_after_hello(), _proof_with_node_info(data)),
    CHALLENGE: lambda data: _check_message(_initiator(), data),
    SIGNED_CHALLENGE: lambda data: _check_message(
        _initiator(), packb([2, 1, _NONCE, _sealed(data)])
    ),
    WELCOME: lambda data: _check_message(_initiator_after_challenge(), data),
}


async def run(loop: SimulatedLoop, data: bytes) -> None:
    for number, (reads, event_number) in enumerate(steps(data)):
        if number == _MAX_ENTRIES:
            break
        check = _CHECKS.get(event_number, _check_unseal)
        for data in reads[:_MAX_ENTRIES]:
            check(data)
    admitted = (
        _responder_after_hello()
        .receive(packb([3, _good(Role.INITIATOR), list(_NODE_INFO)]), _NOW)
        .admitted
    )
    require(admitted and admitted.node == _THEIR_NODE, "a valid relay is not admitted")


def _messages(random: Random) -> Any:
    data = choice(_NONCE, _ME, _THEM, b"", b"x" * 33)
    number = choice(0, 1, 55556, 65535, 65536, 86_400, 86_401, 2**62, 2**63)
    label = choice("", "10.1.1.1", "fe80::1", "::", "x" * 65, "0.1.0", "\n", "1.2.3")
    node_info = [number, number, label, label, number]
    kinds: list[list[Any]] = [
        [choice(1), choice(1, 1, 2), data],
        [choice(2), choice(1, 1, 2), data, choice(b"", _good(Role.RESPONDER))],
        [choice(3), choice(b"", _good(Role.INITIATOR)), lambda random: _fill(node_info, random)],
        [choice(4), lambda random: _fill(node_info, random)],
        [choice(5), choice(0, 1, 12, 99, 65_535, 65_536), choice("", "why", "x" * 900, "\x00")],
        node_info,
        [
            choice(_NETWORK, "other", ""),
            choice(_THEIR_NODE, _MY_NODE, "0123456789ABCDEF", ""),
            data,
            data,
            data,
            choice("initiator", "responder", "observer"),
            number,
        ],
    ]
    if random.random() < 0.3:
        role = random.choice(("initiator", "responder"))
        return [_NETWORK, _THEIR_NODE, _THEM, _ME, _NONCE, role, 3600]
    return _fill(random.choice(kinds), random)


def _fill(makers: list[Any], random: Random) -> list[Any]:
    return [anything(random) if random.random() < 0.08 else make(random) for make in makers]


TARGET = Target(run, Mutator(_messages, tuple(_CHECKS)))
