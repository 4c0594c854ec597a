"""What a test needs of the machine: without it the test fails in CI, and is skipped elsewhere."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def tool(name: str, package: str) -> str:
    """Return where the program is."""
    return shutil.which(name) or without(f"`{name}` is missing: install {package}")


def root(why: str) -> None:
    """Go on only as root."""
    if os.geteuid() != 0:
        without(f"only root can {why}")


def without(reason: str) -> NoReturn:
    """End the test: something it needs is not here."""
    if os.environ.get("CI"):
        pytest.fail(f"CI needs it: {reason}", pytrace=False)
    pytest.skip(reason)
