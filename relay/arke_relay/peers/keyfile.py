"""Load the operator's key file. Errors are one line that names the fix."""

from __future__ import annotations

import os
import shlex
import stat
import warnings
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_ssh_private_key,
)

from arke_relay.errors import KeyFileError
from arke_relay.peers.keys import NetworkKey

_FILE_BYTES = 64 * 1024
_MIN_BITS = 2048
_MAX_BITS = 8192  # signatures travel in certificates, whose parts are bounded


def load_key(path: Path) -> NetworkKey:
    """Load an RSA private key: PEM or DER in PKCS#1 or PKCS#8, or OpenSSH's own format.

    Takes about a millisecond. Raises `KeyFileError` with one line that names the fix.
    """
    data, mode = _read(path)
    name = shlex.quote(str(path))
    another = f"make another: arke keygen {shlex.quote(f'{path}.new')}"
    # Checked before the permissions: others may read a .pub file, and chmod would not help.
    if _is_public(data):
        half = f": {shlex.quote(str(path.with_suffix('')))}" if path.suffix == ".pub" else ""
        raise KeyFileError(f"{path} is a public key; name its private half{half}")
    if mode & 0o077:
        raise KeyFileError(
            f"key file {path} is open to others (mode {mode:04o}); close it: chmod 600 {name}",
        )
    try:
        with warnings.catch_warnings():  # an outdated key type is rejected below
            warnings.simplefilter("ignore")
            private = _parse(data)
    except TypeError as error:  # cryptography raises it if a passphrase is missing
        fix = (
            f"ssh-keygen -p -N '' -f {name}"
            if b"-----BEGIN" in data
            else f"openssl pkey -inform DER -in {name} -out {shlex.quote(f'{path}.pem')}"
        )
        raise KeyFileError(
            f"key file {path} is encrypted, and a relay cannot ask for a passphrase; "
            f"remove it: {fix}",
        ) from error
    except UnsupportedAlgorithm as error:
        raise KeyFileError(f"key file {path} holds no RSA key; {another}") from error
    except ValueError as error:
        raise KeyFileError(f"{path} is not a private key, or damaged; {another}") from error
    if not isinstance(private, RSAPrivateKey):
        raise KeyFileError(f"key file {path} holds no RSA key; {another}")
    if not _MIN_BITS <= private.key_size <= _MAX_BITS:
        raise KeyFileError(
            f"key file {path} holds a {private.key_size}-bit key, "
            f"not one of {_MIN_BITS} to {_MAX_BITS} bits; {another}",
        )
    if not _is_consistent(private):
        raise KeyFileError(f"key file {path} is damaged: its numbers are inconsistent; {another}")
    return NetworkKey(private)


def _read(path: Path) -> tuple[bytes, int]:
    """Return the content and the permissions of the file, from one open descriptor."""
    name = shlex.quote(str(path))
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise KeyFileError(f"{path} is not a regular file; name a key file")
            data = file.read(_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise KeyFileError(f"no key file {path}; make one: arke keygen {name}") from error
    except IsADirectoryError as error:
        raise KeyFileError(f"{path} is a directory; name the key file in it") from error
    except PermissionError as error:
        raise KeyFileError(
            f"key file {path} cannot be read by this user; "
            f"give it to them: sudo chown {os.geteuid()} {name}",
        ) from error
    except OSError as error:
        raise KeyFileError(f"key file {path} cannot be read: {error.strerror}") from error
    if len(data) > _FILE_BYTES:
        raise KeyFileError(f"{path} is over {_FILE_BYTES // 1024} KiB; name a key file")
    return data, stat.S_IMODE(mode)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # opening a named pipe would wait for a writer


def _is_public(data: bytes) -> bool:
    if b"PRIVATE KEY-----" in data:
        return False
    if b" PUBLIC KEY" in data or data.startswith((b"ssh-", b"ecdsa-", b"sk-")):
        return True
    try:
        load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def _parse(data: bytes) -> object:
    # OpenSSL's check of a key proves both primes again: 90 ms for 3072 bits and 230 ms for 4096,
    # where a start may take 500 ms. The operator made the file, and `_is_consistent` finds damage.
    if b"-----BEGIN OPENSSH PRIVATE KEY-----" in data:
        return load_ssh_private_key(data, None, unsafe_skip_rsa_key_validation=True)
    if b"-----BEGIN" in data:
        return load_pem_private_key(data, None, unsafe_skip_rsa_key_validation=True)
    return load_der_private_key(data, None, unsafe_skip_rsa_key_validation=True)


def _is_consistent(private: RSAPrivateKey) -> bool:
    """Return whether the numbers form an RSA key: OpenSSL's checks, except primality."""
    it = private.private_numbers()
    e, n = it.public_numbers.e, it.public_numbers.n
    return (
        e > 1
        and it.p > 1
        and it.q > 1
        and it.p * it.q == n
        and e * it.d % (it.p - 1) == 1
        and e * it.d % (it.q - 1) == 1
        and it.d % (it.p - 1) == it.dmp1
        and it.d % (it.q - 1) == it.dmq1
        and it.iqmp * it.q % it.p == 1
    )
