"""The join: two relays prove to each other that they hold the network's RSA key.

    initiator                                         responder
        HELLO  [1, version, nonce]                →
                                                  ←   CHALLENGE  [2, version, nonce, certificate]
        PROOF  [3, certificate, node info]        →
                                                  ←   WELCOME    [4, node info]
                                                  or  REFUSED    [5, code, text], to either message

Each message is one MessagePack array in one frame of a CURVE connection. The connection proves to
the responder which CURVE key the initiator holds. It proves nothing about the responder, because
all relays of the network share the server key. Each certificate is therefore made for one join:
the responder's for the initiator's key and nonce, the initiator's for the responder's. A copied,
replayed, relayed or reflected certificate has the wrong key, nonce or role. This holds even
against an attacker who knows the join key.

The classes do no I/O. An instance serves one join, and each state accepts one message: after an
invalid one the join is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from arke_relay.errors import CertificateError, ConfigurationError, JoinRefused, RefusalCode
from arke_relay.peers.certificate import (
    MAX_NETWORK_NAME_BYTES,
    NONCE_BYTES,
    Certificate,
    Role,
    Verifier,
    verify,
)
from arke_relay.peers.join_messages import VERSION, JoinMessageKind, pack, unpack_as
from arke_relay.peers.keys import NetworkKey
from arke_relay.peers.node_info import NodeInfo
from arke_relay.peers.validation import is_text

MAX_JOIN_SECONDS = 10.0
"""A lifetime counts from admission, so a proof must not be kept and used later."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """This relay's identity and keys. Raises `ConfigurationError` for an invalid network name."""

    network: str
    node: str
    curve_key: bytes
    """The public key of the data socket, and of this relay's side of outgoing joins."""
    keys: Sequence[NetworkKey]
    """The first key signs; every key admits."""
    lifetime: int
    """Seconds that peers may admit this relay for, 1 to 86 400."""

    def __post_init__(self) -> None:
        if not is_text(self.network, 1, MAX_NETWORK_NAME_BYTES):
            raise ConfigurationError(
                f"-net must be 1 to {MAX_NETWORK_NAME_BYTES} bytes of UTF-8 text "
                f"(got {len(self.network.encode(errors='backslashreplace'))} bytes)"
            )


@dataclass(frozen=True, slots=True)
class AdmittedPeer:
    """The outcome of a successful join: the identity that the peer proved."""

    node: str
    curve_key: bytes
    lifetime: int
    info: NodeInfo
    signed_by: str
    """The fingerprint of the RSA key that signed the peer's certificate."""


@dataclass(frozen=True, slots=True)
class JoinStep:
    """The result of a received message: a message to send, an admitted peer, or both.

    With both, enter the peer into the admission table first: the table may still refuse it.
    """

    send: bytes | None = None
    admitted: AdmittedPeer | None = None


class _JoinSide:
    """State common to both sides: one nonce, one time limit, and the kind of message awaited."""

    def __init__(
        self,
        identity: NodeIdentity,
        info: NodeInfo,
        random: Callable[[int], bytes],
        now: float,
        *,
        awaited: JoinMessageKind,
    ) -> None:
        self._identity = identity
        self._info = info
        self._nonce = random(NONCE_BYTES)
        self._began = now
        self._awaited: JoinMessageKind | None = awaited

    def _decode(self, message: bytes, now: float) -> tuple[JoinMessageKind, list[Any]]:
        """Return the awaited kind and the message's fields. No further message is awaited."""
        awaited, self._awaited = self._awaited, None
        if awaited is None:
            raise JoinRefused(
                RefusalCode.UNEXPECTED_MESSAGE, "message received after the end of the join"
            )
        if not 0 <= now - self._began <= MAX_JOIN_SECONDS:
            raise JoinRefused(
                RefusalCode.JOIN_TIMED_OUT, f"the join took more than {MAX_JOIN_SECONDS:g} s"
            )
        return awaited, unpack_as(awaited, message)

    def _certify(self, role: Role, audience: bytes, nonce: bytes) -> bytes:
        """Return this relay's certificate for the peer with key `audience`, which drew `nonce`."""
        identity = self._identity
        return Certificate(
            network=identity.network,
            node=identity.node,
            curve_key=identity.curve_key,
            audience=audience,
            nonce=nonce,
            role=role,
            lifetime=identity.lifetime,
        ).seal(identity.keys[0])

    def _verify(
        self, sealed: bytes, peer_role: Role, connection_key: bytes | None
    ) -> tuple[Certificate, NetworkKey]:
        """Return the peer's certificate and its signer. Raises `JoinRefused` if a check fails."""
        identity = self._identity
        verifier = Verifier(
            network=identity.network,
            node=identity.node,
            curve_key=identity.curve_key,
            nonce=self._nonce,
            peer_role=peer_role,
            connection_key=connection_key,
        )
        try:
            return verify(sealed, identity.keys, verifier)
        except CertificateError as error:
            raise JoinRefused(error.code, str(error)) from error


