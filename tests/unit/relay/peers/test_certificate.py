"""Node certificates: signature, encoding and bounds."""

from __future__ import annotations

from dataclasses import fields, replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke_relay.errors import CertificateError, RefusalCode
from arke_relay.peers.certificate import Certificate, Role, unseal
from support.network_keys import network_key

CERTIFICATE = Certificate(
    network="cluster",
    node="0123456789abcdef",
    curve_key=b"k" * 32,
    audience=b"a" * 32,
    nonce=b"n" * 32,
    role=Role.INITIATOR,
    lifetime=3600,
)
FIELDS = ["cluster", "0123456789abcdef", b"k" * 32, b"a" * 32, b"n" * 32, "initiator", 3600]
DOMAIN = b"arke 1 node certificate\0"


def sealed(encoded: bytes, *, domain: bytes = DOMAIN) -> bytes:
    """Sign any bytes, as a hostile member of the network could."""
    return bytes(msgpack.packb([encoded, network_key("one").sign(domain + encoded)]))


def rejection_of(data: bytes) -> CertificateError:
    with pytest.raises(CertificateError) as caught:
        unseal(data, [network_key("one")])
    return caught.value


def assert_malformed(data: bytes, text: str = "certificate") -> None:
    rejection = rejection_of(data)
    assert rejection.code is RefusalCode.MALFORMED_CERTIFICATE
    assert text in str(rejection)


def test_unseal_returns_certificate_and_signer() -> None:
    data = CERTIFICATE.seal(network_key("one"))
    assert len(data) < 2048
    keys = [network_key("other"), network_key("one")]
    assert unseal(data, keys) == (CERTIFICATE, network_key("one"))


def test_encoding_is_as_documented() -> None:
    encoded, signature = msgpack.unpackb(CERTIFICATE.seal(network_key("one")))
    assert encoded == msgpack.packb(FIELDS)
    assert network_key("one").verify(signature, DOMAIN + encoded)
    assert unseal(sealed(encoded), [network_key("one")])[0] == CERTIFICATE


def test_certificate_signed_with_another_key_is_rejected() -> None:
    data = CERTIFICATE.seal(network_key("other"))
    assert rejection_of(data).code is RefusalCode.UNTRUSTED_KEY
    with pytest.raises(CertificateError):
        unseal(data, [])


def test_signature_for_another_purpose_is_rejected() -> None:
    data = sealed(bytes(msgpack.packb(FIELDS)), domain=b"")
    assert rejection_of(data).code is RefusalCode.UNTRUSTED_KEY


def test_changed_certificate_is_rejected() -> None:
    encoded, signature = msgpack.unpackb(CERTIFICATE.seal(network_key("one")))
    changed = encoded.replace(b"cluster", b"clustes")
    assert changed != encoded
    data = bytes(msgpack.packb([changed, signature]))
    assert rejection_of(data).code is RefusalCode.UNTRUSTED_KEY


@pytest.mark.parametrize(
    "fields",
    [
        [],
        FIELDS[:-1],
        [*FIELDS, "one more"],
        FIELDS[0],
        7,
        dict(enumerate(FIELDS)),
        [*FIELDS[:5], "observer", 3600],
        [*FIELDS[:5], b"initiator", 3600],
        [*FIELDS[:5], ["initiator"], 3600],
    ],
)
def test_unknown_content_is_rejected(fields: object) -> None:
    assert_malformed(sealed(bytes(msgpack.packb(fields))), "unknown content")


BAD = [
    ("network", ["", "n" * 256, "ß" * 128, b"cluster", None, 1, "\ud800"]),
    ("node", ["", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcde\n"]),
    ("curve_key", [b"", b"k" * 31, b"k" * 33, "k" * 32, None]),
    ("audience", [b"", b"a" * 31, b"a" * 33, "a" * 32, None]),
    ("nonce", [b"", b"n" * 31, b"n" * 33, "n" * 32, None]),
    ("role", ["initiator", b"initiator", None, 1]),
    ("lifetime", [0, -1, 86_401, 1 << 62, True, 1.0, "3600", None]),
]


@pytest.mark.parametrize(("field", "value"), [(name, value) for name, bad in BAD for value in bad])
def test_field_out_of_bounds_is_rejected(field: str, value: object) -> None:
    text = f"invalid {field.replace('_', ' ')}"
    with pytest.raises(CertificateError, match=text):
        replace(CERTIFICATE, **{field: value})
    if field == "role" or value == "\ud800":
        return  # an unknown role is unknown content; MessagePack cannot encode a lone surrogate
    names = [name.name for name in fields(Certificate)]
    changed = [value if name == field else good for name, good in zip(names, FIELDS, strict=True)]
    assert_malformed(sealed(bytes(msgpack.packb(changed))), text)


@pytest.mark.parametrize(
    ("field", "value"), [("network", "n"), ("network", "ß" * 127), ("lifetime", 1)]
)
def test_bounds_are_inclusive(field: str, value: object) -> None:
    certificate = replace(CERTIFICATE, **{field: value})
    assert unseal(certificate.seal(network_key("one")), [network_key("one")])[0] == certificate
    assert replace(CERTIFICATE, lifetime=86_400).lifetime == 86_400


def test_other_than_canonical_encoding_is_rejected() -> None:
    encoded = bytes(msgpack.packb(FIELDS))
    longer = encoded[:-3] + b"\xce\x00\x00\x0e\x10"  # 3600 in four bytes instead of two
    assert msgpack.unpackb(longer) == FIELDS
    assert_malformed(sealed(longer), "canonical")


def test_trailing_bytes_are_rejected() -> None:
    assert_malformed(CERTIFICATE.seal(network_key("one")) + b"\0", "malformed")
    assert_malformed(sealed(bytes(msgpack.packb(FIELDS)) + b"\0"), "unknown content")


@pytest.mark.parametrize(
    "envelope",
    [
        None,
        [],
        [b"encoded"],
        [b"encoded", b"signature", b"more"],
        ["encoded", b"signature"],
        [b"encoded", "signature"],
        [b"encoded", 7],
        b"ab",
        "ab",
        [b"e" * 3000, b"signature"],
        {b"encoded": b"signature"},
    ],
)
def test_malformed_envelope_is_rejected(envelope: object) -> None:
    rejection_of(bytes(msgpack.packb(envelope)))


@given(data=st.binary(max_size=4096))
def test_random_bytes_are_rejected(data: bytes) -> None:
    rejection_of(data)


@given(data=st.data())
def test_one_changed_byte_is_rejected(data: st.DataObject) -> None:
    content = bytearray(SEALED)
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    rejection_of(bytes(content))


SEALED = CERTIFICATE.seal(network_key("one"))

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary()
    | st.text(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(envelope=values)
def test_random_value_is_rejected(envelope: object) -> None:
    rejection_of(bytes(msgpack.packb(envelope)))


@given(fields=values | st.lists(values, min_size=7, max_size=7))
def test_random_signed_value_is_rejected(fields: object) -> None:
    rejection_of(sealed(bytes(msgpack.packb(fields))))


@given(encoded=st.binary(max_size=400))
def test_random_signed_bytes_are_rejected(encoded: bytes) -> None:
    rejection_of(sealed(encoded))


@pytest.mark.parametrize("place", range(7))
def test_deeply_nested_signed_value_is_rejected(place: int) -> None:
    values = [bytes(msgpack.packb(value)) for value in FIELDS]
    values[place] = b"\x91" * 1000 + b"\xc0"
    rejection_of(sealed(b"\x97" + b"".join(values)))
