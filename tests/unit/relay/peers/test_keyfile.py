"""Key files as common tools create them; needs ssh-keygen and openssl."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arke_relay.errors import ConfigurationError, KeyFileError
from arke_relay.peers.keyfile import load_key
from support.network_keys import rsa_key


def shell(command: str, cwd: Path) -> None:
    subprocess.run(["sh", "-ec", command], cwd=cwd, check=True, capture_output=True, timeout=60)


def error_of(path: Path) -> str:
    """Load an invalid key file and return its error, which is one line."""
    with pytest.raises(KeyFileError) as refusal:
        load_key(path)
    assert isinstance(refusal.value, ConfigurationError)
    line = str(refusal.value)
    assert "\n" not in line
    assert str(path) in line
    return line


@pytest.mark.parametrize(
    "command",
    [
        "ssh-keygen -q -t rsa -N '' -f key",
        "ssh-keygen -q -t rsa -b 4096 -N '' -f key",
        "ssh-keygen -q -t rsa -m PEM -N '' -f key",
        "ssh-keygen -q -t rsa -m PKCS8 -N '' -f key",
        "openssl genrsa -out key 2048",
        "openssl genrsa -traditional -out key 3072",
        "openssl genrsa -out pem 2048 && openssl rsa -in pem -traditional -outform DER -out key",
        "openssl genrsa | openssl pkcs8 -topk8 -nocrypt -outform DER -out key",
        "openssl genrsa -out key 2048 && { echo 'a note'; cat key; } > noted && mv noted key",
        "openssl genrsa -out key 2048 && sed -i 's/$/\\r/' key",
    ],
)
def test_keys_of_common_tools_are_loaded(command: str, tmp_path: Path) -> None:
    shell(f"umask 077; {command}", tmp_path)
    key = load_key(tmp_path / "key")
    assert key.verify(key.sign(b"message"), b"message")


def test_one_key_in_every_format_gives_one_network(tmp_path: Path) -> None:
    shell(
        """umask 077
        openssl genrsa -out pkcs8 2048
        openssl rsa -in pkcs8 -traditional -out pkcs1
        openssl rsa -in pkcs8 -traditional -outform DER -out pkcs1.der
        openssl pkcs8 -topk8 -nocrypt -in pkcs8 -outform DER -out pkcs8.der
        cp pkcs1 openssh; ssh-keygen -q -p -N '' -f openssh
        grep -q OPENSSH openssh
        cp openssh back; ssh-keygen -q -p -N '' -m PEM -f back""",
        tmp_path,
    )
    keys = [load_key(path) for path in sorted(tmp_path.iterdir())]
    assert len(keys) == 6
    assert len({key.join_secret("cluster") for key in keys}) == 1
    assert len({key.fingerprint for key in keys}) == 1


def test_symbolic_link_is_followed(tmp_path: Path) -> None:
    shell("openssl genrsa -out real 2048; ln -s real key", tmp_path)
    assert load_key(tmp_path / "key").fingerprint == load_key(tmp_path / "real").fingerprint


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "id rsa"
    assert error_of(path).endswith(f"make one: arke keygen {shlex.quote(str(path))}")


def test_unreadable_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(mode=0)
    with without_root_privileges():
        assert f"sudo chown {os.geteuid()} {path}" in error_of(path)


@contextmanager
def without_root_privileges() -> Iterator[None]:
    """Drop root's privileges during a test, because root can read every file."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_directory_is_an_error(tmp_path: Path) -> None:
    assert "is a directory; name the key file in it" in error_of(tmp_path)


def test_named_pipe_is_rejected_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key")
    assert "not a regular file" in error_of(tmp_path / "key")


