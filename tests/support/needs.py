"""What a test needs of the machine: without it the test fails in CI, and is skipped elsewhere."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def require_tool(name: str, package: str) -> str:
    """Return where the program is."""
    return shutil.which(name) or skip_or_fail(f"`{name}` is missing: install {package}")


def require_root(why: str) -> None:
    """Go on only as root."""
    if os.geteuid() != 0:
        skip_or_fail(f"only root can {why}")


def skip_or_fail(reason: str) -> NoReturn:
    """End the test: something it needs is not here."""
    if os.environ.get("CI"):
        pytest.fail(f"CI needs it: {reason}", pytrace=False)
    pytest.skip(reason)
