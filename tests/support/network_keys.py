"""RSA keys for tests that need some network's key, not a particular one."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from arke_relay.peers.keys import NetworkKey


@cache
def rsa_key(name: str) -> RSAPrivateKey:
    """Return the same key for the same name; the name says what it is for."""
    return generate_private_key(public_exponent=65537, key_size=2048)


@cache
def network_key(name: str) -> NetworkKey:
    return NetworkKey(rsa_key(name))
