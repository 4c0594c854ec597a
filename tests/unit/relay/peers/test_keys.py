from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
from itertools import count
from pathlib import Path

import pytest
import zmq
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPrivateNumbers
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from arke_relay.peers.keys import CurvePair, NetworkKey
from support.network_keys import network_key, rsa_key

NODE, OTHER_NODE = "0123456789abcdef", "fedcba9876543210"


def rewritten(private: RSAPrivateKey) -> RSAPrivateKey:
    """Return the same key in another encoding: primes swapped, exponent modulo phi(n)."""
    numbers = private.private_numbers()
    d = pow(numbers.public_numbers.e, -1, (numbers.p - 1) * (numbers.q - 1))
    return RSAPrivateNumbers(
        p=numbers.q,
        q=numbers.p,
        d=d,
        dmp1=d % (numbers.q - 1),
        dmq1=d % (numbers.p - 1),
        iqmp=pow(numbers.p, -1, numbers.q),
        public_numbers=numbers.public_numbers,
    ).private_key()


def hkdf(secret: bytes, purpose: bytes) -> bytes:
    """Compute one block of HKDF-SHA256 (RFC 5869), independently of the code under test."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, purpose + b"\x01", "sha256")


def test_signature_is_valid_for_its_message_and_key_only() -> None:
    key = network_key("one")
    signature = key.sign(b"message")
    assert len(signature) == 2048 // 8
    assert key.verify(signature, b"message")
    assert not key.verify(signature, b"messagf")
    assert not key.verify(bytes(len(signature)), b"message")
    assert not network_key("other").verify(signature, b"message")


@given(signature=st.binary(max_size=600))
def test_random_bytes_are_no_signature(signature: bytes) -> None:
    assert not network_key("one").verify(signature, b"message")


@pytest.mark.parametrize(("message", "status"), [(b"message", 0), (b"another", 1)])
def test_openssl_verifies_the_signature(message: bytes, status: int, tmp_path: Path) -> None:
    pem = rsa_key("one").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key").write_bytes(pem)
    (tmp_path / "message").write_bytes(message)
    (tmp_path / "signature").write_bytes(network_key("one").sign(b"message"))
    command = ["openssl", "dgst", "-sha256", "-prverify", "key", "-signature", "signature"]
    for option in ("rsa_padding_mode:pss", "rsa_pss_saltlen:32", "rsa_mgf1_md:sha256"):
        command += ["-sigopt", option]
    done = subprocess.run([*command, "message"], cwd=tmp_path, check=False, capture_output=True)
    assert done.returncode == status


def test_join_secret_depends_on_key_and_network() -> None:
    key = network_key("one")
    secrets = {
        key.join_secret("cluster"),
        key.join_secret("clustes"),
        key.join_secret("cluster\0"),
        network_key("other").join_secret("cluster"),
    }
    assert len(secrets) == 4
    assert {len(secret) for secret in secrets} == {32}


def test_join_secrets_and_tags_are_derived_as_documented() -> None:
    numbers = rsa_key("one").private_numbers()
    small, large = sorted((numbers.p, numbers.q))
    root = small.to_bytes(256, "big") + large.to_bytes(256, "big")
    key = network_key("one")
    assert key.join_secret("netz-ß") == hkdf(root, b"arke 1 join key\0netz-\xc3\x9f")
    tag_key = hkdf(root, b"arke 1 discovery tag\0")
    expected = hmac.digest(tag_key, NODE.encode() + b"cluster", "sha256")[:16]
    assert key.tag("cluster", NODE) == expected


def test_every_encoding_of_a_key_gives_the_same_network() -> None:
    key, copy = network_key("one"), NetworkKey(rewritten(rsa_key("one")))
    assert copy.join_secret("cluster") == key.join_secret("cluster")
    assert copy.tag("cluster", NODE) == key.tag("cluster", NODE)
    assert copy.fingerprint == key.fingerprint


def test_tag_does_not_reveal_the_network() -> None:
    key = network_key("one")
    tags = {
        key.tag("cluster", NODE),
        key.tag("cluster", OTHER_NODE),
        key.tag("another", NODE),
        network_key("other").tag("cluster", NODE),
    }
    assert len(tags) == 4
    assert {len(tag) for tag in tags} == {16}


def test_fingerprint_depends_on_the_public_key_only() -> None:
    key = network_key("one")
    assert key.fingerprint == NetworkKey(rsa_key("one")).fingerprint
    assert key.fingerprint != network_key("other").fingerprint
    assert len(bytes.fromhex(key.fingerprint)) == 8


def test_repr_contains_no_secret() -> None:
    pair = CurvePair.fresh(os.urandom)
    assert repr(pair.secret) not in repr(pair)
    assert repr(network_key("one")) == f"NetworkKey({network_key('one').fingerprint})"


@given(secret=st.binary(min_size=32, max_size=32))
def test_libzmq_derives_the_same_public_key(secret: bytes) -> None:
    pair = CurvePair.from_secret(secret)
    assert z85.encode(pair.public) == zmq.curve_public(z85.encode(secret))
    assert pair.secret == secret


def test_libzmq_accepts_raw_keys() -> None:
    server, client = CurvePair.fresh(os.urandom), CurvePair.fresh(os.urandom)
    with (
        zmq.Context() as context,
        context.socket(zmq.PULL) as pull,
        context.socket(
            zmq.PUSH,
        ) as push,
    ):
        pull.curve_server = True
        pull.curve_secretkey = server.secret
        push.curve_serverkey = server.public
        push.curve_publickey, push.curve_secretkey = client.public, client.secret
        pull.rcvtimeo, push.linger = 10_000, 0
        push.connect(f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}")
        push.send(b"through")
        assert pull.recv() == b"through"


def test_new_key_pair_uses_the_given_random_source() -> None:
    numbers = count(1)

    def random(size: int) -> bytes:
        return bytes([next(numbers)]) * size

    first, second = CurvePair.fresh(random), CurvePair.fresh(random)
    assert first.secret == b"\1" * 32
    assert second == CurvePair.from_secret(b"\2" * 32)
    assert first.public != second.public


def test_secret_of_wrong_length_is_rejected() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        CurvePair.from_secret(bytes(31))


def test_fingerprint_equals_that_of_openssl() -> None:
    der = rsa_key("one").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert network_key("one").fingerprint == hashlib.sha256(der).hexdigest()[:16]
