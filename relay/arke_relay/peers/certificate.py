"""The node certificate: a holder of the network's RSA key vouches for a CURVE key.

It is made for one verifier: `nonce` is the verifier's own, so it is fresh without comparing
clocks, and `audience` is the verifier's CURVE key, so it is worth nothing to anyone else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from enum import StrEnum

import msgpack

from arke_relay.errors import CertificateError
from arke_relay.peers.keys import CURVE_KEY_BYTES, NetworkKey
from arke_relay.peers.validation import is_binary, is_integer, is_node_id, is_text, unpack

NONCE_BYTES = 32
NETWORK_NAME_BYTES = 255
LONGEST_LIFETIME = 24 * 60 * 60
SEALED_BYTES = 2048

# What is signed begins with this, so that no other use of the key makes or takes a certificate.
_DOMAIN = b"arke 1 node certificate\0"


class Role(StrEnum):
    INITIATOR = "initiator"
    RESPONDER = "responder"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a relay says of itself. Raises `CertificateError` when a part is out of bounds."""

    network: str
    node: str
    """The id of the relay: 16 lowercase hex digits."""
    curve_key: bytes
    """The public key of its data socket."""
    audience: bytes
    """The public CURVE key of the one relay that this is said to."""
    nonce: bytes
    """32 bytes drawn by that relay."""
    role: Role
    lifetime: int
    """Seconds, 1 to 86 400, counted by the verifier from admission."""

    def __post_init__(self) -> None:
        for part in fields(self):
            if not _BOUNDS[part.name](getattr(self, part.name)):
                raise CertificateError(f"a certificate with a bad {part.name.replace('_', ' ')}")

    def seal(self, key: NetworkKey) -> bytes:
        """Return the certificate signed: a MessagePack array of the encoding and signature."""
        encoded = self._encoded()
        return bytes(msgpack.packb([encoded, key.sign(_DOMAIN + encoded)]))

    def _encoded(self) -> bytes:
        return bytes(msgpack.packb(astuple(self)))


_BOUNDS: dict[str, Callable[[object], bool]] = {
    "network": lambda value: is_text(value, 1, NETWORK_NAME_BYTES),
    "node": is_node_id,
    "curve_key": lambda value: is_binary(value, CURVE_KEY_BYTES),
    "audience": lambda value: is_binary(value, CURVE_KEY_BYTES),
    "nonce": lambda value: is_binary(value, NONCE_BYTES),
    "role": lambda value: type(value) is Role,
    "lifetime": lambda value: is_integer(value, 1, LONGEST_LIFETIME),
}


def unseal(data: bytes, keys: Sequence[NetworkKey]) -> tuple[Certificate, NetworkKey]:
    """Return the certificate and which of `keys` signed it; else raise `CertificateError`.

    Nothing inside is looked at before the signature holds.
    """
    try:
        encoded, signature = unpack(data, limit=SEALED_BYTES)
    except (ValueError, TypeError) as error:
        raise CertificateError("a malformed certificate") from error
    if type(encoded) is not bytes or type(signature) is not bytes:
        raise CertificateError("a malformed certificate")
    signer = next((key for key in keys if key.verify(signature, _DOMAIN + encoded)), None)
    if signer is None:
        raise CertificateError("a certificate signed by none of this relay's RSA keys")
    return _decode(encoded), signer


def _decode(encoded: bytes) -> Certificate:
    try:
        network, node, curve_key, audience, nonce, role, lifetime = unpack(
            encoded,
            limit=SEALED_BYTES,
        )
        if type(role) is not str:  # an enum would show it, however deeply it is nested
            raise TypeError("a role is text")
        role = Role(role)
    except (ValueError, TypeError) as error:
        raise CertificateError("a certificate with unknown content") from error
    certificate = Certificate(network, node, curve_key, audience, nonce, role, lifetime)
    if certificate._encoded() != encoded:  # noqa: SLF001
        raise CertificateError("a certificate that is not in its canonical encoding")
    return certificate
