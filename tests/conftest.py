"""Makes the packages beside it (`lab`) importable, and hands a lab to the tests that want one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import Lab, LabUnavailable
from support.relays import Relays

_ROOT = Path(__file__).parent.parent


def pytest_sessionstart() -> None:
    """Test what is there, not what was: Python prefers what is compiled, be it older."""
    packages = [_ROOT / name for name in ("sdk", "relay", "proxy")]
    compiled = [path.stat().st_mtime for root in packages for path in root.rglob("*.so")]
    written = [path.stat().st_mtime for root in packages for path in root.rglob("*.py")]
    if compiled and max(written) > min(compiled):
        pytest.exit("what is compiled is not of these sources: `make compiled`, or `make pure`")


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three hosts on a switch, or n with `@pytest.mark.parametrize("lab", [n], indirect=True)`."""
    with ExitStack() as stack:
        try:
            lab = stack.enter_context(Lab(hosts=getattr(request, "param", 3)))
        except LabUnavailable as reason:
            if os.environ.get("CI"):
                pytest.fail(f"CI needs the network lab: {reason}", pytrace=False)
            pytest.skip(f"no network lab on this machine: {reason}")
        yield lab
        # pytest shows this only for a test that failed.
        for process in lab.processes:
            sys.stdout.write(f"--- {process.name}\n{process.tail()}\n")


@pytest.fixture
def relays(tmp_path: Path) -> Iterator[Relays]:
    """Relays of one network on loopback addresses of this machine."""
    made = Relays(tmp_path)
    try:
        yield made
    finally:
        made.stop()