def test_link_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to("key")
    assert "cannot be read" in error_of(tmp_path / "key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o602, 0o610])
def test_file_readable_by_others_is_rejected(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "id rsa"
    shell(f"openssl genrsa -out 'id rsa' 2048; chmod {mode:o} 'id rsa'", tmp_path)
    _, fix = error_of(path).rsplit("close it: ", 1)
    shell(fix, tmp_path)
    load_key(path)


@pytest.mark.parametrize(
    "command",
    [
        "ssh-keygen -q -t rsa -N secret -f key",
        "ssh-keygen -q -t rsa -m PEM -N secret -f key",
        "ssh-keygen -q -t rsa -m PKCS8 -N secret -f key",
        "openssl genrsa -aes256 -passout pass:secret -out key 2048",
        "openssl genrsa -traditional -aes128 -passout pass:secret -out key 2048",
    ],
)
def test_encrypted_key_is_rejected_with_the_command_to_decrypt_it(
    command: str, tmp_path: Path
) -> None:
    shell(command, tmp_path)
    _, fix = error_of(tmp_path / "key").rsplit("remove it: ", 1)
    shell(f"{fix} -P secret", tmp_path)  # -P answers what a person would be asked
    load_key(tmp_path / "key")


def test_encrypted_der_key_is_rejected_with_the_command_to_decrypt_it(tmp_path: Path) -> None:
    shell(
        "openssl genrsa -out pem 2048"
        " && openssl pkcs8 -topk8 -in pem -passout pass:secret -outform DER -out key",
        tmp_path,
    )
    (tmp_path / "key").chmod(0o600)
    _, fix = error_of(tmp_path / "key").rsplit("remove it: ", 1)
    shell(f"{fix} -passin pass:secret", tmp_path)
    load_key(tmp_path / "key.pem")


@pytest.mark.parametrize(
    "command",
    [
        "ssh-keygen -q -t ed25519 -N '' -f key",
        "ssh-keygen -q -t ecdsa -N '' -f key",
        "ssh-keygen -q -t dsa -N '' -f key",
        "openssl genpkey -algorithm ed25519 -out key",
        "openssl ecparam -genkey -name prime256v1 -noout -out key",
    ],
)
def test_other_key_type_is_rejected(command: str, tmp_path: Path) -> None:
    shell(f"umask 077; {command}", tmp_path)
    assert f"holds no RSA key; make another: arke keygen {tmp_path}/key.new" in error_of(
        tmp_path / "key",
    )


@pytest.mark.parametrize(
    ("command", "bits"),
    [
        ("ssh-keygen -q -t rsa -b 1024 -N '' -f key", 1024),
        ("openssl genrsa -out key 1024", 1024),
        ("openssl genrsa -traditional -out key 512", 512),
        ("openssl genrsa -out key 2047", 2047),
    ],
)
def test_short_key_is_rejected(command: str, bits: int, tmp_path: Path) -> None:
    shell(command, tmp_path)
    line = error_of(tmp_path / "key")
    assert f"holds a {bits}-bit key" in line
    assert f"arke keygen {tmp_path}/key.new" in line


@pytest.mark.parametrize(
    "command",
    [
        "cp key.pub public",
        "ssh-keygen -e -f key > public",
        "openssl rsa -in key -pubout -out public",
        "openssl rsa -in key -RSAPublicKey_out -out public",
        "openssl rsa -in key -pubout -outform DER -out public",
        "openssl rsa -in key -RSAPublicKey_out -outform DER -out public",
    ],
)
def test_public_key_is_rejected_before_its_mode_is_checked(command: str, tmp_path: Path) -> None:
    shell(f"ssh-keygen -q -t rsa -m PEM -N '' -f key; {command}", tmp_path)
    (tmp_path / "public").chmod(0o644)
    assert error_of(tmp_path / "public").endswith("is a public key; name its private half")


def test_error_for_a_public_key_names_the_private_key(tmp_path: Path) -> None:
    shell("ssh-keygen -q -t rsa -N '' -f key", tmp_path)
    assert error_of(tmp_path / "key.pub").endswith(f"name its private half: {tmp_path}/key")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello\n", bytes(64 * 1024), b"-----BEGIN RSA PRIVATE KEY-----\nAA==\n", b"0\x82"],
)
def test_file_that_is_not_a_key_is_rejected(content: bytes, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    assert f"is not a private key, or damaged; make another: arke keygen {path}.new" in error_of(
        path,
    )


def test_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = written(tmp_path, b"")
    os.truncate(path, 1 << 40)
    assert "is over 64 KiB" in error_of(path)


def test_truncated_key_is_rejected(tmp_path: Path) -> None:
    pem = rsa_key("one").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert "damaged" in error_of(written(tmp_path, pem[: len(pem) // 2]))


NUMBERS = ("n", "e", "d", "p", "q", "dmp1", "dmq1", "iqmp")


def pkcs1(**changes: int) -> bytes:
    """Return the DER encoding of a valid key, with some of its numbers replaced."""
    valid = rsa_key("one").private_numbers()
    numbers = {"n": valid.public_numbers.n, "e": valid.public_numbers.e}
    numbers |= {name: getattr(valid, name) for name in NUMBERS[2:]}
    assert changes.keys() <= numbers.keys()
    return tagged(0x30, b"".join(map(integer, (0, *(numbers | changes).values()))))


def integer(number: int) -> bytes:
    return tagged(0x02, number.to_bytes(number.bit_length() // 8 + 1))


def tagged(tag: int, content: bytes) -> bytes:
    if len(content) < 128:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content


def test_numbers_of_a_valid_key_are_accepted(tmp_path: Path) -> None:
    load_key(written(tmp_path, pkcs1()))


@pytest.mark.parametrize("name", NUMBERS)
def test_key_with_a_wrong_number_is_rejected(name: str, tmp_path: Path) -> None:
    valid = rsa_key("one").private_numbers()
    right = getattr(valid if hasattr(valid, name) else valid.public_numbers, name)
    assert "its numbers are inconsistent" in error_of(written(tmp_path, pkcs1(**{name: right ^ 2})))


def test_consistent_numbers_that_are_no_key_are_rejected(tmp_path: Path) -> None:
    valid = rsa_key("one").private_numbers()
    n = valid.public_numbers.n
    for numbers in (
        {"e": 1, "d": 1, "dmp1": 1, "dmq1": 1},
        {"p": 1, "q": n, "dmp1": 0, "dmq1": 0, "iqmp": 0},
        {"p": n, "q": 1, "dmp1": 0, "dmq1": 0, "iqmp": 1},
        {"n": 0, "p": 0, "q": 0},
        {"n": valid.p * valid.p, "q": valid.p, "dmq1": valid.dmp1},
    ):
        error_of(written(tmp_path, pkcs1(**numbers)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), head=st.sampled_from([b"", b"0\x82\x04", b"ssh-rsa "]))
def test_random_bytes_are_rejected_with_one_line(
    content: bytes, head: bytes, tmp_path: Path
) -> None:
    error_of(written(tmp_path, head + content))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), der=st.booleans())
def test_key_with_a_changed_byte_is_rejected_or_valid(
    data: st.DataObject,
    der: bool,
    tmp_path: Path,
) -> None:
    content = bytearray(
        rsa_key("one").private_bytes(
            Encoding.DER if der else Encoding.PEM,
            PrivateFormat.TraditionalOpenSSL if der else PrivateFormat.OpenSSH,
            NoEncryption(),
        ),
    )
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    try:
        key = load_key(written(tmp_path, bytes(content)))
    except KeyFileError as refusal:
        assert "\n" not in str(refusal)  # noqa: PT017
    else:
        assert key.verify(key.sign(b"message"), b"message")


def written(folder: Path, content: bytes) -> Path:
    path = folder / "key"
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path
