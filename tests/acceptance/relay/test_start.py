"""A relay that cannot start as asked says one line that names the mend, and exits with status 2."""

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


def refused(*flags: str | Path, wrap: Sequence[str] = (), **environ: str) -> str:
    """Run a relay that cannot start, and return the one line it says."""
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
def whole_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "id_rsa"
    write_key(path)
    return path


@pytest.fixture
def key(tmp_path: Path, whole_key: Path) -> Path:
    return Path(shutil.copy2(whole_key, tmp_path))


def pem(private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, passphrase: bytes = b"") -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption(),
    )


def short(path: Path) -> None:
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
    ("spoil", "mend"),
    [
        (Path.unlink, "make one: arke keygen .*/id_rsa$"),
        (lambda path: path.chmod(0o640), r"open to others \(mode 0640\); close it: chmod 600 "),
        (lambda path: path.chmod(0o604), "close it: chmod 600 "),
        (short, "1024-bit key, .* make another: arke keygen "),
        (encrypted, "is encrypted, .* take it off: ssh-keygen -p -N '' -f "),
        (elliptic, "holds no RSA key; make another: arke keygen "),
        (damaged, "make another: arke keygen "),
        (lambda path: path.write_bytes(b""), "make another: arke keygen "),
        (public, "is a public key; name its private half"),
        (folder, "is a directory; name the key file in it"),
    ],
)
def test_a_key_file_that_does_not_do(key: Path, spoil: Callable[[Path], None], mend: str) -> None:
    spoil(key)
    line = refused("-net", "x", "-rsa", key)
    assert re.search(mend, line), line
    assert str(key) in line


def test_a_key_file_that_this_user_cannot_read(key: Path) -> None:
    key.chmod(0)
    wrap: list[str] = []
    if os.geteuid() == 0:  # who may read everything, unless it is taken from them
        wrap = [require_tool("setpriv", "util-linux"), "--bounding-set=-all", "--inh-caps=-all"]
    line = refused("-net", "x", "-rsa", key, wrap=wrap)
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
def test_flags_that_make_no_sense(key: Path, flags: list[str], line: str) -> None:
    assert refused("-net", "x", "-rsa", key, *flags) == f"relay: {line}"


@pytest.mark.parametrize("flags", [[], ["-net", "x"]])
def test_without_a_name_or_a_key_it_says_how_to_get_them(flags: list[str]) -> None:
    line = refused(*flags)
    assert "-net NAME -rsa KEYFILE (`arke keygen FILE` makes a key)" in line
    assert "-dev" in line


@pytest.mark.parametrize("where", ["nosuch0", "203.0.113.1", "203.0.113.0/24"])
def test_an_address_that_this_machine_has_not(key: Path, where: str) -> None:
    line = refused("-net", "x", "-rsa", key, "-bind", where)
    assert f"-bind '{where}' is no address, network or interface of this machine" in line


def test_the_environment_is_checked_like_the_command_line(key: Path) -> None:
    assert refused("-rsa", key, ARKE_NET="x", ARKE_PORT="x").startswith("relay: ARKE_PORT must be")


def test_a_port_for_programs_that_is_taken(key: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused("-net", "x", "-rsa", key, "-port", str(port))
    assert f"cannot listen on port {port} of 127.0.0.1 (Address already in use)" in line
    assert "stop what uses it, or choose another with -port" in line


@pytest.mark.parametrize("offset", [0, 1])
def test_a_port_for_peers_that_is_taken(key: Path, offset: int) -> None:
    with socket.create_server((ADDRESS, 0)) as taken:
        port = taken.getsockname()[1] - offset
        line = refused("-net", "x", "-rsa", key, "-peer-port", str(port))
    assert f"cannot bind ports {port} and {port + 1} on {ADDRESS} (Address already in use)" in line
    assert "stop the process that uses them, or choose others with -peer-port" in line


def test_a_port_for_metrics_that_is_taken(key: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        metrics = ["-port", str(free_port()), "-metrics", f"127.0.0.1:{port}"]
        line = refused("-net", "x", "-rsa", key, *metrics)
    assert f"-metrics: cannot listen on 127.0.0.1:{port}" in line


def test_a_socket_where_there_is_something_else(key: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("keep", encoding="utf-8")
    line = refused("-net", "x", "-rsa", key, "-port", "0", "-socket", notes)
    assert f"cannot listen on -socket {notes} (Address already in use)" in line
    assert notes.read_text(encoding="utf-8") == "keep"


def test_a_socket_where_none_can_be(key: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "folder", tmp_path / ("x" * 200)):
        line = refused("-net", "x", "-rsa", key, "-port", "0", "-socket", path)
        assert "choose a path in a folder of yours that nothing else uses" in line


@pytest.mark.parametrize("flag", ["-version", "--version"])
def test_the_version_is_told(flag: str) -> None:
    how = "compiled" if is_compiled() else "not compiled"
    assert told(flag) == f"relay {arke.__version__} ({how})\n"


@pytest.mark.parametrize("flag", ["-h", "-help", "--help"])
def test_help_names_every_flag(flag: str) -> None:
    page = told(flag)
    for name in ("-net NAME", "-rsa KEYFILE", "-socket PATH", "-join HOST:PORT", "ARKE_PEER_PORT"):
        assert name in page


def told(flag: str) -> str:
    done = subprocess.run(
        [*program("relay"), flag], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