class Initiator(_JoinSide):
    """The connecting side: send `hello()`, then what each `receive` returns."""

    def __init__(
        self,
        identity: NodeIdentity,
        info: NodeInfo,
        random: Callable[[int], bytes],
        now: float,
    ) -> None:
        super().__init__(identity, info, random, now, awaited=JoinMessageKind.CHALLENGE)
        self._verified: tuple[Certificate, NetworkKey] | None = None

    def hello(self) -> bytes:
        return pack(JoinMessageKind.HELLO, VERSION, self._nonce)

    def receive(self, message: bytes, now: float) -> JoinStep:
        """Process any bytes from the responder. Raises `JoinRefused`."""
        _, fields = self._decode(message, now)
        if self._verified is not None:
            return JoinStep(admitted=_admitted_peer(*self._verified, fields[0]))
        _, nonce, sealed = fields
        self._verified = self._verify(sealed, Role.RESPONDER, connection_key=None)
        self._awaited = JoinMessageKind.WELCOME
        proof = self._certify(Role.INITIATOR, self._verified[0].curve_key, nonce)
        return JoinStep(send=pack(JoinMessageKind.PROOF, proof, astuple(self._info)))


class Responder(_JoinSide):
    """The accepting side. ZeroMQ verified that the initiator holds the CURVE key `peer_key`."""

    def __init__(
        self,
        identity: NodeIdentity,
        info: NodeInfo,
        random: Callable[[int], bytes],
        now: float,
        *,
        peer_key: bytes,
    ) -> None:
        super().__init__(identity, info, random, now, awaited=JoinMessageKind.HELLO)
        self._peer_key = peer_key

    def receive(self, message: bytes, now: float) -> JoinStep:
        """Process any bytes from the initiator. Raises `JoinRefused`."""
        awaited, fields = self._decode(message, now)
        if awaited is JoinMessageKind.HELLO:
            return self._challenge(nonce=fields[1])
        sealed, info = fields
        certificate, signer = self._verify(sealed, Role.INITIATOR, connection_key=self._peer_key)
        return JoinStep(
            send=pack(JoinMessageKind.WELCOME, astuple(self._info)),
            admitted=_admitted_peer(certificate, signer, info),
        )

    def _challenge(self, nonce: bytes) -> JoinStep:
        if self._peer_key == self._identity.curve_key:
            raise JoinRefused(RefusalCode.CONNECTED_TO_SELF, "the relay is connected to itself")
        sealed = self._certify(Role.RESPONDER, self._peer_key, nonce)
        self._awaited = JoinMessageKind.PROOF
        return JoinStep(send=pack(JoinMessageKind.CHALLENGE, VERSION, self._nonce, sealed))


def _admitted_peer(
    certificate: Certificate, signer: NetworkKey, info_fields: list[Any]
) -> AdmittedPeer:
    try:
        info = NodeInfo(*info_fields)
    except (ValueError, TypeError) as error:  # an invalid field, or the wrong number of fields
        raise JoinRefused(RefusalCode.MALFORMED_NODE_INFO, "malformed node info") from error
    return AdmittedPeer(
        node=certificate.node,
        curve_key=certificate.curve_key,
        lifetime=certificate.lifetime,
        info=info,
        signed_by=signer.fingerprint,
    )
