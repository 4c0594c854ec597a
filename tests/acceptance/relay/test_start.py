"""A relay that cannot start prints one line that names the fix, and exits with status 2."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

import arke
from arke.compiled import is_compiled
from arke.keygen import write_key
from support.needs import require_tool
from support.ports import free_port
from support.programs import program
from support.waiting import LIMIT

ADDRESS = "127.86.86.86"
LONG_NAME = "-net must be 1 to 255 bytes of UTF-8 text (got 256 bytes)"


def start_error(*flags: str | Path, wrap: Sequence[str] = (), **environ: str) -> str:
    """Run a relay that cannot start, and return its one-line error."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("ARKE_")}
    done = subprocess.run(
        [*wrap, *program("relay"), "-bind", ADDRESS, "-mdns", "off", *flags],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=inherited | environ,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), done
    assert done.stderr.startswith("relay: ")
    assert done.stderr.count("\n") == 1 == len(done.stderr.splitlines())
    return done.stderr.removesuffix("\n")


@pytest.fixture(scope="module")
def valid_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "id_rsa"
    write_key(path)
    return path


@pytest.fixture
def key(tmp_path: Path, valid_key: Path) -> Path:
    return Path(shutil.copy2(valid_key, tmp_path))


def pem(private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, passphrase: bytes = b"") -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption(),
    )


def too_short(path: Path) -> None:
    path.write_bytes(pem(rsa.generate_private_key(65537, 1024)))


def encrypted(path: Path) -> None:
    path.write_bytes(pem(rsa.generate_private_key(65537, 2048), b"secret"))


def elliptic(path: Path) -> None:
    path.write_bytes(pem(ed25519.Ed25519PrivateKey.generate()))


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def public(path: Path) -> None:
    private = serialization.load_pem_private_key(path.read_bytes(), None)
    public_format = serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(private.public_key().public_bytes(serialization.Encoding.PEM, public_format))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "fix"),
    [
        (Path.unlink, "make one: arke keygen .*/id_rsa$"),
        (lambda path: path.chmod(0o640), r"open to others \(mode 0640\); close it: chmod 600 "),
        (lambda path: path.chmod(0o604), "close it: chmod 600 "),
        (too_short, "1024-bit key, .* make another: arke keygen "),
        (encrypted, "is encrypted, .* remove it: ssh-keygen -p -N '' -f "),
        (elliptic, "holds no RSA key; make another: arke keygen "),
        (damaged, "make another: arke keygen "),
        (lambda path: path.write_bytes(b""), "make another: arke keygen "),
        (public, "is a public key; name its private half"),
        (folder, "is a directory; name the key file in it"),
    ],
)
def test_unusable_key_file_is_rejected(key: Path, spoil: Callable[[Path], None], fix: str) -> None:
    spoil(key)
    line = start_error("-net", "x", "-rsa", key)
    assert re.search(fix, line), line
    assert str(key) in line


def test_unreadable_key_file_is_rejected(key: Path) -> None:
    key.chmod(0)
    wrap: list[str] = []
    if os.geteuid() == 0:  # root reads every file unless its capabilities are dropped
        wrap = [require_tool("setpriv", "util-linux"), "--bounding-set=-all", "--inh-caps=-all"]
    line = start_error("-net", "x", "-rsa", key, wrap=wrap)
    assert "cannot be read by this user; give it to them: sudo chown " in line


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["-prot", "1"], "unrecognized arguments: -prot 1; see `relay -h`"),
        (["-po", "1"], "unrecognized arguments: -po 1; see `relay -h`"),
        (["extra"], "unrecognized arguments: extra; see `relay -h`"),
        (["-rsa"], "-rsa: expected one argument; see `relay -h`"),
        (["-port", "x"], "-port must be between 0 and 65535 (got x)"),
        (["-port", "70000"], "-port must be between 0 and 65535 (got 70000)"),
        (["-mdns", "maybe"], "-mdns must be on or off (got maybe)"),
        (
            ["-join", "nowhere"],
            "-join must be HOST:PORT, with an IPv6 host in brackets (got nowhere)",
        ),
        (["-log-format", "xml"], "-log-format must be text or json (got xml)"),
        (["-log-level", "loud"], "-log-level must be debug, info, warn or error (got loud)"),
        (["-cert-life", "25h"], "-cert-life must be between 1s and 24h (got 25h)"),
        (["-cert-life", "0.5s"], "-cert-life must be between 1s and 24h (got 0.5s)"),
        (["-port", "0"], "-port 0 needs -socket PATH: programs could not attach"),
        (["-net", ""], "-net must not be empty (got '')"),
        (["-net", "x" * 256], LONG_NAME),
    ],
)
def test_invalid_flags_are_rejected(key: Path, flags: list[str], line: str) -> None:
    assert start_error("-net", "x", "-rsa", key, *flags) == f"relay: {line}"


