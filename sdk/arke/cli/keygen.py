"""`arke keygen`: the one secret of a network."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from arke import flags
from arke.cli.ending import fail

_BITS = 3072  # as strong as the 128-bit ciphers that the links use (NIST SP 800-57)


@dataclass(frozen=True, slots=True)
class _Options:
    file: str = flags.argument("FILE", help="where to write the key; must not exist")


def keygen(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Write a new RSA key that only its owner can read."""
    options = flags.parse(
        _Options,
        program="arke keygen",
        summary="Makes the RSA key of a network; give the same file to each of its relays.",
        argv=argv,
        environ=environ,
    )
    try:
        descriptor = os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        fail(f"{options.file} exists; a key is never overwritten: choose another name")
    except OSError as error:
        fail(f"cannot write {options.file}: {error.strerror}")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_new_key())
    except BaseException:
        Path(options.file).unlink()
        raise


def _new_key() -> bytes:
    # Slow to import, and no other command needs it.
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    return rsa.generate_private_key(public_exponent=65537, key_size=_BITS).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
