"""The join: two relays prove to each other that they hold the network's RSA key.

    initiator                                         responder
        HELLO  [1, version, nonce]                →
                                                  ←   CHALLENGE  [2, version, nonce, certificate]
        PROOF  [3, certificate, introduction]     →
                                                  ←   WELCOME    [4, introduction]
                                                  or  REFUSED    [5, reason], to either message

Each message is one MessagePack array in one frame of a CURVE connection. That connection proves
to the responder which CURVE key the initiator holds; its server key is shared by the network and
proves nothing about the responder. So each certificate is made for one join: the responder's for
the initiator's key and nonce, the initiator's for the responder's. A certificate that is copied,
replayed, relayed or reflected names another key, nonce or role, even when a stranger does it who
came to know the join key.

A side does no I/O and has one life: each state is left at its first message, good or bad.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from arke_relay.errors import CertificateError, ConfigurationError, JoinRefused
from arke_relay.peers.certificate import (
    NETWORK_NAME_BYTES,
    NONCE_BYTES,
    Certificate,
    Role,
    unseal,
)
from arke_relay.peers.introduction import Introduction
from arke_relay.peers.join_messages import VERSION, Kind, pack, unpack_as
from arke_relay.peers.keys import NetworkKey
from arke_relay.peers.validation import is_text

LONGEST_JOIN = 10.0  # seconds: lifetimes count from admission, so no proof may be kept for later


@dataclass(frozen=True, slots=True)
class Identity:
    """This relay, as it presents itself in every join.

    Raises `ConfigurationError` when no certificate could carry the network's name.
    """

    network: str
    node: str
    curve_key: bytes
    """Its public key: of its data socket, and of the client side of its join connections."""
    keys: Sequence[NetworkKey]
    """The first signs; each of them admits."""
    lifetime: int
    """Seconds that others may admit this relay for, 1 to 86 400."""

    def __post_init__(self) -> None:
        if not is_text(self.network, 1, NETWORK_NAME_BYTES):
            raise ConfigurationError(
                f"the name of a network has 1 to {NETWORK_NAME_BYTES} bytes of UTF-8; "
                "choose another: -net NAME",
            )


@dataclass(frozen=True, slots=True)
class Admitted:
    """The outcome of a join: who the other side proved to be."""

    node: str
    curve_key: bytes
    lifetime: int
    introduction: Introduction
    signed_by: str
    """The fingerprint of the RSA key that vouched."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a received message leads to: a message to send, an outcome, or both.

    With both, enter the outcome into the table of admissions first: it may still refuse.
    """

    send: bytes | None = None
    admitted: Admitted | None = None


class _Side:
    """What both sides have in common: one nonce, one deadline, and one message awaited."""

    def __init__(
        self,
        identity: Identity,
        introduction: Introduction,
        random: Callable[[int], bytes],
        now: float,
        *,
        awaited: Kind,
    ) -> None:
        self._identity = identity
        self._introduction = introduction
        self._nonce = random(NONCE_BYTES)
        self._began = now
        self._awaited: Kind | None = awaited

    def _take(self, message: bytes, now: float) -> tuple[Kind, list[Any]]:
        """Return the kind that was awaited and its fields; nothing is awaited after that."""
        awaited, self._awaited = self._awaited, None
        if awaited is None:
            raise JoinRefused("a message after the end of the join")
        if not 0 <= now - self._began <= LONGEST_JOIN:
            raise JoinRefused(f"the join took over {LONGEST_JOIN:g} seconds")
        return awaited, unpack_as(awaited, message)

    def _vouch(self, role: Role, audience: bytes, nonce: bytes) -> bytes:
        """Return this relay's certificate for the holder of `audience`, who drew `nonce`."""
        me = self._identity
        return Certificate(
            network=me.network,
            node=me.node,
            curve_key=me.curve_key,
            audience=audience,
            nonce=nonce,
            role=role,
            lifetime=me.lifetime,
        ).seal(me.keys[0])

    def _attest(self, sealed: bytes, role: Role) -> tuple[Certificate, NetworkKey]:
        """Return the other side's certificate, if it was made for this very join."""
        me = self._identity
        try:
            certificate, signer = unseal(sealed, me.keys)
        except CertificateError as error:
            raise JoinRefused(str(error)) from error
        if certificate.network != me.network:
            raise JoinRefused("a certificate of another network")
        if certificate.role is not role:
            raise JoinRefused("a certificate of the wrong role")
        if certificate.audience != me.curve_key:
            raise JoinRefused("a certificate made for another relay")
        if certificate.nonce != self._nonce:
            raise JoinRefused("a certificate made for another join")
        if certificate.curve_key == me.curve_key or certificate.node == me.node:
            raise JoinRefused("this is me")
        return certificate, signer


class Initiator(_Side):
    """The side that connected: send `hello()`, then what each `receive` says."""

    def __init__(
        self,
        identity: Identity,
        introduction: Introduction,
        random: Callable[[int], bytes],
        now: float,
    ) -> None:
        super().__init__(identity, introduction, random, now, awaited=Kind.CHALLENGE)
        self._attested: tuple[Certificate, NetworkKey] | None = None

    def hello(self) -> bytes:
        return pack(Kind.HELLO, VERSION, self._nonce)

    def receive(self, message: bytes, now: float) -> Step:
        """Take a message of the responder. Raises `JoinRefused`, whatever the bytes are."""
        _, fields = self._take(message, now)
        if self._attested is not None:
            return Step(admitted=_admit(*self._attested, fields[0]))
        _, nonce, sealed = fields
        self._attested = self._attest(sealed, Role.RESPONDER)
        self._awaited = Kind.WELCOME
        proof = self._vouch(Role.INITIATOR, self._attested[0].curve_key, nonce)
        return Step(send=pack(Kind.PROOF, proof, astuple(self._introduction)))


class Responder(_Side):
    """The side that was connected to, by the holder of the CURVE key `peer_key`."""

    def __init__(
        self,
        identity: Identity,
        introduction: Introduction,
        random: Callable[[int], bytes],
        now: float,
        *,
        peer_key: bytes,
    ) -> None:
        super().__init__(identity, introduction, random, now, awaited=Kind.HELLO)
        self._peer_key = peer_key

    def receive(self, message: bytes, now: float) -> Step:
        """Take a message of the initiator. Raises `JoinRefused`, whatever the bytes are."""
        awaited, fields = self._take(message, now)
        if awaited is Kind.HELLO:
            return self._challenge(nonce=fields[1])
        sealed, introduction = fields
        certificate, signer = self._attest(sealed, Role.INITIATOR)
        if certificate.curve_key != self._peer_key:
            raise JoinRefused("a certificate of another relay's key")
        return Step(
            send=pack(Kind.WELCOME, astuple(self._introduction)),
            admitted=_admit(certificate, signer, introduction),
        )

    def _challenge(self, nonce: bytes) -> Step:
        if self._peer_key == self._identity.curve_key:
            raise JoinRefused("this is me")
        sealed = self._vouch(Role.RESPONDER, self._peer_key, nonce)
        self._awaited = Kind.PROOF
        return Step(send=pack(Kind.CHALLENGE, VERSION, self._nonce, sealed))


def _admit(certificate: Certificate, signer: NetworkKey, introduction: list[Any]) -> Admitted:
    try:
        introduced = Introduction(*introduction)
    except (ValueError, TypeError) as error:  # a bad field, or another number of them
        raise JoinRefused("a malformed introduction") from error
    return Admitted(
        node=certificate.node,
        curve_key=certificate.curve_key,
        lifetime=certificate.lifetime,
        introduction=introduced,
        signed_by=signer.fingerprint,
    )
