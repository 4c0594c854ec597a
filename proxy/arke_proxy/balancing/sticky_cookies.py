"""Sticky sessions: an encrypted cookie brings a client back to the same backend."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from arke_proxy.backends.address import BackendAddress

_NONCE_SIZE = 12  # bytes
_MAX_VALUE = 400  # characters of a cookie's value
_MAX_INVALID = 4  # cookies of one request; browsers send one for each matching path
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")  # a token, RFC 6265 4.1.1
_BASE64 = re.compile(rb"[A-Za-z0-9_-]+")
_MIN_KEY = 16  # bytes


def cookie_name(text: str) -> str:
    """Convert the `-sticky` flag. Raises ValueError."""
    if not _NAME.fullmatch(text):
        raise ValueError("must be a cookie name: letters, digits and - _ .")
    return text


def read_key(file: Path) -> bytes:
    """Read a key file, with which several proxies accept each other's cookies.

    Raises OSError; ValueError with a message that completes "-sticky-key FILE: …".
    """
    if file.stat().st_mode & 0o077:
        raise ValueError(f"other users can read the file; run chmod 600 {file}")
    key = file.read_bytes().strip()
    if len(key) < _MIN_KEY:
        raise ValueError(
            f"must hold at least {_MIN_KEY} bytes (got {len(key)}); "
            "create 32 with `head -c 32 /dev/urandom | base64`"
        )
    return key


class StickyCookies:
    """Writes and reads the sticky cookies of one cluster.

    The value is the backend's address, encrypted with AES-256-GCM. So clients cannot read backend
    addresses, and a value that was not made with this key for this cluster is ignored. `secret` is
    the same in all workers, or in all proxies with one key file. `path` is the cookie's path.
    """

    __slots__ = ("_aead", "_associated_data", "_attributes", "_prefix")

    def __init__(self, name: str, secret: bytes, cluster: str, path: bytes = b"/") -> None:
        key = HKDF(SHA256(), 32, salt=None, info=b"arke sticky cookie 1").derive(secret)
        self._aead = AESGCM(key)
        self._associated_data = cluster.encode()
        self._prefix = name.encode() + b"="
        self._attributes = b"; Path=" + (path or b"/") + b"; HttpOnly; SameSite=Lax"

    def read(self, values: Iterable[bytes]) -> BackendAddress | None:
        """Return the address in a request's `Cookie` fields; None if there is no valid cookie."""
        prefix = self._prefix
        invalid = 0
        for value in values:
            if prefix not in value:
                continue
            for cookie in value.split(b";"):
                cookie = cookie.strip()  # noqa: PLW2901
                if not cookie.startswith(prefix):
                    continue
                if address := self._decrypt(cookie[len(prefix) :]):
                    return address
                invalid += 1
                if invalid == _MAX_INVALID:
                    return None
        return None

    def cookie(self, address: BackendAddress, *, secure: bool = False) -> bytes:
        """Return the `Set-Cookie` value for a backend. `secure`: the client uses TLS."""
        nonce = secrets.token_bytes(_NONCE_SIZE)
        plain = "\n".join((address.host, str(address.port), address.via)).encode()
        encrypted = nonce + self._aead.encrypt(nonce, plain, self._associated_data)
        value = base64.urlsafe_b64encode(encrypted).rstrip(b"=")
        attributes = self._attributes + b"; Secure" if secure else self._attributes
        return self._prefix + value + attributes

    def _decrypt(self, value: bytes) -> BackendAddress | None:
        if len(value) > _MAX_VALUE or not _BASE64.fullmatch(value):
            return None
        try:
            encrypted = base64.urlsafe_b64decode(value + b"=" * (-len(value) % 4))
            nonce, ciphertext = encrypted[:_NONCE_SIZE], encrypted[_NONCE_SIZE:]
            plain = self._aead.decrypt(nonce, ciphertext, self._associated_data)
        except (binascii.Error, ValueError, InvalidTag):
            return None
        host, port, via = plain.decode().split("\n")
        return BackendAddress(host, int(port), via)
