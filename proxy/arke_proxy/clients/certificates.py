"""TLS certificates: selected by SNI, and reloaded when their files change."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from cryptography import x509

from arke_proxy.errors import InvalidCertificate
from arke_proxy.log import log

# TLS 1.2: only forward secrecy and authenticated encryption. TLS 1.3 has nothing else.
_TLS_1_2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_ALPN_PROTOCOLS = ["h2", "http/1.1"]
_CHECK_INTERVAL = 1.0  # seconds between two checks of the files

_Stamp = tuple[tuple[int, int, int], ...]


class CertificateFiles(NamedTuple):
    """The files of a certificate chain and its key."""

    certificate: Path
    key: Path

    def __str__(self) -> str:
        return f"{self.certificate}"


def certificate_files(text: str) -> CertificateFiles:
    """Parse the value of -cert: CERT.pem,KEY.pem, or one file with both."""
    certificate, comma, key = text.partition(",")
    if not certificate or (comma and not key):
        raise ValueError("must be CERT.pem, or CERT.pem,KEY.pem")
    return CertificateFiles(Path(certificate), Path(key or certificate))


class LoadedCertificate(NamedTuple):
    context: ssl.SSLContext
    names: list[str]  # in lower case; may be wildcards such as `*.example.org`
    stamp: _Stamp


class Certificates:
    """All certificates of a listener. The first one is used without SNI, or if no name matches.

    Raises InvalidCertificate if a file cannot be used. When a file is replaced by one that cannot
    be used, a warning is logged, and the earlier certificate stays in use.
    """

    def __init__(self, files: Sequence[CertificateFiles]) -> None:
        self._files = files
        self._loaded = [_load(each) for each in files]
        self._failed: dict[CertificateFiles, _Stamp] = {}  # of files that could not be used
        self._next_check = 0.0
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._index()
        # All handshakes start in this context, so that its session ticket keys survive a reload.
        self.context = _load(files[0]).context
        self.context.sni_callback = self._present

    def refresh(self, now: float) -> None:
        """Reload the files that have changed; checks once a second.

        `now` is in seconds, on any clock.
        """
        if now < self._next_check:
            return
        self._next_check = now + _CHECK_INTERVAL
        for at, files in enumerate(self._files):
            stamp = _stamp(files)
            if stamp in (self._loaded[at].stamp, self._failed.get(files)):
                continue
            try:
                self._loaded[at] = _load(files)
            except InvalidCertificate as error:
                self._failed[files] = stamp
                log.warning("certificate not reloaded: the old one stays", cert=files, reason=error)
                continue
            self._failed.pop(files, None)
            self._index()
            log.info("certificate reloaded", cert=files)

    def choose(self, name: str | None) -> ssl.SSLContext:
        """Return the TLS context for a client that asks for the host `name`."""
        name = (name or "").lower()
        wildcard = "*." + name.partition(".")[2]
        return self._by_name.get(name) or self._by_name.get(wildcard) or self._loaded[0].context

    def _present(
        self, handshake: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
    ) -> None:
        handshake.context = self.choose(name)

    def _index(self) -> None:
        """Map host names to contexts; the first of several certificates for a name is used."""
        self._by_name = {
            name: loaded.context for loaded in reversed(self._loaded) for name in loaded.names
        }


def _load(files: CertificateFiles) -> LoadedCertificate:
    stamp = _stamp(files)
    names = _names(files.certificate)
    context = _new_context()

    def encrypted() -> NoReturn:
        raise InvalidCertificate(
            f"the key in {files.key} is encrypted; `openssl pkey -in {files.key}` decrypts it"
        )

    try:
        context.load_cert_chain(files.certificate, files.key, encrypted)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            fault = f"the key in {files.key} belongs to another certificate"
        else:
            fault = f"{files.key} holds no private key in PEM form"
            if files.key == files.certificate:
                fault += "; name its file too: -cert CERT.pem,KEY.pem"
        raise InvalidCertificate(fault) from None
    except OSError as error:
        raise InvalidCertificate(f"{files.key} cannot be read: {error.strerror}") from None
    return LoadedCertificate(context, names, stamp)


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_TLS_1_2_CIPHERS)
    context.set_alpn_protocols(_ALPN_PROTOCOLS)
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


def _stamp(files: CertificateFiles) -> _Stamp:
    """Return values that change when a file is written or replaced."""
    stamp = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            stamp.append((0, 0, 0))
        else:
            stamp.append((status.st_mtime_ns, status.st_ino, status.st_size))
    return tuple(stamp)
