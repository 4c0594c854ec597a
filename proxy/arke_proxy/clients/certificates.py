"""TLS towards clients: certificates chosen by name, and read anew when their files change."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from cryptography import x509

from arke_proxy.errors import InvalidCertificate
from arke_proxy.log import log

# TLS 1.2 with forward secrecy and authenticated encryption only; those of 1.3 are all of that kind.
_CIPHERS_OF_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20"
_PROTOCOLS = ["h2", "http/1.1"]
_EVERY = 1.0  # seconds between two looks at the files

_Stamp = tuple[tuple[int, int, int], ...]


class Pair(NamedTuple):
    """Where a certificate, with those that vouch for it, and its key are."""

    certificate: Path
    key: Path

    def __str__(self) -> str:
        return f"{self.certificate}"


def pair(text: str) -> Pair:
    """Take the text of a flag: CERT.pem,KEY.pem, or one file that holds both."""
    certificate, comma, key = text.partition(",")
    if not certificate or (comma and not key):
        raise ValueError("must be CERT.pem, or CERT.pem,KEY.pem")
    return Pair(Path(certificate), Path(key or certificate))


class _Loaded(NamedTuple):
    context: ssl.SSLContext
    names: list[str]  # in lower case; `*.example.org` is one
    stamp: _Stamp


class Certificates:
    """All certificates of a listener; the first is for clients that ask for no name, or another.

    Raises InvalidCertificate if one cannot be used when the proxy starts; afterwards a bad one is
    complained about, and the one before it goes on.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._pairs = pairs
        self._loaded = [_load(pair) for pair in pairs]
        self._failed: dict[Pair, _Stamp] = {}  # what the files were that could not be used
        self._look = 0.0
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._index()
        # Every handshake begins in this one, whose ticket keys thus outlive a change of files.
        self.context = _load(pairs[0]).context
        self.context.sni_callback = self._present

    def refresh(self, now: float) -> None:
        """Look, once a second, whether files have changed, and use what they hold now.

        `now` is in seconds, on any clock.
        """
        if now < self._look:
            return
        self._look = now + _EVERY
        for at, pair in enumerate(self._pairs):
            stamp = _stamp(pair)
            if stamp in (self._loaded[at].stamp, self._failed.get(pair)):
                continue
            try:
                self._loaded[at] = _load(pair)
            except InvalidCertificate as error:
                self._failed[pair] = stamp
                log.warning("-cert %s: %s; the one read before goes on", pair, error)
                continue
            self._failed.pop(pair, None)
            self._index()
            log.info("certificate %s read anew", pair)

    def choose(self, name: str | None) -> ssl.SSLContext:
        """Return what to present to a client that asks for `name`."""
        name = (name or "").lower()
        wildcard = "*." + name.partition(".")[2]
        return self._by_name.get(name) or self._by_name.get(wildcard) or self._loaded[0].context

    def _present(
        self, handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
    ) -> None:
        handshake.context = self.choose(name)

    def _index(self) -> None:
        """Where two certificates have a name in common, the first one gets it."""
        self._by_name = {
            name: loaded.context for loaded in reversed(self._loaded) for name in loaded.names
        }


def _load(pair: Pair) -> _Loaded:
    stamp = _stamp(pair)
    names = _names(pair.certificate)
    context = _new_context()

    def encrypted() -> NoReturn:
        raise InvalidCertificate(
            f"the key in {pair.key} is encrypted; `openssl pkey -in {pair.key}` writes it in clear"
        )

    try:
        context.load_cert_chain(pair.certificate, pair.key, encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            fault = f"the key in {pair.key} belongs to another certificate"
        else:
            fault = f"{pair.key} holds no private key in PEM form"
            if pair.key == pair.certificate:
                fault += "; name its file too: -cert CERT.pem,KEY.pem"
        raise InvalidCertificate(fault) from None
    except OSError as error:
        raise InvalidCertificate(f"{pair.key} cannot be read: {error.strerror}") from None
    return _Loaded(context, names, stamp)


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_CIPHERS_OF_1_2)
    context.set_alpn_protocols(_PROTOCOLS)
    return context


def _names(file: Path) -> list[str]:
    try:
        certificate = x509.load_pem_x509_certificates(file.read_bytes())[0]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except OSError as error:
        raise InvalidCertificate(f"{file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise InvalidCertificate(f"{file} holds no certificate in PEM form") from None
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.value.get_values_for_type(x509.DNSName)]


def _stamp(pair: Pair) -> _Stamp:
    """Return what changes when a file is written, or replaced."""
    stamp = []
    for file in pair:
        try:
            status = file.stat()
        except OSError:
            stamp.append((0, 0, 0))
        else:
            stamp.append((status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(stamp)
