"""`pip install .` without a C compiler installs everything uncompiled."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import arke
from support.backends import respond_with
from support.deployment import new_deployment
from support.programs import CHECKOUT, program
from support.waiting import LIMIT

BUILD = 10 * LIMIT  # seconds; mypyc translates the modules before the compiler fails


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of a wheel that was built with a failing compiler."""
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "-w", str(folder), "."]
    done = subprocess.run(
        words,
        cwd=CHECKOUT,
        env=os.environ | {"CC": "false"},
        timeout=BUILD,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "compiling: C file 1 of " in done.stdout + done.stderr
    assert "Not compiled" in done.stdout + done.stderr
    assert "apt install gcc python3-dev" in done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    assert wheel.name == f"arke-{arke.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "packages")
    return folder / "packages"


def test_an_uncompiled_install_reports_it_and_works(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(installed))
    words = [*program("proxy"), "-version"]
    version = subprocess.run(
        words, timeout=LIMIT, check=True, capture_output=True, text=True
    ).stdout
    assert version == f"proxy {arke.__version__} (not compiled)\n"
    where = [sys.executable, "-c", "import arke; print(arke.__file__)"]
    found = subprocess.run(where, timeout=LIMIT, check=True, capture_output=True, text=True).stdout
    assert Path(found).is_relative_to(installed)
    with new_deployment() as deployment:
        backend = deployment.backend(respond_with("one"))
        assert deployment.proxy("-choose", "static", "-backend", backend.address).body() == "one"
