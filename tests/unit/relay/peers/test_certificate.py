from __future__ import annotations

from dataclasses import fields, replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arke_relay.errors import CertificateError
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
    """Whatever `encoded` is, under a good signature: what an insider could send."""
    return bytes(msgpack.packb([encoded, network_key("one").sign(domain + encoded)]))


def refusal_of(data: bytes) -> str:
    with pytest.raises(CertificateError) as refusal:
        unseal(data, [network_key("one")])
    return str(refusal.value)


def test_it_says_who_signed_what() -> None:
    data = CERTIFICATE.seal(network_key("one"))
    assert len(data) < 2048
    keys = [network_key("other"), network_key("one")]
    assert unseal(data, keys) == (CERTIFICATE, network_key("one"))


def test_the_bytes_are_as_documented() -> None:
    encoded, signature = msgpack.unpackb(CERTIFICATE.seal(network_key("one")))
    assert encoded == msgpack.packb(FIELDS)
    assert network_key("one").verify(signature, DOMAIN + encoded)
    assert unseal(sealed(encoded), [network_key("one")])[0] == CERTIFICATE


def test_another_key_has_not_signed_it() -> None:
    data = CERTIFICATE.seal(network_key("other"))
    assert "none of this relay's RSA keys" in refusal_of(data)
    with pytest.raises(CertificateError):
        unseal(data, [])


def test_a_signature_for_another_purpose_is_none() -> None:
    assert "RSA keys" in refusal_of(sealed(bytes(msgpack.packb(FIELDS)), domain=b""))


def test_a_changed_certificate_is_not_signed() -> None:
    encoded, signature = msgpack.unpackb(CERTIFICATE.seal(network_key("one")))
    changed = encoded.replace(b"cluster", b"clustes")
    assert changed != encoded
    assert "RSA keys" in refusal_of(bytes(msgpack.packb([changed, signature])))


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
def test_unknown_content_is_refused(fields: object) -> None:
    assert "unknown content" in refusal_of(sealed(bytes(msgpack.packb(fields))))


BAD = [
    ("network", ["", "n" * 256, "ß" * 128, b"cluster", None, 1, "\ud800"]),
    ("node", ["", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcde\n"]),
    ("curve_key", [b"", b"k" * 31, b"k" * 33, "k" * 32, None]),
    ("audience", [b"", b"a" * 31, b"a" * 33, "a" * 32, None]),
    ("nonce", [b"", b"n" * 31, b"n" * 33, "n" * 32, None]),
    ("role", ["initiator", b"initiator", None, 1]),
    ("lifetime", [0, -1, 86_401, 1 << 62, True, 1.0, "3600", None]),
]


@pytest.mark.parametrize(("part", "value"), [(part, value) for part, bad in BAD for value in bad])
def test_a_part_out_of_bounds_is_refused(part: str, value: object) -> None:
    complaint = f"a bad {part.replace('_', ' ')}"
    with pytest.raises(CertificateError, match=complaint):
        replace(CERTIFICATE, **{part: value})
    if part == "role" or value == "\ud800":
        return  # another role is unknown content, and MessagePack carries no lone surrogate
    names = [name.name for name in fields(Certificate)]
    changed = [value if name == part else good for name, good in zip(names, FIELDS, strict=True)]
    assert complaint in refusal_of(sealed(bytes(msgpack.packb(changed))))


@pytest.mark.parametrize(
    ("part", "value"), [("network", "n"), ("network", "ß" * 127), ("lifetime", 1)]
)
def test_bounds_are_inclusive(part: str, value: object) -> None:
    certificate = replace(CERTIFICATE, **{part: value})
    assert unseal(certificate.seal(network_key("one")), [network_key("one")])[0] == certificate
    assert replace(CERTIFICATE, lifetime=86_400).lifetime == 86_400


def test_only_the_canonical_encoding_counts() -> None:
    encoded = bytes(msgpack.packb(FIELDS))
    longer = encoded[:-3] + b"\xce\x00\x00\x0e\x10"  # 3600 in four bytes instead of two
    assert msgpack.unpackb(longer) == FIELDS
    assert "canonical" in refusal_of(sealed(longer))


def test_bytes_after_the_end_are_refused() -> None:
    assert "malformed" in refusal_of(CERTIFICATE.seal(network_key("one")) + b"\0")
    assert "unknown content" in refusal_of(sealed(bytes(msgpack.packb(FIELDS)) + b"\0"))


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
def test_a_malformed_envelope_is_refused(envelope: object) -> None:
    assert "certificate" in refusal_of(bytes(msgpack.packb(envelope)))


@given(data=st.binary(max_size=4096))
def test_any_bytes_are_refused(data: bytes) -> None:
    refusal_of(data)


@given(data=st.data())
def test_any_changed_byte_is_refused(data: st.DataObject) -> None:
    content = bytearray(SEALED)
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    refusal_of(bytes(content))


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
def test_any_value_is_refused(envelope: object) -> None:
    refusal_of(bytes(msgpack.packb(envelope)))


@given(fields=values | st.lists(values, min_size=7, max_size=7))
def test_any_signed_value_is_refused(fields: object) -> None:
    refusal_of(sealed(bytes(msgpack.packb(fields))))


@given(encoded=st.binary(max_size=400))
def test_any_signed_bytes_are_refused(encoded: bytes) -> None:
    refusal_of(sealed(encoded))


@pytest.mark.parametrize("place", range(7))
def test_a_signed_value_that_is_nested_without_end_is_refused(place: int) -> None:
    values = [bytes(msgpack.packb(value)) for value in FIELDS]
    values[place] = b"\x91" * 1000 + b"\xc0"
    refusal_of(sealed(b"\x97" + b"".join(values)))
