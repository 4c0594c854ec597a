"""A visitor comes back to the same backend: a cookie says which one."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from arke_proxy.backends.address import BackendAddress

_NONCE = 12  # bytes
_LONGEST = 400  # characters of a value of ours
_MOST = 4  # cookies of our name in one request; browsers send one for each path they know
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")  # a token, RFC 6265 4.1.1
_TAG = re.compile(rb"[A-Za-z0-9_-]+")
LEAST_KEY = 16  # bytes of a secret


def cookie_name(text: str) -> str:
    """Take what can name a cookie. Raises ValueError."""
    if not _NAME.fullmatch(text):
        raise ValueError("must be the name of a cookie: letters, digits and - _ .")
    return text


class Sticky:
    """Writes and reads the cookie of one cluster.

    Its value is the backend's address, sealed (AES-256-GCM): nobody reads where the backends
    are, and what this key did not seal for this cluster is not taken for an address. `secret` is
    shared by the proxies that visitors may come through; `path` is where the cookie is sent to.
    """

    __slots__ = ("_about", "_begin", "_end", "_seal")

    def __init__(self, name: str, secret: bytes, cluster: str, path: bytes = b"/") -> None:
        key = HKDF(SHA256(), 32, salt=None, info=b"arke sticky cookie 1").derive(secret)
        self._seal = AESGCM(key)
        self._about = cluster.encode()
        self._begin = name.encode() + b"="
        self._end = b"; Path=" + (path or b"/") + b"; HttpOnly; SameSite=Lax"

    def read(self, values: Iterable[bytes]) -> BackendAddress | None:
        """Return the address in a request's `Cookie` fields; None if there is none of ours."""
        begin = self._begin
        looked_at = 0
        for value in values:
            if begin not in value:
                continue
            for part in value.split(b";"):
                part = part.strip()  # noqa: PLW2901
                if not part.startswith(begin):
                    continue
                if address := self._open(part[len(begin) :]):
                    return address
                looked_at += 1
                if looked_at == _MOST:
                    return None
        return None

    def cookie(self, address: BackendAddress, *, secure: bool = False) -> bytes:
        """Return the value of `Set-Cookie` that makes the browser remember; `secure`: over TLS."""
        nonce = secrets.token_bytes(_NONCE)
        plain = "\n".join((address.host, str(address.port), address.via)).encode()
        sealed = base64.urlsafe_b64encode(nonce + self._seal.encrypt(nonce, plain, self._about))
        end = self._end + b"; Secure" if secure else self._end
        return self._begin + sealed.rstrip(b"=") + end

    def _open(self, value: bytes) -> BackendAddress | None:
        if len(value) > _LONGEST or not _TAG.fullmatch(value):
            return None
        try:
            sealed = base64.urlsafe_b64decode(value + b"=" * (-len(value) % 4))
            plain = self._seal.decrypt(sealed[:_NONCE], sealed[_NONCE:], self._about)
        except (binascii.Error, ValueError, InvalidTag):
            return None
        host, port, via = plain.decode().split("\n")
        return BackendAddress(host, int(port), via)
