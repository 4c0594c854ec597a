from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


def keygen(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "arke.cli.main", "keygen", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_key_has_3072_bits_and_mode_0600(tmp_path: Path) -> None:
    file = tmp_path / "id_rsa"
    done = keygen(str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert key.key_size == 3072


def test_keygen_never_overwrites_a_file(tmp_path: Path) -> None:
    file = tmp_path / "id_rsa"
    file.write_text("precious")
    done = keygen(str(file))
    assert done.returncode == 1
    assert done.stderr == (f"arke: {file} exists and is not overwritten; choose another name\n")
    assert file.read_text() == "precious"


def test_keygen_error_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "id_rsa"
    done = keygen(str(file))
    assert done.returncode == 1
    assert done.stderr == f"arke: cannot write {file}: No such file or directory\n"
