from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.needs import require_tool
from support.vagrant_files import UNITS, VAGRANT, command, nodes


def check(*argv: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a checking tool, which must succeed, and return its output."""
    done = subprocess.run(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_vagrantfile_is_valid(tmp_path: Path) -> None:
    # Vagrant validates the provider block only if VirtualBox reports its version.
    virtualbox = tmp_path / "VBoxManage"
    virtualbox.write_text("#!/bin/sh\necho 7.0.10r158379\n", encoding="utf-8")
    virtualbox.chmod(0o755)
    output = check(
        require_tool("vagrant", "vagrant"),
        "validate",
        env={
            "HOME": str(tmp_path),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "VAGRANT_CWD": str(VAGRANT),
            "VAGRANT_DOTFILE_PATH": str(tmp_path / "dot"),
            "VAGRANT_HOME": str(tmp_path / "home"),
        },
    )
    assert "validated successfully" in output


def test_provisioning_script_passes_shellcheck() -> None:
    check("sh", "-n", VAGRANT / "provision.sh")
    check(require_tool("shellcheck", "shellcheck"), VAGRANT / "provision.sh")


def test_installed_packages_are_verified_by_hash() -> None:
    installs = [
        line
        for line in (VAGRANT / "provision.sh").read_text(encoding="utf-8").splitlines()
        if "pip install" in line
    ]
    assert installs
    for line in installs:
        assert "--require-hashes" in line or "--no-deps --no-build-isolation" in line, line


def test_units_turn_core_dumps_off() -> None:
    for unit in UNITS:
        assert "\nLimitCORE=0\n" in unit.read_text(encoding="utf-8"), unit


def test_every_unit_runs_on_some_node_and_every_node_runs_the_relay() -> None:
    assert {unit.stem for unit in UNITS} == {name for names in nodes().values() for name in names}
    assert all("relay" in names for names in nodes().values())


def test_files_in_the_commands_are_installed_by_the_script() -> None:
    script = (VAGRANT / "provision.sh").read_text(encoding="utf-8")
    words = [word for unit in UNITS for word in command(unit.stem) if word.startswith("/")]
    for path in map(Path, words):
        # Programs come with the virtual environment; the script installs other files by name.
        installed = path.parents[1] if path.parent.name == "bin" else path
        assert f" {installed}\n" in script, path


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    # `verify` needs the programs to exist; here they are empty files in a temporary folder.
    analyze = require_tool("systemd-analyze", "systemd")
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    for other in UNITS:
        stand_in = stand_ins / Path(command(other.stem)[0]).name
        stand_in.touch(mode=0o755)
        text = other.read_text(encoding="utf-8").replace("/opt/arke/bin", str(stand_ins))
        (tmp_path / other.name).write_text(text, encoding="utf-8")
    # An unknown key is only a warning of systemd, so the output must be empty.
    assert check(analyze, "verify", tmp_path / unit.name) == ""


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_rates_the_unit_as_hardened(unit: Path) -> None:
    # Out of 100, lower is better; up to 20 is "OK", and a unit that sets nothing has 96.
    check(
        require_tool("systemd-analyze", "systemd"),
        "security",
        "--offline=yes",
        "--threshold=20",
        unit,
    )
