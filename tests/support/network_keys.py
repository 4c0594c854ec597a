"""RSA keys for tests in which the value of the network key does not matter.

An RSA-3072 key takes up to a second of CPU time, so tests share a few. Each network has a random
name, which the keys of its join sockets depend on too, so networks with the same key stay apart.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from arke.keygen import write_key
from arke_relay.peers.keys import NetworkKey


@cache
def rsa_key(name: str) -> RSAPrivateKey:
    """Return the same key for the same name."""
    return generate_private_key(public_exponent=65537, key_size=2048)


@cache
def network_key(name: str) -> NetworkKey:
    return NetworkKey(rsa_key(name))


def write_key_file(path: Path, number: int = 0) -> None:
    """Write a key file as `arke keygen` does. The same number gives the same key."""
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(_key_file(number))


@cache
def _key_file(number: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"id_rsa-{number}"
        write_key(path)
        return path.read_bytes()
