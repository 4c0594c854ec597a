from __future__ import annotations

import logging
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from arke_proxy.clients.certificates import Certificates, certificate_files
from arke_proxy.errors import InvalidCertificate
from support.certificates import write_certificate


def certificates(*arguments: str) -> Certificates:
    return Certificates([certificate_files(argument) for argument in arguments])


def presented_names(server: Certificates, name: str | None) -> set[str]:
    """Return the host names in the certificate that a client with this SNI name gets."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE
    client = unverified.wrap_bio(to_client, to_server, server_hostname=name)
    proxy = server.context.wrap_bio(to_server, to_client, server_side=True)
    for end in (client, proxy, client):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    certificate = client.getpeercert(binary_form=True)
    assert certificate
    return host_names(certificate)


def host_names(certificate: bytes) -> set[str]:
    extensions = x509.load_der_x509_certificate(certificate).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names.get_values_for_type(x509.DNSName))


def test_sni_selects_certificate(tmp_path: Path) -> None:
    server = certificates(
        write_certificate(tmp_path, "one.example", file="1"),
        write_certificate(tmp_path, "Two.example", "*.two.example", file="2"),
        write_certificate(tmp_path, "exact.two.example", file="3"),
    )
    one, two, three = {"one.example"}, {"Two.example", "*.two.example"}, {"exact.two.example"}
    assert presented_names(server, "one.example") == one
    assert presented_names(server, "TWO.example") == two
    assert presented_names(server, "any.two.example") == two
    assert presented_names(server, "exact.two.example") == three
    assert presented_names(server, "deep.any.two.example") == one
    assert presented_names(server, "other.example") == one
    assert presented_names(server, None) == one


def test_changed_certificate_files_are_reloaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="arke_proxy")
    argument = write_certificate(tmp_path, "old.example")
    server = certificates(argument)
    server.refresh(100.0)
    key = tmp_path / "server.key"
    key_bytes = key.read_bytes()

    key.write_bytes(b"not a key")
    server.refresh(101.0)
    server.refresh(102.0)
    assert presented_names(server, None) == {"old.example"}
    assert caplog.messages == ["certificate not reloaded: the old one stays"]
    fields = caplog.records[0].__dict__["fields"]
    assert str(fields["cert"]) == f"{tmp_path}/server.pem"
    assert str(fields["reason"]) == f"{key} holds no private key in PEM form"
    key.write_bytes(key_bytes)
    server.refresh(103.0)
    write_certificate(tmp_path, "new.example")
    server.refresh(103.9)
    assert presented_names(server, None) == {"old.example"}
    server.refresh(104.0)
    assert presented_names(server, None) == {"new.example"}


def test_unusable_files_raise_invalid_certificate(tmp_path: Path) -> None:
    good = write_certificate(tmp_path, "a.example", file="good")
    other = write_certificate(tmp_path, "a.example", file="other")
    encrypted = write_certificate(tmp_path, "a.example", file="encrypted", password=b"secret")
    certificate = good.partition(",")[0]
    for argument, message in (
        (f"{tmp_path}/none.pem", "none.pem cannot be read: No such file"),
        (f"{certificate},{tmp_path}/none.key", "none.key cannot be read: No such file"),
        (f"{certificate},{other.partition(',')[2]}", "belongs to another certificate"),
        (encrypted, "is encrypted; `openssl pkey -in"),
        (certificate, "holds no private key in PEM form; name its file too"),
        (good.partition(",")[2], "good.key holds no certificate in PEM form"),
    ):
        with pytest.raises(InvalidCertificate, match=message):
            certificates(argument)


@pytest.mark.parametrize("text", ["", ",key.pem", "cert.pem,"])
def test_cert_flag_rejects_missing_file(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be CERT\.pem"):
        certificate_files(text)


def test_one_file_may_contain_certificate_and_key(tmp_path: Path) -> None:
    paths = [Path(path) for path in write_certificate(tmp_path, "a.example").split(",")]
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in paths))
    assert presented_names(certificates(str(both)), None) == {"a.example"}
