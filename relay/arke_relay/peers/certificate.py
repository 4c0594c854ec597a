"""Node certificates: a holder of the network's RSA key vouches for a node's CURVE key.

A certificate is made for one verifier and one join. `nonce` was drawn by the verifier, so the
certificate is fresh without comparing clocks. `audience` is the verifier's CURVE key, so no other
relay accepts it. All checks of a received certificate are in `verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from enum import StrEnum

import msgpack

from arke_relay.errors import CertificateError, RefusalCode
from arke_relay.peers.keys import CURVE_KEY_BYTES, NetworkKey
from arke_relay.peers.validation import is_binary, is_integer, is_node_id, is_text, unpack

NONCE_BYTES = 32
MAX_NETWORK_NAME_BYTES = 255
MAX_LIFETIME = 24 * 60 * 60
MAX_SEALED_BYTES = 2048

# The prefix of every signed text (domain separation): a signature made with the same RSA key for
# another purpose is never a valid certificate, nor the reverse.
_DOMAIN = b"arke 1 node certificate\0"


class Role(StrEnum):
    """The side of a join that a certificate was made by."""

    INITIATOR = "initiator"
    RESPONDER = "responder"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a node states about itself. Raises `CertificateError` for an invalid field."""

    network: str
    node: str
    """The node id: 16 lowercase hex digits."""
    curve_key: bytes
    """The public key of the node's data socket."""
    audience: bytes
    """The public CURVE key of the verifier."""
    nonce: bytes
    """32 bytes drawn by the verifier."""
    role: Role
    lifetime: int
    """Seconds, 1 to 86 400. The verifier counts them from admission."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not _CHECKS[field.name](getattr(self, field.name)):
                name = field.name.replace("_", " ")
                raise _malformed(f"invalid {name} in the certificate")

    def seal(self, key: NetworkKey) -> bytes:
        """Return the signed certificate: a MessagePack array of the encoding and its signature."""
        encoded = self._encoded()
        return bytes(msgpack.packb([encoded, key.sign(_DOMAIN + encoded)]))

    def _encoded(self) -> bytes:
        return bytes(msgpack.packb(astuple(self)))


_CHECKS: dict[str, Callable[[object], bool]] = {
    "network": lambda value: is_text(value, 1, MAX_NETWORK_NAME_BYTES),
    "node": is_node_id,
    "curve_key": lambda value: is_binary(value, CURVE_KEY_BYTES),
    "audience": lambda value: is_binary(value, CURVE_KEY_BYTES),
    "nonce": lambda value: is_binary(value, NONCE_BYTES),
    "role": lambda value: type(value) is Role,
    "lifetime": lambda value: is_integer(value, 1, MAX_LIFETIME),
}


@dataclass(frozen=True, slots=True)
class Verifier:
    """The relay that checks a certificate, and the join that the certificate must be made for."""

    network: str
    node: str
    curve_key: bytes
    nonce: bytes
    """The nonce that the verifier drew for this join."""
    peer_role: Role
    connection_key: bytes | None
    """The CURVE key that ZeroMQ verified for the connection; None on the initiator's side, where
    the connection only proves the key that the whole network shares."""


def verify(
    sealed: bytes, keys: Sequence[NetworkKey], verifier: Verifier
) -> tuple[Certificate, NetworkKey]:
    """Check a certificate. Return it and the one of `keys` that signed it.

    Raises `CertificateError`.
    """
    certificate, signer = unseal(sealed, keys)
    for code, failed, text in (
        (
            RefusalCode.WRONG_NETWORK,
            certificate.network != verifier.network,
            "the certificate names another network",
        ),
        (
            RefusalCode.WRONG_ROLE,
            certificate.role is not verifier.peer_role,
            "the certificate is for the other side of a join",
        ),
        (
            RefusalCode.WRONG_VERIFIER,
            certificate.audience != verifier.curve_key,
            "the certificate was made for another relay",
        ),
        (
            RefusalCode.WRONG_NONCE,
            certificate.nonce != verifier.nonce,
            "the certificate was made for another join",
        ),
        (
            RefusalCode.CONNECTED_TO_SELF,
            certificate.curve_key == verifier.curve_key or certificate.node == verifier.node,
            "the relay is connected to itself",
        ),
        (
            RefusalCode.WRONG_CURVE_KEY,
            verifier.connection_key not in {None, certificate.curve_key},
            "the certificate vouches for another CURVE key than the connection's",
        ),
    ):
        if failed:
            raise CertificateError(code, text)
    return certificate, signer


def unseal(data: bytes, keys: Sequence[NetworkKey]) -> tuple[Certificate, NetworkKey]:
    """Check signature and encoding only. Return the certificate and the one of `keys` that signed.

    The content is not parsed before the signature is verified. Raises `CertificateError`.
    """
    try:
        encoded, signature = unpack(data, limit=MAX_SEALED_BYTES)
    except (ValueError, TypeError) as error:
        raise _malformed("malformed certificate") from error
    if type(encoded) is not bytes or type(signature) is not bytes:
        raise _malformed("malformed certificate")
    signer = next((key for key in keys if key.verify(signature, _DOMAIN + encoded)), None)
    if signer is None:
        raise CertificateError(
            RefusalCode.UNTRUSTED_KEY,
            "none of this relay's RSA keys signed the certificate",
        )
    return _decode(encoded), signer


def _decode(encoded: bytes) -> Certificate:
    try:
        network, node, curve_key, audience, nonce, role, lifetime = unpack(
            encoded,
            limit=MAX_SEALED_BYTES,
        )
        if type(role) is not str:  # Role(role) would put a nested list of any depth into its error
            raise TypeError("a role is text")
        role = Role(role)
    except (ValueError, TypeError) as error:
        raise _malformed("unknown content in the certificate") from error
    certificate = Certificate(network, node, curve_key, audience, nonce, role, lifetime)
    if certificate._encoded() != encoded:  # noqa: SLF001
        raise _malformed("the certificate is not in its canonical encoding")
    return certificate


def _malformed(text: str) -> CertificateError:
    return CertificateError(RefusalCode.MALFORMED_CERTIFICATE, text)