@pytest.mark.parametrize("flags", [[], ["-net", "x"]])
def test_missing_net_or_rsa_error_explains_how_to_set_them(flags: list[str]) -> None:
    line = start_error(*flags)
    assert "-net NAME -rsa KEYFILE (`arke keygen FILE` makes a key)" in line
    assert "-dev" in line


@pytest.mark.parametrize("where", ["nosuch0", "203.0.113.1", "203.0.113.0/24"])
def test_bind_to_a_foreign_address_is_rejected(key: Path, where: str) -> None:
    line = start_error("-net", "x", "-rsa", key, "-bind", where)
    assert f"-bind must be an address, network or interface of this machine (got '{where}')" in line


def test_environment_variables_are_validated_like_flags(key: Path) -> None:
    assert start_error("-rsa", key, ARKE_NET="x", ARKE_PORT="x").startswith(
        "relay: ARKE_PORT must be"
    )


@pytest.mark.parametrize("dev", [[], ["-dev"]])
def test_program_port_in_use_is_reported(key: Path, dev: list[str]) -> None:
    """Also with -dev: its commands are for a relay that listens, so they are not printed."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = start_error("-net", "x", "-rsa", key, "-port", str(port), *dev)
    assert f"cannot listen on port {port} of 127.0.0.1 (Address already in use)" in line
    assert "stop the process that uses it, or choose another with -port" in line


@pytest.mark.parametrize("offset", [0, 1])
def test_peer_port_in_use_is_reported(key: Path, offset: int) -> None:
    with socket.create_server((ADDRESS, 0)) as taken:
        port = taken.getsockname()[1] - offset
        line = start_error("-net", "x", "-rsa", key, "-peer-port", str(port))
    assert f"cannot bind ports {port} and {port + 1} on {ADDRESS} (Address already in use)" in line
    assert "stop the process that uses them, or choose others with -peer-port" in line


def test_metrics_port_in_use_is_reported(key: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        metrics = ["-port", str(free_port()), "-metrics", f"127.0.0.1:{port}"]
        line = start_error("-net", "x", "-rsa", key, *metrics)
    assert f"-metrics: cannot listen on 127.0.0.1:{port}" in line


def test_socket_path_of_a_regular_file_is_not_replaced(key: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("keep", encoding="utf-8")
    line = start_error("-net", "x", "-rsa", key, "-port", "0", "-socket", notes)
    assert f"cannot listen on -socket {notes} (Address already in use)" in line
    assert notes.read_text(encoding="utf-8") == "keep"


def test_socket_path_that_cannot_be_created_is_rejected(key: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "folder", tmp_path / ("x" * 200)):
        line = start_error("-net", "x", "-rsa", key, "-port", "0", "-socket", path)
        assert "choose an unused path in a directory that this user can write" in line


@pytest.mark.parametrize("flag", ["-version", "--version"])
def test_version_flag_prints_the_version(flag: str) -> None:
    how = "compiled" if is_compiled() else "not compiled"
    assert output_of(flag) == f"relay {arke.__version__} ({how})\n"


@pytest.mark.parametrize("flag", ["-h", "-help", "--help"])
def test_help_lists_the_flags(flag: str) -> None:
    page = output_of(flag)
    for name in ("-net NAME", "-rsa KEYFILE", "-socket PATH", "-join HOST:PORT", "ARKE_PEER_PORT"):
        assert name in page


def output_of(flag: str) -> str:
    done = subprocess.run(
        [*program("relay"), flag], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
