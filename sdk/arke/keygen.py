"""Generate the RSA key of a network, readable by its owner only."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_BITS = 3072  # as strong as the 128-bit ciphers that the links use (NIST SP 800-57)


def write_key(path: Path) -> None:
    """Write a new private key: PEM PKCS#8, mode 0600. Raises FileExistsError for any old file."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
    except BaseException:
        path.unlink()
        raise
