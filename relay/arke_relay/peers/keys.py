"""The RSA key that makes a network, and the CURVE keys of one relay's life."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

CURVE_KEY_BYTES = 32
TAG_BYTES = 16

# The purpose of a derived secret. Each ends in NUL: so none is a prefix of another, and no network
# name can turn one into another.
_JOIN = b"arke 1 join key\0"
_TAG = b"arke 1 discovery tag\0"

_HASH = SHA256()
_PADDING = PSS(MGF1(_HASH), salt_length=PSS.DIGEST_LENGTH)


class NetworkKey:
    """The RSA key pair of a network. Only its holders may join."""

    def __init__(self, private: RSAPrivateKey) -> None:
        self._private = private
        self._public = private.public_key()
        self._root = _canonical(private)
        self._tag_key = self._derive(_TAG)
        self.fingerprint = hashlib.sha256(
            self._public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        ).hexdigest()[:16]
        """16 hex digits of SHA-256 over the public key: for logs, and to tell keys apart."""

    def __repr__(self) -> str:
        return f"NetworkKey({self.fingerprint})"

    def sign(self, message: bytes) -> bytes:
        """Return the RSA-PSS-SHA256 signature, which is as long as the key. It takes 1 to 2 ms."""
        return self._private.sign(message, _PADDING, _HASH)

    def verify(self, signature: bytes, message: bytes) -> bool:
        try:
            self._public.verify(signature, message, _PADDING, _HASH)
        except InvalidSignature:
            return False
        return True

    def join_secret(self, network: str) -> bytes:
        """Return the 32-byte CURVE secret that all join sockets of `network` share."""
        return self._derive(_JOIN + network.encode())

    def tag(self, network: str, node: str) -> bytes:
        """Return the 16 bytes by which holders of this key recognise `node` in discovery.

        The tag depends on the node id. Otherwise it would be constant, and a listener could track
        a laptop between places. Node ids are random at each start and have a fixed length, so a tag
        reveals nothing without the key. A tag can be replayed: it is only a hint, and admits no
        peer.
        """
        message = node.encode() + network.encode()
        return hmac.digest(self._tag_key, message, "sha256")[:TAG_BYTES]

    def _derive(self, purpose: bytes) -> bytes:
        return HKDF(_HASH, CURVE_KEY_BYTES, salt=None, info=purpose).derive(self._root)


@dataclass(frozen=True, slots=True)
class CurvePair:
    """An X25519 key pair in raw bytes, the form that libzmq accepts beside Z85."""

    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def from_secret(cls, secret: bytes) -> CurvePair:
        """Compute the pair of 32 secret bytes. X25519 clamps them, as libzmq does."""
        private = X25519PrivateKey.from_private_bytes(secret)
        return cls(private.public_key().public_bytes_raw(), secret)

    @classmethod
    def fresh(cls, random: Callable[[int], bytes]) -> CurvePair:
        """Create a pair from `random`, which returns the given number of unpredictable bytes."""
        return cls.from_secret(random(CURVE_KEY_BYTES))


def _canonical(private: RSAPrivateKey) -> bytes:
    """Return the private key as bytes that are the same for each file of the key.

    They are the two primes, the smaller first, big-endian, each as long as the modulus. Files of
    one key may differ in the order of the primes, and in the modulus of the private exponent.
    """
    numbers = private.private_numbers()
    size = (private.key_size + 7) // 8
    return b"".join(prime.to_bytes(size) for prime in sorted((numbers.p, numbers.q)))
